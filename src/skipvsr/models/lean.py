"""The lean parts of a network: what it runs in the place of its own flow and backward trunk where little may be spent.

What a budget saves is blocks, and before long the flow costs as much as all blocks that are left. A second, cheaper flow
network, and a backward trunk made for as few blocks as a small budget leaves it, are trained for the forward trunk, the
reconstruction and the router that the network has. They share these; with larger budgets the network is what it was.
"""

from __future__ import annotations

from torch import nn

from skipvsr.models.blocks import Trunk
from skipvsr.models.flow import PyramidFlow, make_flow


class LeanParts(nn.Module):
    """A flow at half of the size, and a short backward trunk.

    Args:
        channels: C, width of the propagated states.
        blocks: residual blocks of the backward trunk, from 1 up.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.flow = make_flow("half")
        self.backward_trunk = Trunk(channels, blocks)

    def begin_as(self, flow: PyramidFlow, backward_trunk: Trunk) -> None:
        """Take weights of a network's own parts: the coarser levels of its flow, if it is a light one, and the first blocks."""
        levels = flow.levels[: len(self.flow.levels)]
        if [weight.shape for weight in levels.parameters()] == [weight.shape for weight in self.flow.parameters()]:
            self.flow.levels.load_state_dict(levels.state_dict())
        mine = self.backward_trunk
        mine.input.load_state_dict(backward_trunk.input.state_dict())
        mine.blocks.load_state_dict(backward_trunk.blocks[: len(mine.blocks)].state_dict())
