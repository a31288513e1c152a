"""Keeping to a budget: a running account of what ran, from which the threshold of every pass follows."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from skipvsr.models.router import Calibration
from skipvsr.routing.trace import Tally, TracedTrunk
from skipvsr.terms import Direction

# How far, as a ratio of all that ran, the account may be off at the end of a window so that the threshold can stay as it is.
SLACK = 0.01
# How much of the way from the steady threshold to that of a window the steady one goes with it.
_FOLLOW = 0.1
# Halvings of a range of logarithms.
_HALVINGS = 40
# Logarithms of a threshold beyond the table, within which one is looked for.
_BEYOND = 6.0
_DEFAULT_SLOPE = 0.25
# A budget that is turned up leaves the lean parts where it is by so much larger than the largest that takes them.
_BACK = 1.25
# Of a number of blocks.
_ROUNDING = 1e-6


@dataclass
class BudgetAccount:
    """Chooses the threshold of every pass of a trunk so that a stream, and each of its windows, spends the budget.

    One threshold over both directions of a window would be best: a block is worth more in some frames and in the forward
    direction, and runs only where it is worth as much as any other that runs. What a threshold spends is known for the pass
    that is about to run, if its router says all gains at once. For the passes of the window that are still to come it is
    estimated from the model's table, moved along the logarithm of the threshold to where this video's last pass in that
    direction was (in the other one, before there was any). The threshold is that which would end the window with the account
    settled. Since it is chosen anew before every pass, errors of the estimate are made good within the window, and the last
    pass spends what is left.

    From the second window on, the threshold is that of the windows before, as long as the account ends within 1 % of what it
    should be: content that changes may spend more or less for a while.

    A model may say that few blocks do for its backward trunk (`Calibration.least_backward`). Then that trunk has a number of
    blocks everywhere, as many as are left when the forward trunk has all of its own, and the threshold is the forward trunk's.

    The budget may be changed while a video runs (`turn_to`); the account then begins anew.

    It is a `Trace`, too: what ran is added to it.

    Args:
        calibration: of the model.
        budget: ratio to spend, in (0, 1].

    Attributes:
        lean: whether the budget is so small that the model's lean parts run (`Calibration.lean_budget`).
    """

    calibration: Calibration
    budget: float
    tally: Tally = field(default_factory=Tally)
    lean: bool = field(default=False, init=False)
    _before: tuple[int, float] = field(default=(0, 0.0), init=False)  # passes and ratios of budgets before this one
    _left: dict[Direction, int] = field(default_factory=dict, init=False)
    _end: int = field(default=0, init=False)
    _shifts: dict[Direction, float] = field(default_factory=dict, init=False)
    _steady: float | None = field(default=None, init=False)
    _settling: list[float] = field(default_factory=list, init=False)
    _chosen: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        table = self.calibration
        self.lean = self.budget <= table.lean_budget
        self._curves: dict[Direction, _Curve] = {
            "backward": _Curve.of(table.thresholds, table.backward or table.budgets),
            "forward": _Curve.of(table.thresholds, table.forward or table.budgets),
        }

    def begin_window(self, backward: int, forward: int) -> None:
        """A window begins, with so many passes in each direction."""
        if self._settling:
            mean = sum(self._settling) / len(self._settling)
            self._steady = mean if self._steady is None else self._steady + _FOLLOW * (mean - self._steady)
        self._settling = []
        self._left = {"backward": backward, "forward": forward}
        self._end = self.tally.passes + backward + forward

    def turn_to(self, budget: float) -> None:
        """From here on another budget; what was spent before is settled."""
        self.budget = budget
        self.lean = budget <= self.calibration.lean_budget * (_BACK if self.lean else 1)
        self._before = (self.tally.passes, self.tally.ratios)
        self._steady, self._settling = None, []

    def threshold(self, direction: Direction, ratio_above: Callable[[float], float] | None = None) -> float:
        """See `skipvsr.routing.learned.Account`; 0 where everything may run."""
        other: Direction = "forward" if direction == "backward" else "backward"
        curve, of_other = self._curves[direction], self._curves[other]

        def spent(log: float) -> float:
            """What all passes of the window that are still to come would run at a threshold, this one included."""
            if ratio_above is None:
                here = curve.ratio(log - self._shifts.get(direction, self._shifts.get(other, 0.0)))
            else:
                here = ratio_above(math.exp(log))
            shift = self._shifts.get(other)
            there = of_other.ratio(log - shift if shift is not None else curve.log_of(here))
            return here * max(self._left.get(direction, 0), 1) + there * self._left.get(other, 0)

        allowed = self._allowed
        log = self._log_that_spends(spent, allowed)
        self._settling.append(min(max(log, curve.logs[0]), curve.logs[-1]))
        if self._steady is not None:
            slack = SLACK * (self._end - self._before[0])
            lowest = self._log_that_spends(spent, allowed + slack)
            log = min(max(self._steady, lowest), self._log_that_spends(spent, allowed - slack))
        self._chosen = log
        return 0.0 if log <= self._range[0] else math.exp(log)

    def depth(self, direction: Direction, blocks: int) -> int | None:
        """See `skipvsr.routing.learned.Account`."""
        least = self.calibration.least_backward
        if not least:
            return None
        allowed = self._allowed
        backward, forward = self._left.get("backward", 0), self._left.get("forward", 0)
        if direction == "forward":
            return blocks if allowed >= (1 - SLACK) * (backward + forward) else None
        affordable = math.floor((allowed - forward) * blocks / max(backward, 1) + _ROUNDING)
        return min(max(affordable, least if self.budget * blocks >= least else 0), blocks)

    def add(self, trunk: TracedTrunk) -> None:
        """A pass ran."""
        self.tally.add(trunk)
        self._left[trunk.direction] = max(self._left.get(trunk.direction, 0) - 1, 0)
        if self._chosen is None:
            return
        ratio, before = trunk.active_ratio, self._shifts.get(trunk.direction, 0.0)
        shift = self._chosen - self._curves[trunk.direction].log_of(ratio)
        # Where everything ran, or nothing, it would have done so at other thresholds too.
        self._shifts[trunk.direction] = (
            max(shift, before) if ratio >= 1 else min(shift, before) if ratio <= 0 else shift
        )
        self._chosen = None

    def state(self) -> dict[str, float]:
        """What going on from between two windows needs; the tally is the caller's to restore."""
        mean = {} if not self._settling else {"window": sum(self._settling) / len(self._settling)}
        steady = {} if self._steady is None else {"steady": self._steady}
        passes, ratios = self._before
        turned = {"budget": self.budget, "passes_before": float(passes), "ratios_before": ratios} if passes else {}
        if turned and self.lean:
            turned["lean"] = 1.0
        return {**mean, **steady, **turned, **{f"shift_{name}": shift for name, shift in self._shifts.items()}}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave."""
        self._settling = [state["window"]] if "window" in state else []
        self._steady = state.get("steady")
        if "budget" in state:
            self.budget, self.lean = state["budget"], bool(state.get("lean", 0))
        self._before = (int(state.get("passes_before", 0)), state.get("ratios_before", 0.0))
        directions: tuple[Direction, ...] = ("backward", "forward")
        self._shifts = {name: state[f"shift_{name}"] for name in directions if f"shift_{name}" in state}

    @property
    def _allowed(self) -> float:
        """What is left to spend until the window ends, in passes with all their blocks."""
        passes, ratios = self._before
        return self.budget * (self._end - passes) - (self.tally.ratios - ratios)

    @property
    def _range(self) -> tuple[float, float]:
        """Logarithms of thresholds that let everything and nothing run, as far as the table knows."""
        thresholds = self.calibration.thresholds
        return math.log(thresholds[-1]) - _BEYOND, math.log(thresholds[0]) + _BEYOND

    def _log_that_spends(self, spent: Callable[[float], float], allowed: float) -> float:
        """The logarithm of the lowest threshold that spends no more than is allowed."""
        low, high = self._range
        if spent(low) <= allowed:
            return low
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if spent(middle) > allowed else (low, middle)
        return high


@dataclass(frozen=True)
class _Curve:
    """The ratio that runs, falling from 1 to 0 along the logarithm of the threshold; straight between its points.

    Args:
        logs: rising.
        ratios: falling.
    """

    logs: tuple[float, ...]
    ratios: tuple[float, ...]

    @classmethod
    def of(cls, thresholds: Sequence[float], ratios: Sequence[float]) -> _Curve:
        """The curve through falling thresholds and rising ratios, with an end at 1, and a longer one at 0."""
        logs, ratios = [math.log(threshold) for threshold in reversed(thresholds)], list(reversed(ratios))
        slopes = [(one - two) / (b - a) for one, two, a, b in zip(ratios, ratios[1:], logs, logs[1:], strict=False)]
        first, last = (max(slope, 0.05) for slope in (slopes[0], slopes[-1])) if slopes else (_DEFAULT_SLOPE,) * 2
        start, end = logs[0] - max((1 - ratios[0]) / first, 0.1), logs[-1] + max(2 * ratios[-1] / last, 0.1)
        return cls((start, *logs, end), (1.0, *ratios, 0.0))

    def ratio(self, log: float) -> float:
        """The ratio that runs at the logarithm of a threshold."""
        index = bisect_left(self.logs, log)
        if index in (0, len(self.logs)):
            return self.ratios[0 if index == 0 else -1]
        (a, b), (one, two) = self.logs[index - 1 : index + 1], self.ratios[index - 1 : index + 1]
        return one + (two - one) * (log - a) / (b - a)

    def log_of(self, ratio: float) -> float:
        """The logarithm of the threshold at which a ratio in [0, 1] runs."""
        index = bisect_left([-known for known in self.ratios], -ratio)
        if index == 0:
            return self.logs[0]
        (a, b), (one, two) = self.logs[index - 1 : index + 1], self.ratios[index - 1 : index + 1]
        return a + (b - a) * (one - ratio) / (one - two)
