"""Calibration: which threshold spends which budget, measured on clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.execute.routed import RoutedTrunks
from skipvsr.models.router import Calibration, GainRouter
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.learned import Gains, ask
from skipvsr.routing.policies import Decide, TrunkStep, by_depth

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass
class _Recorder:
    """A threshold policy that remembers every gain it saw, and what it is the gain of: a share of the clip's work."""

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

    The gains that the router predicts depend a little on what was skipped before. So thresholds are first read off the
    gains of a run in which everything runs, and then off those of a run at that threshold.

    Args:
        model: with a gain router, put where it should run.
        clips: low-resolution clips (T, 3, H, W), RGB in [0, 1].
        tile_px: most pixels a side of a tile.
        budgets: shares of the residual blocks' work in (0, 1), rising.
        on_pass: called with the number of passes over a clip done and of all.

    Raises:
        ConfigError: the model has no gain router, or there are no clips.
    """
    if not isinstance(model.router, GainRouter):
        raise ConfigError("this model has no gain router; there is nothing to calibrate")
    if not clips:
        raise ConfigError("there are no clips to calibrate on")
    total, done = len(clips) * (1 + len(budgets)), 0

    def gains_at(threshold: float) -> tuple[Tensor, Tensor]:
        """All gains of all clips, highest first, and the share of the work with a gain at least that high."""
        nonlocal done
        values, weights = [], []
        for clip in clips:
            assert isinstance(model.router, GainRouter)
            recorder = _Recorder(model.router, threshold)
            like = next(model.parameters())
            with torch.inference_mode():
                model(clip[None].to(like), RoutedTrunks(recorder, tile_px))
            values += [gain.double().cpu() for gain, _ in recorder.seen]
            pixels = torch.cat([pixels for _, pixels in recorder.seen]).double()
            weights.append(pixels / pixels.sum() / len(clips))
            done += 1
            if on_pass is not None:
                on_pass(done, total)
        ordered, order = torch.cat(values).sort(descending=True)
        return ordered, torch.cat(weights)[order].cumsum(dim=0)

    everything = gains_at(0.0)
    thresholds: list[float] = []
    for budget in budgets:
        threshold = _at_share(*gains_at(_at_share(*everything, budget)), budget)
        # Equal gains at neighbouring budgets would leave the table without an order.
        thresholds.append(min(threshold, 0.999 * thresholds[-1]) if thresholds else threshold)
    return Calibration(tile_px, tuple(budgets), tuple(thresholds))


def _at_share(values: Tensor, shares: Tensor, budget: float) -> float:
    """The value that `budget` of the work exceeds."""
    index = int(torch.searchsorted(shares, budget).clamp(max=len(values) - 1))
    return max(float(values[index]), 1e-9)
