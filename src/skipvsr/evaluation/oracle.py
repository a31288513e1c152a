"""Oracles: what each block really brings, measured against the ground truth. No router can know it.

For each trunk step the network runs with fewer and fewer blocks; each time a frame is reconstructed together with what the
teacher (the network with all blocks) has for the other direction, and the ground truth says how wrong each tile of it is. What
skipping costs later frames is left out: no policy that decides frame by frame can be sure to do better, but one that looks
ahead might.

`OracleGains` cuts the trunk off after 0, 1, ... all blocks; `OracleBlocks` may leave out any block of any tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.inference import masked
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.learned import depth_within
from skipvsr.routing.policies import Decide, TrunkStep, check_ratio
from skipvsr.terms import Direction


@dataclass
class OracleGains:
    """True gains, in the place of a router's; a `skipvsr.routing.learned.Gains` for a batch of clips.

    It knows frames by their number, so that steps may come in any order.

    Args:
        network: without its router.
        lr: the clips, (B, T, 3, H, W) in [0, 1].
        gt: the ground truth, (B, T, 3, s * H, s * W) with the model's scale s.
        flows: what the network's `clip_flows` gives for them, where it is known already.
    """

    network: SkipVSR
    lr: Tensor
    gt: Tensor
    flows: tuple[list[Tensor], list[Tensor]] | None = None
    _teacher: dict[tuple[Direction, int], Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        def run(
            trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None, number: int
        ) -> Tensor:
            self._teacher[direction, number] = trunk(frame, state)
            return self._teacher[direction, number]

        with torch.no_grad():
            self.network(self.lr, run, self.flows)

    def __call__(self, step: TrunkStep) -> Tensor:
        """Squared error that each block takes off each tile, (B, blocks, rows, columns), falling along the blocks."""
        state, errors = step.state, []
        with torch.no_grad():
            for block in (None, *self.blocks(step)):
                state = state if block is None else block(state)
                errors.append(self.errors(step, state))
        return falling_gains(torch.stack(errors)).transpose(0, 1)

    def blocks(self, step: TrunkStep) -> Sequence[ResidualBlock]:
        """Of the trunk that is about to run."""
        backward = step.direction == "backward"
        trunk = self.network.backward_trunk if backward else self.network.forward_trunk
        return list(trunk.blocks)  # pyright: ignore[reportReturnType] - the stubs forget what it holds

    def errors(self, step: TrunkStep, state: Tensor) -> Tensor:
        """Mean squared error of each tile, (B, rows, columns), if the trunk left the state (B, C, H, W)."""
        backward = step.direction == "backward"
        other = self._teacher["forward" if backward else "backward", step.number]
        result = self.network.reconstruct(step.frame, *((state, other) if backward else (other, state)))
        error = (result - self.gt[:, step.number]).square().mean(dim=1, keepdim=True)
        return step.grid.pool(F.avg_pool2d(error, self.network.scale))[:, 0]


@dataclass(frozen=True)
class OracleBlocks:
    """Policy: in every tile the blocks that it needs most, wherever they lie in the trunk; exactly the ratio in each frame.

    Which they are is found by taking away, in each tile, the block that is missed least, again and again until none is left.
    So the sets of a tile lie in one another, and how many of its blocks a tile runs is settled as for the depths of
    `GainBudget`. There are better sets that this does not find, since trying all of them is out of reach; a trunk of B blocks
    takes about B * B / 2 passes as it is.

    Args:
        oracle: of the clips.
        ratio: of the residual blocks' work, in (0, 1].
    """

    oracle: OracleGains
    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, step: TrunkStep) -> Decide:
        rank, gains = self.ranks(step)
        count = depth_within(gains, step.grid.pixels(), self.ratio)
        return lambda block, state: rank[:, block] < count

    @torch.no_grad()
    def ranks(self, step: TrunkStep) -> tuple[Tensor, Tensor]:
        """The rank of each block in its tile, 0 for the one that is needed most, and the gains of the first, second, ... one.

        Both are (B, blocks, rows, columns).
        """
        blocks = self.oracle.blocks(step)
        running = torch.stack([step.everywhere(True)] * len(blocks), dim=1)
        rank = torch.zeros_like(running, dtype=torch.int64)
        errors: list[Tensor] = []
        for left in range(len(blocks) - 1, -1, -1):
            error, without = self._without_each(step, blocks, running)
            errors.insert(0, error)
            dropped = without.argmin(dim=1, keepdim=True)
            rank.scatter_(1, dropped, left)
            running = running.scatter(1, dropped, False)
        errors.insert(0, self.oracle.errors(step, step.state))
        return rank, falling_gains(torch.stack(errors)).transpose(0, 1)

    def _without_each(self, step: TrunkStep, blocks: Sequence[ResidualBlock], running: Tensor) -> tuple[Tensor, Tensor]:
        """The errors of the tiles with the blocks that run, and without each of them; infinite for those that do not run."""
        state, without = step.state, []
        for number in range(len(blocks)):
            # What lies before the block that is left out is the same as with it.
            trial = running[:, number:].clone()
            trial[:, 0] = False
            error = self.oracle.errors(step, _run(blocks[number:], state, trial, step))
            without.append(error.where(running[:, number], torch.inf))
            state = _run(blocks[number : number + 1], state, running[:, number : number + 1], step)
        return self.oracle.errors(step, state), torch.stack(without, dim=1)


def _run(blocks: Sequence[ResidualBlock], state: Tensor, masks: Tensor, step: TrunkStep) -> Tensor:
    """The state after blocks with their masks, (B, blocks, rows, columns)."""
    return masked.run_blocks(blocks, state, lambda number, _: masks[:, number], step.grid)[0]


def falling_gains(errors: Tensor) -> Tensor:
    """The gain of each block when blocks are bought in order, each bundle at its mean price.

    It is the slope of the largest convex curve below the errors: buying the highest gains first spends any budget best.

    Args:
        errors: (blocks + 1, ...), after 0, 1, ... blocks.

    Returns:
        (blocks, ...), at least 0 and falling. Example: errors 9, 9, 3, 2 -> gains 3, 3, 1.
    """
    blocks = len(errors) - 1
    gains = []
    for block in range(blocks):
        # min over where the bundle may begin of the max over where it may end of its mean slope.
        best = [
            torch.stack([(errors[start] - errors[end]) / (end - start) for end in range(block + 1, blocks + 1)]).amax(0)
            for start in range(block + 1)
        ]
        gains.append(torch.stack(best).amin(dim=0))
    return torch.stack(gains).clamp(min=0)
