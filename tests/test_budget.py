"""The account of a budget, on made-up videos: what is asked for is spent, whatever the table says."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from skipvsr.errors import ConfigError
from skipvsr.inference.budget import SLACK, BudgetAccount
from skipvsr.models.router import Calibration
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import backward_first, ratio_above
from skipvsr.routing.trace import Tally, TracedTrunk
from skipvsr.terms import Direction

GRID = TileGrid.of(50, 70, 10)
BLOCKS = 5
BUDGETS = tuple(round(0.1 * count, 1) for count in range(1, 10))


def table_of(scales: dict[Direction, float], *, directions: bool = True) -> Calibration:
    """The table of videos whose gains are exponentially distributed: exp(-threshold / scale) of the work runs."""

    def ratios(threshold: float) -> tuple[float, float]:
        return math.exp(-threshold / scales["backward"]), math.exp(-threshold / scales["forward"])

    thresholds = []
    for budget in BUDGETS:
        low, high = 0.0, 100.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(ratios(middle)) / 2 > budget else (low, middle)
        thresholds.append(high)
    each = [ratios(threshold) for threshold in thresholds] if directions else []
    return Calibration(
        24, BUDGETS, tuple(thresholds), tuple(backward for backward, _ in each), tuple(forward for _, forward in each)
    )


@dataclass
class Video:
    """A made-up video: exponential gains, whose scale is another in either direction and may change along the frames."""

    scale: Callable[[Direction, int], float]
    seed: int = 0
    thresholds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    depths: list[tuple[Direction, int | None]] = field(default_factory=list)

    def gains(self, direction: Direction, frame: int) -> torch.Tensor:
        seed = [self.seed, frame, direction == "forward"]
        steps = np.random.default_rng(seed).exponential(size=(1, BLOCKS, GRID.rows, GRID.columns))
        return torch.from_numpy(self.scale(direction, frame) * steps).sort(dim=1, descending=True).values

    def play(self, account: BudgetAccount, frames: range, *, foreseen: bool = True, window: int = 32) -> None:
        """Windows with a lookahead of 4, as a stream runs them; `foreseen`: gains are known before a pass."""
        for start in range(frames.start, frames.stop, window):
            shown = range(start, min(start + window, frames.stop))
            behind = range(start, min(start + window + 4, frames.stop))
            account.begin_window(len(behind), len(shown))
            for number in reversed(behind):
                self._pass(account, "backward", number, foreseen)
            for number in shown:
                self._pass(account, "forward", number, foreseen)

    def _pass(self, account: BudgetAccount, direction: Direction, number: int, foreseen: bool) -> None:
        gains = self.gains(direction, number)
        depth = account.depth(direction, BLOCKS)
        if depth is None:
            threshold = account.threshold(direction, ratio_above(gains, GRID.pixels()) if foreseen else None)
            runs = (gains > threshold).transpose(0, 1)
            self.thresholds.append(threshold)
        else:
            runs = (torch.arange(BLOCKS) < depth).view(-1, 1, 1, 1).expand(-1, 1, GRID.rows, GRID.columns)
        trunk = TracedTrunk(number, direction, runs, GRID)
        account.add(trunk)
        self.depths.append((direction, depth))
        self.ratios.append(trunk.active_ratio)


UNLIKE = {
    "as the table has it": lambda direction, frame: 2.0 if direction == "forward" else 0.5,
    "more of everything": lambda direction, frame: 9.0 if direction == "forward" else 3.0,
    "less of everything": lambda direction, frame: 0.3 if direction == "forward" else 0.05,
    "the other way round": lambda direction, frame: 0.5 if direction == "forward" else 2.0,
    "rising": lambda direction, frame: (0.5 + 0.1 * frame) * (2.0 if direction == "forward" else 0.5),
}


@pytest.mark.parametrize("directions", [True, False])
@pytest.mark.parametrize("frames", [1, 3, 8, 30, 100])
@pytest.mark.parametrize("name", list(UNLIKE))
def test_the_budget_is_spent(name: str, frames: int, directions: bool):
    table = table_of({"backward": 0.5, "forward": 2.0}, directions=directions)
    for budget in (0.05, 0.25, 0.5, 0.9):
        account = BudgetAccount(table, budget)
        Video(UNLIKE[name]).play(account, range(frames))
        # Of one frame, two passes, a tile more or less is a 70th.
        assert account.tally.active_ratio == pytest.approx(budget, abs=SLACK + 0.03 / frames), budget


@pytest.mark.parametrize("frames", [8, 30, 100])
@pytest.mark.parametrize("name", list(UNLIKE))
def test_the_budget_is_spent_where_gains_are_not_known_before(name: str, frames: int):
    """As with the paper's router, of which nobody knows what a threshold will let run."""
    table = table_of({"backward": 0.5, "forward": 2.0})
    for budget in (0.25, 0.5):
        account = BudgetAccount(table, budget)
        Video(UNLIKE[name]).play(account, range(frames), foreseen=False)
        assert account.tally.active_ratio == pytest.approx(budget, abs=SLACK + 0.15 / frames), budget


@pytest.mark.parametrize("least", [0, 1])
def test_a_budget_that_is_turned_is_spent_from_there_on(least: int):
    """And an account that goes on elsewhere goes on alike."""
    table = replace(table_of({"backward": 0.5, "forward": 2.0}), least_backward=least)
    account, video = BudgetAccount(table, 1.0), Video(UNLIKE["more of everything"])
    for start, budget in ((0, 1.0), (32, 0.3), (96, 0.7)):
        account.turn_to(budget)
        passes, ratios = account.tally.passes, account.tally.ratios
        video.play(account, range(start, start + 32))
        other = BudgetAccount(table, 1.0, Tally(account.tally.passes, account.tally.ratios))
        other.restore(account.state())
        played = [copy.deepcopy(video), copy.deepcopy(video)]
        for each, one in zip((copy.deepcopy(account), other), played, strict=True):
            one.play(each, range(start + 32, start + 64))
        assert played[0].ratios == played[1].ratios
        video.play(account, range(start + 32, start + 64))
        spent = (account.tally.ratios - ratios) / (account.tally.passes - passes)
        assert spent == pytest.approx(budget, abs=SLACK + 0.01), budget


@pytest.mark.parametrize("frames", [1, 3, 8, 30, 100])
@pytest.mark.parametrize("name", list(UNLIKE))
def test_the_budget_is_spent_where_the_backward_trunk_yields_first(name: str, frames: int):
    table = replace(table_of({"backward": 0.5, "forward": 2.0}), least_backward=1)
    for budget in (0.05, 0.25, 0.5, 0.75, 0.9):
        account, video = BudgetAccount(table, budget), Video(UNLIKE[name])
        video.play(account, range(frames))
        # Blocks are whole: of a window's backward passes, one may have one less than would fit.
        assert account.tally.active_ratio == pytest.approx(budget, abs=SLACK + 0.12 / frames), budget


def test_which_blocks_run_where_the_backward_trunk_yields_first():
    """Of 12 backward and 8 forward passes with 5 blocks each."""
    table = replace(table_of({"backward": 0.5, "forward": 2.0}), least_backward=1)

    def depths(budget: float, frames: int = 8) -> tuple[list[int | None], set[int | None]]:
        video = Video(UNLIKE["as the table has it"])
        account = BudgetAccount(table, budget)
        account.begin_window(frames + 4, frames)
        for number in range(frames + 4):
            video._pass(account, "backward", number, True)
        for number in range(frames):
            video._pass(account, "forward", number, True)
        backward = [depth for direction, depth in video.depths if direction == "backward"]
        return backward, {depth for direction, depth in video.depths if direction == "forward"}

    # 0.9 of 100 blocks: all 40 of the forward trunk, and 50 in 12 passes.
    assert depths(0.9) == ([4] * 10 + [5] * 2, {5})
    assert depths(0.64) == ([2] * 12, {5})
    # 30 blocks: 12 backward, 18 by the threshold.
    assert depths(0.3) == ([1] * 12, {None})
    # Less than a block for each pass.
    assert depths(0.1) == ([0] * 12, {None})
    assert depths(1.0) == ([5] * 12, {5})
    # With as many passes in both directions, it is what training draws.
    for budget in (0.08, 0.15, 0.3, 0.5, 0.61, 0.7, 0.85, 1.0):
        account = BudgetAccount(table, budget)
        account.begin_window(8, 8)
        assert account.depth("backward", BLOCKS) == backward_first(budget, BLOCKS, 1)[0]
    # Of a table that does not say so, a threshold serves both.
    assert BudgetAccount(replace(table, least_backward=0), 0.5).depth("backward", BLOCKS) is None


def test_one_threshold_holds_for_both_directions_of_a_video_like_those_of_the_table():
    video = Video(UNLIKE["as the table has it"])
    table = table_of({"backward": 0.5, "forward": 2.0})
    video.play(BudgetAccount(table, 0.25), range(12))
    assert video.thresholds == pytest.approx([table.threshold_for(0.25)] * 24, rel=0.25)
    backward, forward = video.ratios[:12], video.ratios[12:]
    assert sum(backward) / 12 < 0.1 < 0.4 < sum(forward) / 12


def test_what_one_direction_shows_moves_the_estimate_of_the_other():
    """A video whose gains are all four times those of the table: so are its thresholds, from the first pass on."""
    video = Video(lambda direction, frame: 8.0 if direction == "forward" else 2.0)
    table = table_of({"backward": 0.5, "forward": 2.0})
    video.play(BudgetAccount(table, 0.5), range(12))
    assert video.thresholds == pytest.approx([4 * table.threshold_for(0.5)] * 24, rel=0.35)


def test_the_threshold_stays_where_content_changes_for_a_while():
    """Hard and easy windows in turn: later on one threshold serves them all, and the hard ones get more."""
    video = Video(lambda direction, frame: (2.0 if direction == "forward" else 0.5) * (1.4 if frame // 32 % 2 else 1.0))
    account = BudgetAccount(table_of({"backward": 0.5, "forward": 2.0}), 0.5)
    video.play(account, range(64 * 20))
    assert account.tally.active_ratio == pytest.approx(0.5, abs=1.2 * SLACK)
    last = np.log(video.thresholds[-68 * 6 :])
    assert last.max() - last.min() < 0.25
    easy, hard = np.array(video.ratios[-68 * 6 :])[:68], np.array(video.ratios[-68 * 6 :])[68:136]
    assert abs(hard.mean() - easy.mean()) > 0.04


def test_going_on_from_a_state_is_the_same():
    table = table_of({"backward": 0.5, "forward": 2.0})
    whole, parts = Video(UNLIKE["rising"]), Video(UNLIKE["rising"])
    account = BudgetAccount(table, 0.3)
    whole.play(account, range(96))
    first = BudgetAccount(table, 0.3)
    parts.play(first, range(64))
    # With a lookahead that saw beyond the part, as in the whole.
    assert whole.thresholds[:36] == parts.thresholds[:36]
    again = BudgetAccount(table, 0.3)
    again.tally = first.tally.copy()
    again.restore(first.state())
    copies = Video(UNLIKE["rising"]), Video(UNLIKE["rising"])
    copies[0].play(first, range(64, 96))
    copies[1].play(again, range(64, 96))
    assert copies[0].thresholds == copies[1].thresholds
    assert first.state() == again.state()


def test_a_budget_that_everything_fits_into_runs_everything():
    account = BudgetAccount(table_of({"backward": 0.5, "forward": 2.0}), 1.0)
    video = Video(UNLIKE["less of everything"])
    video.play(account, range(5))
    assert video.thresholds == [0.0] * 10


def test_what_a_threshold_would_run():
    """By hand: tiles of 9, 9 and 7 pixels, two blocks; gains 4 and 1, 3 and 3, 9 and 0."""
    pixels = TileGrid.of(1, 25, 10).pixels()
    ratio = ratio_above(torch.tensor([[[[4.0, 3.0, 9.0]], [[1.0, 3.0, 0.0]]]]), pixels)
    assert [ratio(threshold) for threshold in (-1.0, 0.5, 3.0, 5.0, 9.0)] == pytest.approx(
        [1.0, 43 / 50, 16 / 50, 7 / 50, 0.0]
    )


def test_a_tables_directions_are_stored_and_checked():
    table = table_of({"backward": 0.5, "forward": 2.0})
    assert Calibration.from_dict(table.to_dict()) == table
    plain = table_of({"backward": 0.5, "forward": 2.0}, directions=False)
    assert set(plain.to_dict()) == {"tile_px", "budgets", "thresholds"}
    for wrong in ((0.1,), (0.9, 0.1) + (0.95,) * 7, (0.1,) * 8 + (1.1,)):
        with pytest.raises(ConfigError, match="forward ratios"):
            Calibration(24, table.budgets, table.thresholds, table.backward, wrong)
