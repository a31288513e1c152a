"""Bicubic resizing as MATLAB's `imresize` does it: antialiased, borders mirrored; and Lanczos, to compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.errors import ShapeError


def bicubic_downsample(images: Tensor, factor: int = 4) -> Tensor:
    """MATLAB's `imresize(image, 1/factor, "bicubic")`: Keys' cubic (a = -0.5) stretched by the factor.

    Args:
        images: (..., C, H, W), floating point.
        factor: whole; H and W must be multiples of it.

    Returns:
        (..., C, H / factor, W / factor), not clamped and not rounded.

    Raises:
        ShapeError: a side is not a multiple of the factor.
    """
    height, width = images.shape[-2:]
    if height % factor or width % factor:
        raise ShapeError(f"images are {width}x{height}; both sides must be multiples of {factor}")
    return _resize(images, border=3 * factor, size=(height // factor, width // factor), factor=1 / factor)


def bicubic_upsample(images: Tensor, factor: int = 4) -> Tensor:
    """MATLAB's `imresize(image, factor, "bicubic")`: (..., C, H, W) -> (..., C, factor * H, factor * W), not clamped."""
    height, width = images.shape[-2:]
    return _resize(images, border=3, size=(height * factor, width * factor), factor=factor)


def lanczos_upsample(images: Tensor, factor: int = 4) -> Tensor:
    """Lanczos interpolation with three lobes: (..., C, H, W) -> (..., C, factor * H, factor * W), not clamped.

    The kernel is sinc(x) sinc(x / 3) for |x| < 3, its six weights scaled to a sum of 1; borders are mirrored, as for bicubic.
    """
    for dim in (-2, -1):
        padded = images.index_select(dim, _mirror(images.shape[dim], 3, images.device))
        windows = padded.unfold(dim, 6, 1)  # window n covers pixels n - 3 to n + 2
        phases = []
        for phase in range(factor):
            centre = (phase + 0.5) / factor - 0.5  # from the pixel, in pixels
            first = 0 if centre < 0 else 1
            distance = torch.arange(-3 + first, 3 + first, dtype=torch.float64) - centre
            weights = torch.sinc(distance) * torch.sinc(distance / 3)
            weights = (weights / weights.sum()).to(images)
            phases.append(windows.narrow(dim - 1, first, images.shape[dim]) @ weights)
        images = torch.stack(phases, dim=-1) if dim == -1 else torch.stack(phases, dim=-2)
        images = images.flatten(-2, -1) if dim == -1 else images.flatten(-3, -2)
    return images


def _resize(images: Tensor, border: int, size: tuple[int, int], factor: float) -> Tensor:
    """Mirror `border` pixels on each side, resize with torch's antialiased bicubic, and cut the border off again.

    torch uses the same kernel but renormalises it at the border, where MATLAB mirrors the image with its edge pixel
    repeated; away from the border of the mirrored image the two are the same.
    """
    flat = images.reshape(-1, *images.shape[-3:])
    rows = _mirror(flat.shape[-2], border, flat.device)
    columns = _mirror(flat.shape[-1], border, flat.device)
    mirrored = flat.index_select(-2, rows).index_select(-1, columns)
    enlarged = (round(mirrored.shape[-2] * factor), round(mirrored.shape[-1] * factor))
    resized = F.interpolate(mirrored, size=enlarged, mode="bicubic", align_corners=False, antialias=True)
    cut = round(border * factor)
    resized = resized[..., cut : cut + size[0], cut : cut + size[1]]
    return resized.reshape(*images.shape[:-2], *size).contiguous()


def _mirror(side: int, border: int, device: torch.device) -> Tensor:
    """Indices of a side extended by `border` on both ends, edge repeated: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    index = torch.arange(-border, side + border, device=device) % (2 * side)
    return torch.minimum(index, 2 * side - 1 - index)
