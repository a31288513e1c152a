"""PSNR as the field computes it."""

from __future__ import annotations

import torch
from torch import Tensor

# MATLAB's rgb2ycbcr, luma row, for RGB in [0, 1] and luma in [16, 235].
_LUMA = (65.481, 128.553, 24.966)


def quantise(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to 8 bit, as a saved picture would be; same shape."""
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
    return psnr(luma(quantise(prediction).double()), luma(target.double()), peak=255.0)
