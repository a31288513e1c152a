"""Calibration: which threshold spends which budget, measured on clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.inference.policies import predicted_gains, threshold_policy
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.router import Calibration
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.learned import Gains
from skipvsr.routing.policies import Decide, Policy, TrunkStep, by_depth
from skipvsr.routing.trace import Tally, TracedTrunk
from skipvsr.terms import Direction

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
HALVINGS = 8
# Ratios so near to a budget are left alone.
_NEAR = 0.003


@dataclass
class _Recorder:
    """A threshold policy that remembers every gain it saw, with its direction and the pixels that the block would compute."""

    gains: Gains
    threshold: float
    seen: list[tuple[Direction, Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, step: TrunkStep) -> Decide:
        gains = self.gains(step)
        self.seen.append((step.direction, gains.flatten(), step.grid.pixels().expand(gains.shape).flatten()))
        return by_depth((gains > self.threshold).sum(dim=1) if self.threshold else torch.full_like(gains[:, 0], 999))


def calibrate(
    model: SkipVSR,
    clips: Sequence[Tensor],
    tile_px: int,
    *,
    budgets: Sequence[float] = BUDGETS,
    least_backward: int | None = None,
    lean_budget: float | None = None,
    on_pass: Callable[[int, int], object] | None = None,
) -> Calibration:
    """Measure the thresholds that spend the budgets, on whole clips, each counted equally.

    What a router says depends a little on what was skipped before. For ours, thresholds are first read off the gains of a
    run in which everything runs, and then off those of a run at that threshold; for the paper's, which is asked before every
    block, they are found by bisection.

    Args:
        model: with a router, put where it should run.
        clips: low-resolution clips (T, 3, H, W), RGB in [0, 1].
        tile_px: most pixels a side of a tile.
        budgets: ratios of the residual blocks' work in (0, 1), rising.
        least_backward: for the table, which says what it is; None: as in the model's table, 0 where it has none.
        lean_budget: likewise. Thresholds are those of the network with its own parts; the account that a stream keeps makes up
            for the difference.
        on_pass: called with the number of passes over a clip done and of all.

    Raises:
        ConfigError: the model has no router, or no lean parts where a budget for them is given, or there are no clips.
    """
    if model.router is None:
        raise ConfigError("this model has no router; there is nothing to calibrate")
    if not clips:
        raise ConfigError("there are no clips to calibrate on")
    gains = predicted_gains(model)
    if least_backward is None:
        least_backward = 0 if model.calibration is None else model.calibration.least_backward
    if lean_budget is None:
        lean_budget = 0.0 if model.calibration is None else model.calibration.lean_budget
    if lean_budget and model.lean is None:
        raise ConfigError("this model has no lean parts; leave the lean budget out")
    if least_backward and gains is None:
        raise ConfigError("the paper's router decides about both trunks; leave the backward blocks out")
    if least_backward > model.config.blocks:
        raise ConfigError(f"{least_backward} backward blocks of {model.config.blocks}; give fewer")
    passes = HALVINGS * len(budgets) if gains is None else 1 + len(budgets)
    runs = _Runs(model, clips, tile_px, passes * len(clips), on_pass)
    found = _bisected_thresholds(runs, budgets) if gains is None else _gain_thresholds(runs, gains, budgets)
    points: list[_Point] = []
    for point in found:
        if points:
            # Equal thresholds at neighbouring budgets would leave the table without an order.
            threshold = min(point.threshold, 0.999 * points[-1].threshold)
            directions = (max(point.backward, points[-1].backward), max(point.forward, points[-1].forward))
            point = _Point(threshold, *directions)
        points.append(point)
    return Calibration(
        tile_px,
        tuple(budgets),
        tuple(point.threshold for point in points),
        tuple(point.backward for point in points),
        tuple(point.forward for point in points),
        least_backward,
        lean_budget,
    )


@dataclass(frozen=True)
class _Point:
    """A threshold, and the ratio of the work that ran in each direction."""

    threshold: float
    backward: float
    forward: float


@dataclass
class _Runs:
    """Passes over all clips, counted."""

    model: SkipVSR
    clips: Sequence[Tensor]
    tile_px: int
    total: int
    on_pass: Callable[[int, int], object] | None
    done: int = 0

    def under(self, make: Callable[[], Policy]) -> Iterator[tuple[Policy, _Ratios]]:
        """Each clip under a policy of its own: the policy afterwards, and the ratios of the work that ran."""
        like = next(self.model.parameters())
        for clip in self.clips:
            policy, ratios = make(), _Ratios()
            with torch.inference_mode():
                self.model(clip[None].to(like), RoutedTrunks(policy, self.tile_px, trace=ratios))
            self.done += 1
            if self.on_pass is not None:
                self.on_pass(self.done, self.total)
            yield policy, ratios


@dataclass
class _Ratios:
    """A trace: how much ran in either direction."""

    backward: Tally = field(default_factory=Tally)
    forward: Tally = field(default_factory=Tally)

    def add(self, trunk: TracedTrunk) -> None:
        (self.backward if trunk.direction == "backward" else self.forward).add(trunk)


@dataclass(frozen=True)
class _Seen:
    """All gains of all clips, highest first.

    Args:
        gains: (K,).
        ratios: of the work with a gain at least that high, (K,).
        backward: the same of the backward direction's work alone.
    """

    gains: Tensor
    ratios: Tensor
    backward: Tensor

    def at(self, budget: float) -> _Point:
        """The gain that `budget` of the work exceeds."""
        index = int(torch.searchsorted(self.ratios, budget).clamp(max=len(self.gains) - 1))
        backward = min(self.backward[index].item(), 1.0)
        forward = min(2 * self.ratios[index].item() - backward, 1.0)  # both directions have the same work
        return _Point(max(self.gains[index].item(), 1e-9), backward, forward)


def _gain_thresholds(runs: _Runs, gains: Gains, budgets: Sequence[float]) -> list[_Point]:
    """Those that the gains of a run exceed in the ratio of each budget."""

    def gains_at(threshold: float) -> _Seen:
        values, weights, backward = [], [], []
        for recorder, _ in runs.under(lambda: _Recorder(gains, threshold)):
            assert isinstance(recorder, _Recorder)
            values += [gain.double().cpu() for _, gain, _ in recorder.seen]
            pixels = torch.cat([pixels for *_, pixels in recorder.seen]).double()
            weights.append(pixels / pixels.sum() / len(runs.clips))
            backward += [torch.full(gain.shape, direction == "backward") for direction, gain, _ in recorder.seen]
        ordered, order = torch.cat(values).sort(descending=True)
        work = torch.cat(weights)[order]
        return _Seen(ordered, work.cumsum(dim=0), 2 * (work * torch.cat(backward)[order]).cumsum(dim=0))

    everything = gains_at(0.0)
    return [gains_at(everything.at(budget).threshold).at(budget) for budget in budgets]


def _bisected_thresholds(runs: _Runs, budgets: Sequence[float]) -> list[_Point]:
    """Those at which runs spend each budget, found by bisection."""
    found = []
    most = 1.0
    for budget in budgets:  # rising, so that thresholds fall
        low, high = 0.0, most
        backward = forward = budget
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            ratios = [ratios for _, ratios in runs.under(lambda at=middle: threshold_policy(runs.model, at))]
            backward = sum(each.backward.active_ratio for each in ratios) / len(ratios)
            forward = sum(each.forward.active_ratio for each in ratios) / len(ratios)
            ratio = (backward + forward) / 2
            low, high = (middle, high) if ratio > budget else (low, middle)
            if abs(ratio - budget) <= _NEAR:
                high = middle
                break
        most = high
        found.append(_Point(max(high, 1e-9), backward, forward))
    return found
