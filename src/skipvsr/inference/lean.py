"""A network that runs its lean parts while the budget is small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from skipvsr.inference.options import ComputeOptions
from skipvsr.models.any_model import AnyConfig, AnyModel
from skipvsr.models.recurrence import Recurrence, RunTrunk, WrappedNetwork
from skipvsr.models.vsr import SkipVSR
from skipvsr.terms import Direction


class Budget(Protocol):
    """What may be spent: `skipvsr.inference.budget.BudgetAccount`."""

    @property
    def lean(self) -> bool:
        """Whether it is so little that lean parts run."""
        ...


@dataclass(frozen=True)
class LeanWithin(WrappedNetwork):
    """A network, and in its place the one with its lean parts as long as a budget says so.

    States of one go on in the other: the forward trunk and the reconstruction are the same, and the backward recurrence begins
    anew in every window. A budget may change its mind between any two frames.

    Args:
        network: with its own parts.
        lean: with its lean ones.
        budget: says which.
    """

    network: Recurrence
    lean: Recurrence
    budget: Budget

    @property
    def _now(self) -> Recurrence:
        return self.lean if self.budget.lean else self.network

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """As the network's of the moment."""
        return self._now.estimate_flow(reference, support)

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """As the network's of the moment."""
        return self._now.propagate(direction, frame, state, flow, run, number)

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """As the network's."""
        return self.network.reconstruct(frame, backward, forward)


def begins_lean(model: AnyModel, compute: ComputeOptions) -> bool:
    """Whether a model runs its lean parts from the beginning; a target frame rate, which turns the budget, begins with all."""
    if not isinstance(model, SkipVSR) or model.lean is None or model.calibration is None:
        return False
    return compute.skips and compute.budget is not None and compute.budget <= model.calibration.lean_budget


def running_config(model: AnyModel, compute: ComputeOptions) -> AnyConfig:
    """That of the network that runs."""
    return model.config.leaner() if isinstance(model, SkipVSR) and begins_lean(model, compute) else model.config
