"""A trunk, a policy and an executor together: what the network is given to run its trunks with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from skipvsr.inference import tiled
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Decide, Policy, TrunkStep
from skipvsr.routing.trace import Direction, Trace, TracedTrunk

RunBlocks = Callable[[Sequence[ResidualBlock], Tensor, Decide, TileGrid], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RoutedTrunks:
    """Runs trunks as a policy decides; a `RunTrunk` of the network.

    Args:
        policy: which blocks run on which tiles.
        tile_px: most pixels a side of a tile.
        execute: how they run: `tiled.run_blocks`, or `masked.run_blocks`, the reference.
        trace: what ran is added to it, where there is one.
        frame: number of the frame, for the trace.
    """

    policy: Policy
    tile_px: int
    execute: RunBlocks = tiled.run_blocks
    trace: Trace | None = None
    frame: int = -1

    def at(self, frame: int) -> RoutedTrunks:
        """The same, for the frame of this number."""
        return replace(self, frame=frame)

    def __call__(self, trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None) -> Tensor:
        """The new state (N, C, H, W); see `RunTrunk`."""
        entering = trunk.enter(frame, state)
        grid = TileGrid.of(frame.shape[-2], frame.shape[-1], self.tile_px)
        blocks: list[ResidualBlock] = list(trunk.blocks)  # pyright: ignore[reportAssignmentType] - a ModuleList of them
        decide = self.policy(TrunkStep(direction, frame, entering, flow, grid, len(blocks)))
        leaving, mask = self.execute(blocks, entering, decide, grid)
        if self.trace is not None:
            self.trace.add(TracedTrunk(self.frame, direction, mask.detach().cpu(), grid))
        return leaving
