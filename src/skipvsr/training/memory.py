"""Activation checkpointing: memory for time. What a part computes inside is computed again for its gradient, not kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.models.recurrence import RunTrunk
from skipvsr.models.vsr import SkipVSR
from skipvsr.terms import Direction

Flows = tuple[list[Tensor], list[Tensor]]


def super_resolve(
    network: SkipVSR, frames: Tensor, run: RunTrunk | None = None, flows: Flows | None = None, *, saving: bool = False
) -> Tensor:
    """`SkipVSR.forward`, optionally saving memory: of a trunk only its inputs are kept, of a reconstruction its states.

    Args:
        network, frames, run, flows: as for `SkipVSR.forward`; a `run` saves the trunks' memory itself (`Saving`).
        saving: whether to.
    """
    if not saving:
        return network(frames, run, flows)
    length = frames.shape[1]
    x = frames.unbind(dim=1)
    run = run or run_whole_trunk
    to_next, to_previous = flows or network.clip_flows(frames)
    backward: dict[int, Tensor] = {}
    state = None
    for t in reversed(range(length)):
        state = network.propagate("backward", x[t], state, to_next[t] if t + 1 < length else None, run, t)
        backward[t] = state
    outputs: list[Tensor] = []
    state = None
    for t in range(length):
        state = network.propagate("forward", x[t], state, to_previous[t - 1] if t > 0 else None, run, t)
        outputs.append(_again(network.reconstruct, x[t], backward[t], state))
    return torch.stack(outputs, dim=1)


def run_whole_trunk(
    trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None, number: int
) -> Tensor:
    """A `RunTrunk` that runs everything and keeps only what enters the trunk."""
    return _again(trunk, frame, state)


@dataclass(frozen=True)
class Saving:
    """A residual block that keeps only what enters it.

    Args:
        block: computes.
    """

    block: ResidualBlock

    def residual(self, state: Tensor) -> Tensor:
        """`ResidualBlock.residual`."""
        return _again(self.block.residual, state)


def _again(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    found = checkpoint(function, *inputs, use_reentrant=False)
    assert isinstance(found, Tensor)
    return found
