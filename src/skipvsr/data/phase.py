"""Where the pixels of a low-resolution frame sit on the high-resolution one.

Two ways of making "BD" frames are in use, 1.5 HR pixels apart, and a network trained on one loses about 12 dB on the
other without any error. This measures which one a pair of frames is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.data.degradations import SCALE
from skipvsr.errors import ShapeError
from skipvsr.models.flow import warp
from skipvsr.models.resize import bicubic_downsample

CENTRED_PX = 1.5
DUF_PX = 0.0
TOLERANCE_PX = 0.25

_SEARCH_LR_PX = 3
_SMOOTHING_LR_PX = 1.0
_MIN_LR_SIDE_PX = 24
# Standard error of a position above which nothing is said.
_MAX_ERROR_PX = 0.1
# Residual (rms, relative to the frame's own variation) above which LR is not a small version of HR at all.
_MAX_RESIDUAL = 0.5
# Mean squared slope per LR pixel (signal in [0, 1]) under which a direction has nothing to measure by.
_MIN_SLOPE = 1e-6
# Smoothing by a Gaussian of sigma 1 leaves one independent error in 4 pi sigma^2 pixels.
_CORRELATED_PX = 4 * math.pi * _SMOOTHING_LR_PX**2
_ITERATIONS = 10


@dataclass(frozen=True)
class Phase:
    """LR pixel (i, j) sits at HR (4i + y_px, 4j + x_px); None where the frames are too flat, noisy or different.

    `residual` is what the best shift leaves unexplained: rms difference over rms contrast, both smoothed.
    `error_px` is the standard error of the two positions that follows from it.
    """

    x_px: float | None
    y_px: float | None
    residual: float
    error_px: float

    @property
    def name(self) -> str:
        """ "centred" (4j + 1.5: BI, BasicVSR's BD), "duf" (4j), "other", or "undetermined"."""
        if self.x_px is None or self.y_px is None:
            return "undetermined"
        for name, px in (("centred", CENTRED_PX), ("duf", DUF_PX)):
            if max(abs(self.x_px - px), abs(self.y_px - px)) <= TOLERANCE_PX:
                return name
        return "other"

    def describe(self, expected_px: float = CENTRED_PX) -> str:
        """One line for a report: where LR sits, and how far from where it should."""
        if self.x_px is None or self.y_px is None:
            return "phase of LR against HR cannot be told: the frames are flat, noisy or do not show the same"
        where = f"LR pixel j sits at HR 4j{self.x_px:+.2f} across, 4i{self.y_px:+.2f} down"
        if max(abs(self.x_px - expected_px), abs(self.y_px - expected_px)) <= TOLERANCE_PX:
            return where
        kind = {
            "centred": "BI, or BD as BasicVSR's script makes it",
            "duf": "BD as DUF and PFNL make it",
        }.get(self.name, "no degradation known here")
        return (
            f"{where} ({kind}): {self.x_px - expected_px:+.2f} px and {self.y_px - expected_px:+.2f} px off the "
            f"4j{expected_px:+.1f} that is expected; a network trained on one phase loses about 12 dB on another"
        )


def detect_phase(gt: Tensor, lr: Tensor) -> Phase:
    """Measure the phase of LR frames against their HR, whatever blur made them.

    HR is made small by the centred bicubic, both sides are smoothed, and the one global shift between them is found:
    by search over whole LR pixels, then by Lucas and Kanade's least squares to a few hundredths of a pixel.

    Args:
        gt: (T, 3, 4h, 4w) or (3, 4h, 4w), RGB float in [0, 1].
        lr: (T, 3, h, w) or (3, h, w). A few frames are enough; all share one phase.

    Raises:
        ShapeError: the sizes are not 4 to 1, or smaller than 24 LR pixels.
    """
    gt, lr = (images.reshape(-1, *images.shape[-3:]) for images in (gt, lr))
    height, width = lr.shape[-2:]
    if gt.shape != (*lr.shape[:2], SCALE * height, SCALE * width):
        raise ShapeError(f"HR is {tuple(gt.shape)} and LR {tuple(lr.shape)}; HR must be {SCALE} times as wide and gt")
    if min(height, width) < _MIN_LR_SIDE_PX:
        raise ShapeError(f"LR is {width}x{height}; a phase can be told from {_MIN_LR_SIDE_PX} pixels a side upwards")
    reference = _smooth(bicubic_downsample(gt.float(), SCALE).mean(dim=1, keepdim=True))
    moved = _smooth(lr.float().mean(dim=1, keepdim=True))
    # A difference in brightness or contrast is not a matter of phase.
    moved = (moved - moved.mean()) * (reference.std() / moved.std().clamp_min(1e-8)) + reference.mean()

    shift = _search(reference, moved)
    error_px = 0.0
    for _ in range(_ITERATIONS):
        solution = _lucas_kanade(reference, moved, shift)
        if solution is None:
            return Phase(None, None, 1.0, float("inf"))
        step, error_px = solution
        shift = shift + step
        if step.abs().max() < 1e-3 or shift.abs().max() > _SEARCH_LR_PX + 1:
            break
    residual = _residual(reference, moved, shift)
    if residual > _MAX_RESIDUAL or error_px > _MAX_ERROR_PX or shift.abs().max() > _SEARCH_LR_PX + 1:
        return Phase(None, None, residual, error_px)
    # lr(j) = centred(j + shift), and centred(j) sits at HR 4j + 1.5.
    x, y = (CENTRED_PX + SCALE * shift).tolist()
    return Phase(x, y, residual, error_px)


def _smooth(images: Tensor) -> Tensor:
    """Gaussian of one LR pixel: hides that the two sides alias differently."""
    x = torch.arange(-3, 4, dtype=images.dtype, device=images.device)
    taps = torch.exp(-0.5 * (x / _SMOOTHING_LR_PX) ** 2)
    taps = taps / taps.sum()
    return F.conv2d(F.conv2d(images, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))


def _shifted(images: Tensor, shift: Tensor) -> Tensor:
    """images(x + shift), bilinear; what comes from outside is cut off by `_inside`."""
    n, _, height, width = images.shape
    return warp(images, shift.view(1, 2, 1, 1).expand(n, 2, height, width), padding="border")


def _inside(images: Tensor) -> Tensor:
    border = _SEARCH_LR_PX + 2
    return images[..., border:-border, border:-border]


def _residual(reference: Tensor, moved: Tensor, shift: Tensor) -> float:
    difference = _inside(moved - _shifted(reference, shift))
    return (difference.std() / _inside(reference).std().clamp_min(1e-8)).item()


def _search(reference: Tensor, moved: Tensor) -> Tensor:
    """The whole-pixel shift (x, y) with the least squared difference."""
    steps = range(-_SEARCH_LR_PX, _SEARCH_LR_PX + 1)
    shifts = [torch.tensor((float(x), float(y))) for y in steps for x in steps]
    return min(shifts, key=lambda shift: _residual(reference, moved, shift)).to(reference)


def _lucas_kanade(reference: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, float] | None:
    """The correction of `shift` that least squares asks for, and its standard error in HR pixels.

    None if a direction has no slope to measure by.
    """
    current = _shifted(reference, shift)
    error = _inside(moved - current).flatten().double()
    slope_x = _inside(F.pad(current[..., 2:] - current[..., :-2], (1, 1)) / 2)
    slope_y = _inside(F.pad(current[..., 2:, :] - current[..., :-2, :], (0, 0, 1, 1)) / 2)
    slopes = torch.stack((slope_x.flatten(), slope_y.flatten()), dim=1).double()
    normal = slopes.T @ slopes
    if torch.linalg.eigvalsh(normal)[0] < _MIN_SLOPE * len(slopes):
        return None
    variance = error.square().mean() * _CORRELATED_PX * torch.linalg.inv(normal).diagonal().max()
    step = torch.linalg.solve(normal, slopes.T @ error)
    return step.to(shift), SCALE * variance.sqrt().item()
