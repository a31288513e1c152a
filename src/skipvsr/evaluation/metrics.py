"""PSNR and SSIM as the field computes them, and the flicker that they do not see."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from skipvsr.errors import ConfigError

# MATLAB's rgb2ycbcr, luma row, for RGB in [0, 1] and luma in [16, 235].
_LUMA = (65.481, 128.553, 24.966)


def quantize(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to 8 bit, as a saved image would be; same shape."""
    return (images.clamp(0, 1) * 255).round() / 255


def luma(images: Tensor) -> Tensor:
    """BT.601 luma, unrounded: (..., 3, H, W) RGB in [0, 1] -> (..., 1, H, W) in [16, 235]."""
    weights = images.new_tensor(_LUMA).view(3, 1, 1)
    return (images * weights).sum(dim=-3, keepdim=True) + 16.0


def psnr(prediction: Tensor, target: Tensor, peak: float) -> Tensor:
    """PSNR in dB of each image: (..., C, H, W) twice -> (...), in float64; equal images give infinity."""
    error = (prediction.double() - target.double()).square().mean(dim=(-3, -2, -1))
    return 10.0 * torch.log10(peak**2 / error)


def psnr_y(prediction: Tensor, target: Tensor) -> Tensor:
    """Luma PSNR in dB of each frame, prediction rounded to 8 bit: (..., 3, H, W) RGB in [0, 1] twice -> (...)."""
    return psnr(luma(quantize(prediction).double()), luma(target.double()), peak=255.0)


def ssim(prediction: Tensor, target: Tensor, peak: float) -> float:
    """SSIM of one image: (C, H, W) twice, sides of at least 11; the mean of its channels.

    Gaussian window of 11x11 with sigma 1.5, population covariance, K1 0.01, K2 0.03, where the window fits in whole, as
    MATLAB's code of Wang et al. (2004). Computed by scikit-image.

    Raises:
        ConfigError: scikit-image is not installed, or the image is under 11 pixels a side.
    """
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError as error:
        raise ConfigError(f"SSIM needs the package {error.name!r}; install skipvsr[research]") from error
    if min(prediction.shape[-2:]) < 11:
        raise ConfigError(f"SSIM needs images of at least 11 pixels a side; this one is {tuple(prediction.shape[-2:])}")
    one, two = (np.asarray(image.double().cpu()) for image in (prediction, target))
    of_channel = partial(
        structural_similarity, data_range=peak, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    with ThreadPoolExecutor(len(one)) as pool:  # most of it runs without Python's lock
        return float(np.mean(list(pool.map(of_channel, one, two))))


def crop_border(images: Tensor, pixels: int) -> Tensor:
    """Without so many pixels on each side."""
    return images[..., pixels:-pixels, pixels:-pixels] if pixels else images


def temporal_error(result: Tensor, before: Tensor, gt: Tensor, gt_before: Tensor) -> float:
    """How differently the result changes from frame to frame than the ground truth does, in levels of 255.

    Mean of |(result - before) - (gt - gt_before)|; (3, H, W) each, RGB in [0, 1]. Error that stays put costs nothing;
    flicker does.
    """
    return 255 * ((result - before) - (gt - gt_before)).abs().mean().item()


def seam_ratio(error: Tensor, rows: Sequence[int], columns: Sequence[int], every: int = 1) -> float | None:
    """How much more an error jumps across given lines than elsewhere; 1 where they cannot be told.

    Args:
        error: result - ground truth, (C, H, W).
        rows: the first row below each horizontal line, from 1 to H - 1.
        columns: the first column right of each vertical line, from 1 to W - 1.
        every: compare with lines at multiples of so many pixels only: pixel shuffles have a pattern of their own.

    Returns:
        Mean of |step| across the lines over its mean across the others, rows and columns counted equally; None without lines.
    """
    ratios = []
    for axis, lines in ((-2, rows), (-1, columns)):
        steps = error.diff(dim=axis).abs().movedim(axis, 0).flatten(1).mean(dim=1)
        chosen = [line - 1 for line in lines]
        others = sorted(set(range(every - 1, len(steps), every)) - set(chosen))
        if chosen and others:
            ratios.append((steps[chosen].mean() / steps[others].mean()).item())
    return sum(ratios) / len(ratios) if ratios else None
