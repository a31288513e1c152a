"""`RoutedTrunks`: runs the trunks of a network block by block on the tiles that a policy chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from skipvsr.inference import tiled
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Decide, Policy, RememberingPolicy, TrunkStep
from skipvsr.routing.trace import Trace, TracedTrunk
from skipvsr.terms import Direction

RunBlocks = Callable[[Sequence[ResidualBlock], Tensor, Decide, TileGrid], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RoutedTrunks:
    """Runs trunks as a policy decides; a `RunTrunk` of the network.

    Args:
        policy: which blocks run on which tiles.
        tile_px: most pixels a side of a tile.
        execute: how they run: `tiled.run_blocks`, or `masked.run_blocks`, the reference.
        trace: what ran is added to it, where there is one.
    """

    policy: Policy
    tile_px: int
    execute: RunBlocks = tiled.run_blocks
    trace: Trace | None = None

    def remembered(self) -> dict[str, Tensor]:
        """What the policy knows of the frame before: what going on from here needs."""
        return self.policy.memory() if isinstance(self.policy, RememberingPolicy) else {}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Go on from what `remembered` gave."""
        if isinstance(self.policy, RememberingPolicy):
            self.policy.recall(memory)

    def __call__(
        self, trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None, number: int = -1
    ) -> Tensor:
        """The new state (N, C, H, W); see `RunTrunk`."""
        entering = trunk.enter(frame, state)
        grid = TileGrid.of(frame.shape[-2], frame.shape[-1], self.tile_px)
        blocks: list[ResidualBlock] = list(trunk.blocks)  # pyright: ignore[reportAssignmentType] - a ModuleList of them
        decide = self.policy(TrunkStep(direction, frame, entering, flow, grid, len(blocks), number))
        leaving, mask = self.execute(blocks, entering, decide, grid)
        if self.trace is not None:
            self.trace.add(TracedTrunk(number, direction, mask.detach().cpu(), grid))
        return leaving
