"""Traces: which blocks ran on which tiles. Cost, figures and overlays are made from them alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from skipvsr.routing.grid import TileGrid
from skipvsr.terms import Direction


class Trace(Protocol):
    """Takes note of what ran: `RoutingTrace` keeps everything, `Tally` the sums."""

    def add(self, trunk: TracedTrunk) -> None:
        """A trunk ran on a frame."""
        ...


@dataclass(frozen=True)
class TracedTrunk:
    """One pass of one trunk over one frame: what the policy let run. (Execution may run more where that costs less.)

    Args:
        frame: number of the frame, from 0; -1 where it was not said.
        direction: which trunk.
        mask: (blocks, N, rows, columns) bool, True where a block ran on a tile.
        grid: the tiles.
    """

    frame: int
    direction: Direction
    mask: Tensor
    grid: TileGrid

    @property
    def active_ratio(self) -> float:
        """Ratio of the pixels of all blocks that ran."""
        pixels = self.grid.pixels()
        ran = (self.mask.cpu() * pixels).sum().item()
        return ran / (self.mask.shape[0] * self.mask.shape[1] * int(pixels.sum()))

    def macs(self, channels: int) -> int:
        """Multiply-accumulates of the blocks' pixels that ran, without what tiles compute beyond their own border."""
        ran = int((self.mask.cpu() * self.grid.pixels()).sum())
        return ran * 2 * 9 * channels * channels

    @property
    def depth(self) -> Tensor:
        """Blocks that ran on each tile: (N, rows, columns) int64."""
        return self.mask.sum(dim=0)


@dataclass(frozen=True)
class Traces:
    """Several traces as one.

    Args:
        traces: each takes note of every pass.
    """

    traces: tuple[Trace, ...]

    def add(self, trunk: TracedTrunk) -> None:
        """Note a pass everywhere."""
        for trace in self.traces:
            trace.add(trunk)


@dataclass
class Tally:
    """How much ran in all, of a stream of any length.

    Args:
        passes: of a trunk over a frame.
        ratios: sum of what each of them ran.
    """

    passes: int = 0
    ratios: float = 0.0

    def add(self, trunk: TracedTrunk) -> None:
        """Count a pass."""
        self.passes += 1
        self.ratios += trunk.active_ratio

    @property
    def active_ratio(self) -> float:
        """Ratio of the residual blocks' work that ran; 1 where nothing was traced."""
        return self.ratios / self.passes if self.passes else 1.0

    def copy(self) -> Tally:
        """As it is now."""
        return replace(self)

    def since(self, before: Tally) -> float:
        """The ratio of what was added since a copy was made; 1 where that is nothing."""
        return Tally(self.passes - before.passes, self.ratios - before.ratios).active_ratio


@dataclass
class RoutingTrace:
    """All passes of both trunks, in the order in which they ran."""

    trunks: list[TracedTrunk] = field(default_factory=list)

    def add(self, trunk: TracedTrunk) -> None:
        """Note a pass."""
        self.trunks.append(trunk)

    @property
    def active_ratio(self) -> float:
        """Ratio of the residual blocks' work that ran; 1 where nothing was traced."""
        if not self.trunks:
            return 1.0
        return sum(trunk.active_ratio for trunk in self.trunks) / len(self.trunks)

    def decision_flicker(self, direction: Direction) -> float:
        """How much decisions change from frame to frame: ratio of (block, tile) that differ from the frame before.

        Only passes over neighbouring frames count, the first of a scene excepted, where everything runs.
        """
        passes = [trunk for trunk in self.trunks if trunk.direction == direction]
        changed = [
            (one.mask != two.mask).float().mean().item()
            for one, two in pairwise(passes)
            if abs(one.frame - two.frame) == 1 and one.mask.shape == two.mask.shape and not one.mask.all()
        ]
        return sum(changed) / len(changed) if changed else 0.0

    def depth_of(self, frame: int) -> Tensor:
        """Mean depth of a frame's tiles over the directions traced: (N, rows, columns). Raises KeyError if there is none."""
        latest = {trunk.direction: trunk.depth for trunk in self.trunks if trunk.frame == frame}
        if not latest:
            raise KeyError(f"frame {frame} was not traced")
        return torch.stack(list(latest.values())).float().mean(dim=0)
