"""Oracle gains: what each block really brings, measured against the ground truth. No router can know them.

For each trunk step the network is cut off after 0, 1, ... all blocks on the whole frame; each time a frame is reconstructed
together with what the teacher (the network with all blocks) has for the other direction, and the ground truth says how wrong
each tile of it is. What skipping costs later frames is left out: no policy that decides frame by frame can be sure to do
better, but one that looks ahead might.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.models.blocks import Trunk
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.policies import TrunkStep
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
        backward = step.direction == "backward"
        other = self._teacher["forward" if backward else "backward", step.number]
        trunk = self.network.backward_trunk if backward else self.network.forward_trunk
        gt = self.gt[:, step.number]
        state, errors = step.state, []
        with torch.no_grad():
            for block in (None, *trunk.blocks):
                state = state if block is None else block(state)
                result = self.network.reconstruct(step.frame, *((state, other) if backward else (other, state)))
                error = (result - gt).square().mean(dim=1, keepdim=True)
                errors.append(step.grid.pool(F.avg_pool2d(error, self.network.scale))[:, 0])
        return falling_gains(torch.stack(errors)).transpose(0, 1)


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
