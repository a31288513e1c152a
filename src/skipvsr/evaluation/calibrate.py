"""Calibration: which threshold spends which budget, measured on clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.inference.policies import threshold_policy
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.router import Calibration, GainRouter
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.learned import Gains, ask
from skipvsr.routing.policies import Decide, Policy, TrunkStep, by_depth
from skipvsr.routing.trace import Tally

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
HALVINGS = 8
# Shares so near to a budget are left alone.
_NEAR = 0.003


@dataclass
class _Recorder:
    """A threshold policy that remembers every gain it saw, and what it is the gain of: a ratio of the clip's work."""

    gains: Gains
    threshold: float
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, step: TrunkStep) -> Decide:
        gains = ask(self.gains, step)
        self.seen.append((gains.flatten(), step.grid.pixels().expand(gains.shape).flatten()))
        return by_depth((gains > self.threshold).sum(dim=1) if self.threshold else torch.full_like(gains[:, 0], 999))


def calibrate(
    model: SkipVSR,
    clips: Sequence[Tensor],
    tile_px: int,
    *,
    budgets: Sequence[float] = BUDGETS,
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
        on_pass: called with the number of passes over a clip done and of all.

    Raises:
        ConfigError: the model has no router, or there are no clips.
    """
    if model.router is None:
        raise ConfigError("this model has no router; there is nothing to calibrate")
    if not clips:
        raise ConfigError("there are no clips to calibrate on")
    ours = isinstance(model.router, GainRouter)
    passes = 1 + len(budgets) if ours else HALVINGS * len(budgets)
    runs = _Runs(model, clips, tile_px, passes * len(clips), on_pass)
    found = _gain_thresholds(runs, budgets) if ours else _difference_thresholds(runs, budgets)
    thresholds: list[float] = []
    for threshold in found:
        # Equal thresholds at neighbouring budgets would leave the table without an order.
        thresholds.append(min(threshold, 0.999 * thresholds[-1]) if thresholds else threshold)
    return Calibration(tile_px, tuple(budgets), tuple(thresholds))


@dataclass
class _Runs:
    """Passes over all clips, counted."""

    model: SkipVSR
    clips: Sequence[Tensor]
    tile_px: int
    total: int
    on_pass: Callable[[int, int], object] | None
    done: int = 0

    def under(self, make: Callable[[], Policy]) -> Iterator[tuple[Policy, float]]:
        """Each clip under a policy of its own: the policy afterwards, and the ratio of the work that ran."""
        like = next(self.model.parameters())
        for clip in self.clips:
            policy, tally = make(), Tally()
            with torch.inference_mode():
                self.model(clip[None].to(like), RoutedTrunks(policy, self.tile_px, trace=tally))
            self.done += 1
            if self.on_pass is not None:
                self.on_pass(self.done, self.total)
            yield policy, tally.active_ratio


def _gain_thresholds(runs: _Runs, budgets: Sequence[float]) -> list[float]:
    router = runs.model.router
    assert isinstance(router, GainRouter)

    def gains_at(threshold: float) -> tuple[Tensor, Tensor]:
        """All gains of all clips, highest first, and the ratio of the work with a gain at least that high."""
        values, weights = [], []
        for recorder, _ in runs.under(lambda: _Recorder(router, threshold)):
            assert isinstance(recorder, _Recorder)
            values += [gain.double().cpu() for gain, _ in recorder.seen]
            pixels = torch.cat([pixels for _, pixels in recorder.seen]).double()
            weights.append(pixels / pixels.sum() / len(runs.clips))
        ordered, order = torch.cat(values).sort(descending=True)
        return ordered, torch.cat(weights)[order].cumsum(dim=0)

    everything = gains_at(0.0)
    return [_at_ratio(*gains_at(_at_ratio(*everything, budget)), budget) for budget in budgets]


def _difference_thresholds(runs: _Runs, budgets: Sequence[float]) -> list[float]:
    found = []
    most = 1.0
    for budget in budgets:  # rising, so that thresholds fall
        low, high = 0.0, most
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            ratios = [ratio for _, ratio in runs.under(lambda at=middle: threshold_policy(runs.model, at))]
            ratio = sum(ratios) / len(ratios)
            low, high = (middle, high) if ratio > budget else (low, middle)
            if abs(ratio - budget) <= _NEAR:
                high = middle
                break
        most = high
        found.append(max(high, 1e-9))
    return found


def _at_ratio(values: Tensor, ratios: Tensor, budget: float) -> float:
    """The value that `budget` of the work exceeds."""
    index = int(torch.searchsorted(ratios, budget).clamp(max=len(values) - 1))
    return max(float(values[index]), 1e-9)
