"""A policy for networks without a router: depths spread over the tiles, for measuring what skipping costs and saves."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import ByDepth, Decide, TrunkStep, check_ratio


@dataclass(frozen=True)
class SpreadDepths:
    """Depths from none to all blocks, as many tiles of each as make the mean the ratio, at random places.

    Every step has the same number of tiles of each depth, at other places. No router is asked.

    Args:
        ratio: of the residual blocks' work, in (0, 1].
    """

    ratio: float
    _generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0), repr=False)

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, step: TrunkStep) -> Decide:
        known = spread_depths(step.grid, self.ratio, step.blocks, self._generator)
        known = known.expand(step.frame.shape[0], -1, -1)
        return ByDepth(known.to(step.frame.device), known)


def spread_depths(grid: TileGrid, ratio: float, blocks: int, generator: torch.Generator) -> Tensor:
    """(1, rows, columns) int64 from 0 to `blocks`, with the mean ratio * blocks as nearly as whole blocks allow."""
    place = (torch.arange(grid.tiles) + 0.5) / grid.tiles
    # A ramp from 0 to 1 whose mean is a half, moved, and cut off at both ends; where it is not cut its mean is the ratio.
    low, high = -1.0, 1.0
    for _ in range(40):
        shift = (low + high) / 2
        low, high = (shift, high) if (place + shift).clamp(0, 1).mean().item() < ratio else (low, shift)
    ramp = (place + high).clamp(0, 1) * blocks
    # Rounded so that the sums of all up to here are right.
    depths = ramp.cumsum(0).round().diff(prepend=torch.zeros(1)).long().clamp(0, blocks)
    return depths[torch.randperm(grid.tiles, generator=generator)].view(1, grid.rows, grid.columns)


def paper_size() -> SkipVSR:
    """A network of the paper's size, 64 channels and 30 blocks in each trunk, with random weights, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SkipVSR(VSRConfig()).eval()
