"""The equations of the paper's training, section 3 and Table 5: what a score should have been, and the losses.

Features are numbered by the blocks behind them: h_0 enters the first block, h_M leaves the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.routing.grid import TileGrid

Mapping = Literal["sum", "square-sum", "square-max"]
Supervision = Literal["feature-interval", "feature", "psnr-interval", "psnr"]


class Features(Protocol):
    """The features of one trunk on one frame, by number: a list of all, or a dictionary of some."""

    def __getitem__(self, number: int, /) -> Tensor: ...


def target_of(feature: int, blocks: int, every: int) -> int:
    """The target layer of h_feature: the next multiple of `every` beyond it, and the last block at the latest.

    Example: 30 blocks, every 6: h_0 ... h_5 have target 6, h_6 ... h_11 have 12.
    """
    return min((feature // every + 1) * every, blocks)


def target_layers(blocks: int, every: int) -> list[int]:
    """All target layers of a trunk, rising: for 30 blocks every 6, [6, 12, 18, 24, 30]."""
    return sorted({target_of(feature, blocks, every) for feature in range(blocks)})


def feature_distance(student: Tensor, teacher: Tensor, grid: TileGrid) -> Tensor:
    """Root mean square difference over channels and the pixels of each tile: (N, C, H, W) twice -> (N, rows, columns)."""
    squares = (student - teacher).square().mean(dim=1, keepdim=True)
    return grid.pool(squares)[:, 0].clamp(min=1e-12).sqrt()


def score_target(distance: Tensor, temperature: Tensor, *, literal: bool) -> Tensor:
    """What the mask generator is to say (equation 7): tanh(distance / temperature), or 1 minus that if `literal`."""
    gain = torch.tanh(distance / temperature.clamp(min=1e-12))
    return 1 - gain if literal else gain


def tile_psnr(result: Tensor, gt: Tensor, grid: TileGrid) -> Tensor:
    """PSNR in dB of each LR tile's HR pixels: (N, 3, s * H, s * W) twice -> (N, rows, columns)."""
    scale = gt.shape[-1] // grid.width
    error = F.avg_pool2d((result - gt).square().mean(dim=1, keepdim=True), scale)
    return -10 * torch.log10(grid.pool(error)[:, 0].clamp(min=1e-10))


def mask_loss(score: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of score and target (equation 8)."""
    return (score - target.detach()).square().mean()


def spatial_map(feature: Tensor, mapping: Mapping) -> Tensor:
    """A feature (N, C, H, W) as a plane (N, H, W), by one of the three of equation 10.

    Args:
        mapping: "sum" of magnitudes, "square-sum", or "square-max", over the channels.
    """
    if mapping == "sum":
        return feature.abs().sum(dim=1)
    squares = feature.square()
    return squares.sum(dim=1) if mapping == "square-sum" else squares.amax(dim=1)


def error_loss(
    student: Sequence[Features], teacher: Sequence[Features], layers: Sequence[int], mapping: Mapping
) -> Tensor:
    """Squared difference of the mapped features at the target layers, student to teacher (equation 11).

    Args:
        student, teacher: the features of each trunk on each frame, (N, C, H, W) each, in the same order.
        layers: which of them are compared.
        mapping: of equation 10.

    Returns:
        Mean over steps, layers, clips and pixels: the paper's sum over pixels would depend on the crop.
    """
    found = [
        (spatial_map(mine[layer], mapping) - spatial_map(theirs[layer], mapping)).square().mean()
        for mine, theirs in zip(student, teacher, strict=True)
        for layer in layers
    ]
    return torch.stack(found).mean()
