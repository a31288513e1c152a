"""`RoutedTrunks`: runs the trunks of a network block by block on the tiles that a policy chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from skipvsr.inference import tiled
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Decide, Policy, RememberingPolicy, TrunkStep
from skipvsr.routing.rest import Rest
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
        rest: finds tiles at rest, which keep their state; None: there are none. For policies that ask our router.
    """

    policy: Policy
    tile_px: int
    execute: RunBlocks = tiled.run_blocks
    trace: Trace | None = None
    rest: Rest | None = None

    def remembered(self) -> dict[str, Tensor]:
        """What is known of the frame before: what going on from here needs. "rest.state" is the last state itself."""
        known = self.policy.memory() if isinstance(self.policy, RememberingPolicy) else {}
        return (
            known
            if self.rest is None
            else known | {f"rest.{name}": value for name, value in self.rest.memory().items()}
        )

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Go on from what `remembered` gave."""
        of_rest = {name.removeprefix("rest."): value for name, value in memory.items() if name.startswith("rest.")}
        if self.rest is not None:
            self.rest.recall(of_rest)
        if isinstance(self.policy, RememberingPolicy):
            self.policy.recall({name: value for name, value in memory.items() if not name.startswith("rest.")})

    def __call__(
        self, trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None, number: int = -1
    ) -> Tensor:
        """The new state (N, C, H, W); see `RunTrunk`."""
        entering = trunk.enter(frame, state)
        grid = TileGrid.of(frame.shape[-2], frame.shape[-1], self.tile_px)
        blocks: list[ResidualBlock] = list(trunk.blocks)  # pyright: ignore[reportAssignmentType] - a ModuleList of them
        still = None if self.rest is None else self.rest.look(direction, frame, grid, goes_on=flow is not None)
        decide = self.policy(TrunkStep(direction, frame, entering, flow, grid, len(blocks), number, still))
        leaving, mask = self.execute(blocks, entering, decide, grid)
        if self.rest is not None:
            leaving = self.rest.keep(direction, frame, leaving, grid, still)
        if self.trace is not None:
            self.trace.add(TracedTrunk(number, direction, mask.detach().cpu(), grid))
        return leaving
