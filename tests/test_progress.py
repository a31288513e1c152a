"""What a running job says of itself, against the truth, which a clock of our own knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from skipvsr import upscale_video
from skipvsr.inference.streaming import upscale_stream
from skipvsr.inference.windows import Windows
from skipvsr.models.recurrence import RunTrunk
from skipvsr.models.vsr import SkipVSR
from skipvsr.terms import Direction
from skipvsr.upscale.progress import STAGES, Progress, ProgressMeter
from skipvsr.upscale.speed import StepSeconds, backward_steps
from tests.media import make_video
from tests.test_resume import StoppedError, stop_after


@dataclass
class SlowNetwork:
    """A network that computes nothing, and takes its time by the clock of the test.

    Args:
        seconds: of each step, in truth.
        cold: how much longer the first of each kind takes.
    """

    seconds: StepSeconds
    cold: float = 1.0
    now: float = 0.0
    backward_calls: int = 0
    scale: int = 4
    _seen: set[str] = field(default_factory=set)

    def _take(self, kind: str, seconds: float) -> None:
        self.now += seconds * (1 if kind in self._seen else self.cold)
        self._seen.add(kind)

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter([nn.Parameter(torch.zeros(1), requires_grad=False)])

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        self._take("flow", self.seconds.flow)
        return reference[:, :2]

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        self._take(direction, self.seconds.of(direction))
        self.backward_calls += direction == "backward"
        return frame

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        return frame


def job(
    frames: int,
    windows: Windows,
    truth: StepSeconds,
    expected: StepSeconds,
    *,
    cold: float = 1.0,
    cuts: tuple[int, ...] = (),
    total: int | None = -1,
) -> list[tuple[float, Progress]]:
    """The moments of a job: seconds from its start, and what was told. The encoder works on the last frames alone."""
    network = SlowNetwork(truth, cold)
    told: list[tuple[float, Progress]] = []
    meter = ProgressMeter(
        frames if total == -1 else total, windows, expected, clock=lambda: network.now,
        on_progress=lambda progress: told.append((network.now, progress)),
    )  # fmt: skip
    meter.begin()
    on_step = {"read": meter.frame_read, "backward": meter.backward_done}
    number = iter(range(frames))
    source = (torch.zeros(3, 16, 16) for _ in range(frames))
    results = upscale_stream(
        source, network, windows, starts_scene=lambda frame: next(number) in cuts,
        on_step=lambda step, number: on_step[step](number),
    )  # fmt: skip
    for _ in results:
        meter.encoded(0.0)
        meter.frame_done()
    for _ in range(min(frames, 48)):
        meter.encoding()
        network.now += truth.encode
    for piece in range(10):
        meter.joining(piece, 10)
        network.now += 0.02 * frames * truth.encode / 10
    meter.end()
    return told


TRUTH = StepSeconds(flow=0.05, backward=0.11, forward=0.15, encode=0.02)
# By counted work only, in other units, and a little wrong.
COUNTED = StepSeconds(flow=60.0, backward=100.0, forward=140.0, encode=0.02, measured=False)


@pytest.mark.parametrize(
    ("frames", "windows", "cuts"),
    [
        (31, Windows(32, 4), ()),
        (100, Windows(32, 4), ()),
        (100, Windows(32, 4), (40, 41, 90)),
        (400, Windows(8, 4), (100, 200, 300)),
        (2000, Windows(32, 4), ()),
    ],
)
def test_time_left_is_within_a_fifth_of_the_truth_from_the_first_seconds_on(frames: int, windows: Windows, cuts: tuple):
    told = job(frames, windows, TRUTH, COUNTED, cold=4.0, cuts=cuts)
    end = told[-1][0]
    wrong = [
        (now, progress.seconds_left, end - now)
        for now, progress in told
        if now > 3.0 and (progress.seconds_left is None or abs(progress.seconds_left - (end - now)) > 0.2 * (end - now))
    ]
    assert [miss for miss in wrong if miss[2] > 1.0] == []


def test_what_was_remembered_is_right_at_once_and_corrected_where_it_is_not():
    told = job(100, Windows(32, 4), TRUTH, TRUTH)
    end = told[-1][0]
    assert told[0][1].seconds_left == pytest.approx(end, rel=0.05)
    twice = StepSeconds(0.1, 0.22, 0.3, 0.02)  # the machine is twice as fast today
    told = job(100, Windows(32, 4), TRUTH, twice)
    after = [(now, progress.seconds_left) for now, progress in told if now > 1.0]
    assert after[0][1] == pytest.approx(end - after[0][0], rel=0.05)


def test_the_bar_never_stands_at_either_end_while_work_goes_on():
    told = job(100, Windows(32, 4), TRUTH, COUNTED, cold=4.0, cuts=(50,))
    end = told[-1][0]
    fractions = [progress.fraction or 0.0 for _, progress in told]
    assert all(before <= after for before, after in pairwise(fractions))
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert max(fractions[:-1]) < 1
    # It moves with the time: never more than a tenth of the bar away from it, and on at every step.
    assert all(abs((progress.fraction or 0) - now / end) < 0.1 for now, progress in told)
    assert fractions[len(fractions) // 20] > 0.01
    assert len({progress.fraction for _, progress in told if progress.stage == "upscaling"}) > 250


def test_every_moment_carries_what_a_page_shows():
    told = [progress for _, progress in job(40, Windows(8, 2), TRUTH, COUNTED)]
    assert [progress.frames_done for progress in told if progress.stage == "done"] == [40]
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == ["starting", "upscaling", "encoding", "joining", "done"]
    assert set(stages) <= set(STAGES)
    # A window of 8 frames takes 10 backward steps.
    per_frame = 0.05 + 0.11 * 10 / 8 + 0.15
    assert told[-1].frames_per_second == pytest.approx(1 / per_frame, rel=0.05)
    assert told[0].frames_per_second == 0
    assert told[-1].seconds_left == 0
    assert told[-1].seconds == pytest.approx(
        40 * (0.05 + 0.15) + 0.11 * backward_steps(40, Windows(8, 2)) + 0.8, rel=0.05
    )


def test_without_a_promise_there_is_no_end_to_tell():
    told = [progress for _, progress in job(40, Windows(8, 2), TRUTH, COUNTED, total=None)]
    assert {(progress.fraction, progress.frames_total) for progress in told[:-1]} == {(None, None)}
    assert {progress.seconds_left for progress in told[:-1]} == {None}
    assert told[-1].frames_per_second > 2


def test_a_promise_of_too_few_frames_does_not_break_the_bar():
    told = [progress for _, progress in job(60, Windows(8, 2), TRUTH, COUNTED, total=20)]
    assert all(progress.fraction is not None and progress.fraction < 1 for progress in told[:-1])
    assert all(progress.seconds_left is not None and progress.seconds_left >= 0 for progress in told[20:])


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 6, 7, 31, 32, 33, 36, 37, 100])
@pytest.mark.parametrize("windows", [Windows(1, 0), Windows(4, 2), Windows(3, 5), Windows(32, 4)])
def test_backward_steps_are_those_that_a_stream_takes(frames: int, windows: Windows):
    network = SlowNetwork(TRUTH)
    list(upscale_stream((torch.zeros(3, 16, 16) for _ in range(frames)), network, windows))
    assert backward_steps(frames, windows) == network.backward_calls


def test_a_job_that_goes_on_tells_what_was_done(tmp_path: Path, tiny: SkipVSR):
    source = make_video(tmp_path / "in.mp4", 20)
    settings: dict[str, Any] = {"window": 4, "lookahead": 2, "segment_length": 4}
    with pytest.raises(StoppedError):
        upscale_video(source, tmp_path / "out.mkv", tiny, **settings, on_progress=stop_after(15))
    told: list[Progress] = []
    report = upscale_video(source, tmp_path / "out.mkv", tiny, **settings, on_progress=told.append)
    assert report.resumed_at == 12
    assert [progress.stage for progress in told[:13]] == ["starting", *["reading what is done"] * 12]
    assert {progress.frames_done for progress in told[:13]} == {12}
    assert all(progress.fraction == 0.6 for progress in told[:13])
    assert (told[-1].stage, told[-1].frames_done, told[-1].fraction) == ("done", 20, 1)
