"""Progress of a running job, counted in steps of work and not in finished frames: the first result of a window comes late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import psutil

from skipvsr.inference.windows import Windows
from skipvsr.upscale.speed import ENCODER_DELAY, Step, StepSeconds, backward_steps

OnProgress: TypeAlias = "Callable[[Progress], object]"
Stage = Literal["starting", "reading what is done", "upscaling", "encoding", "joining", "done"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# Steps of each kind over whose time the mean is taken; more than those of two windows.
_MEMORY = 96
# Steps after which a measured time is trusted to correct what is expected of the others.
_ENOUGH = 3
# Of the time of encoding a frame: what joining it with the others takes. It only copies.
_JOIN_RATIO = 0.02
# Of the time that encoding the last frames has taken: what is left of it when it should be over.
_OVERDUE = 0.1
# While work goes on, no bar stands at its end.
_MAX_FRACTION = 0.999


@dataclass(frozen=True)
class Progress:
    """A moment of a running job.

    Args:
        stage: what is being done, in words. "starting": the first frames are read. "reading what is done": frames that an
            interrupted run has finished are passed over. "upscaling". "encoding": the network is done, the encoder is not.
            "joining": the parts of the video, its sound and the rest are put together. "done": the output is in its place.
        frames_done: frames handed to the encoder, those of an interrupted run included.
        frames_total: what the container promised; None where it promised nothing (a pipe).
        fraction: of the job's work that is done, from 0 to 1; it never falls, and is 1 only when the output is in its place.
            None where `frames_total` is None.
        seconds: since the start of this run.
        seconds_left: estimate; None where `frames_total` is None or nothing is measured yet. 0 when the output is in its place.
        frames_per_second: at the present speed, windows' backward steps included; 0 before anything is measured.
        memory_bytes: resident memory of this process.
    """

    stage: Stage
    frames_done: int
    frames_total: int | None
    fraction: float | None
    seconds: float
    seconds_left: float | None
    frames_per_second: float
    memory_bytes: int


class ProgressMeter:
    """Counts the steps of a job as they are done, and tells from their time how long the others will take.

    Args:
        frames_total: how many there will be; None where nobody knows.
        windows: how the stream is cut.
        expected: seconds of each step; those that are done correct it.
        done: frames that were done before.
        segment_length: frames that are encoded on their own: what an encoder still holds is never more.
        on_progress: called with how far the job is, after each step.
        clock: seconds.
    """

    def __init__(
        self,
        frames_total: int | None,
        windows: Windows,
        expected: StepSeconds,
        *,
        done: int = 0,
        segment_length: int = ENCODER_DELAY,
        on_progress: OnProgress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.frames_total, self.frames_done = frames_total, done
        self.peak_bytes = 0
        self.stage: Stage = "starting"
        self._windows, self._expected, self._clock = windows, expected, clock
        self._on_progress = on_progress
        self._delay = min(ENCODER_DELAY, segment_length)
        self._process = psutil.Process()
        self._start = self._last = clock()
        self._times: dict[Step, deque[float]] = {
            step: deque(maxlen=_MEMORY) for step in ("flow", "backward", "forward")
        }
        self._cold: set[Step] = set()
        # Numbers of frames: the next one to read; of the latest backward step; behind the last one of its window.
        self._read, self._backward, self._window_end = done, done, done
        self._backward_done = backward_steps(done, windows)
        self._encode_seconds, self._encoded, self._flushed = 0.0, 0, False
        self._stage_started, self._join_left = self._start, 1.0
        self._fraction = 0.0

    @property
    def seconds(self) -> float:
        """Since the meter was made."""
        return self._clock() - self._start

    def begin(self) -> None:
        """Everything is open, and the first frame is asked for."""
        self._start = self._last = self._clock()
        self._tell()

    def frame_read(self, number: int) -> None:
        """A frame was read, and its flows are estimated; of frames that were done before, only read."""
        if number < self.frames_done:
            self.stage, self._last = "reading what is done", self._clock()
        else:
            self._note("flow")
            self._read = number + 1
        self._tell()

    def backward_done(self, number: int) -> None:
        """A step of the backward recurrence is done, on the frame of this number; a window's come in falling order."""
        self._note("backward")
        if number > self._backward or self._backward <= self.frames_done:  # the first one of a window
            self._window_end = min(self.frames_done + self._windows.window, number + 1)
        self._backward = number
        self._backward_done += 1
        self._tell()

    def frame_done(self) -> None:
        """A result is there and was handed to the encoder."""
        self._note("forward")
        self.frames_done += 1
        self._tell()

    def encoded(self, seconds: float, *, flushed: bool = False) -> None:
        """The encoder took so long for a frame, or for all that it still held. May be called in its own thread."""
        self._encode_seconds += seconds
        self._encoded += not flushed
        self._flushed |= flushed

    def encoding(self) -> None:
        """The network is done, and the encoder is not."""
        if self.stage != "encoding":
            self.stage, self._stage_started = "encoding", self._clock()
        self._tell()

    def joining(self, done: int = 0, total: int = 1) -> None:
        """All is encoded; so many of the pieces that are put together are in their place."""
        self.stage, self._join_left = "joining", 1 - done / max(total, 1)
        self._tell()

    def end(self) -> None:
        """The output is in its place."""
        self.stage = "done"
        self._tell()

    def _tell(self) -> None:
        progress = self.now()  # also looks at the memory
        if self._on_progress is not None:
            self._on_progress(progress)

    def now(self) -> Progress:
        """How far the job is."""
        left = self._seconds_left()
        memory_bytes = self._process.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, memory_bytes)
        per_frame = self._per_frame()
        return Progress(
            stage=self.stage,
            frames_done=self.frames_done,
            frames_total=self.frames_total,
            fraction=self._fraction_done(left),
            seconds=self.seconds,
            seconds_left=left,
            frames_per_second=1 / per_frame if per_frame else 0.0,
            memory_bytes=memory_bytes,
        )

    def _note(self, step: Step) -> None:
        now = self._clock()
        taken, self._last = now - self._last, now
        times = self._times[step]
        if step not in self._cold and len(times) == 1:
            times.clear()  # the first one prepares convolutions, and fetches memory
            self._cold.add(step)
        times.append(taken)
        self.stage = "upscaling"

    def _step_seconds(self, step: Step) -> float | None:
        """What a step takes now; None where nothing says so."""
        times = self._times[step]
        if len(times) >= _ENOUGH or (times and step in self._cold):
            mean = sum(times) / len(times)
            return max(mean, self._encode_mean() or 0.0) if step == "forward" else mean
        correction = self._correction(step)
        return None if correction is None else correction * self._expected.of(step)

    def _correction(self, step: Step) -> float | None:
        """Measured over expected, of what is most like this step among those that were measured; None where nothing was."""
        measured: list[Step] = [name for name, times in self._times.items() if len(times) >= _ENOUGH]
        if not measured and self._expected.measured:
            return 1.0
        measured = measured or [name for name, times in self._times.items() if times]
        if step == "forward" and "backward" in measured:
            measured = ["backward"]
        expected = sum(len(self._times[step]) * self._expected.of(step) for step in measured)
        return sum(sum(self._times[step]) for step in measured) / expected if expected else None

    def _encode_mean(self) -> float | None:
        """Seconds a frame of the encoder, once it has taken so many that what it holds does not count."""
        enough = self._flushed or self._encoded > 2 * ENCODER_DELAY
        return self._encode_seconds / self._encoded if enough and self._encoded else None

    def _per_frame(self) -> float | None:
        flow, backward, forward = (self._step_seconds(step) for step in ("flow", "backward", "forward"))
        if flow is None or backward is None or forward is None:
            return None
        return StepSeconds(flow, backward, forward, 0.0).per_frame(self._windows)

    def _tail(self, total: int) -> tuple[float, float]:
        """Seconds of encoding what the encoder holds when the network is done, and of joining the parts."""
        encode = self._encode_mean() or self._expected.encode
        return min(total, self._delay) * encode, _JOIN_RATIO * total * encode

    def _seconds_left(self) -> float | None:
        if self.stage == "done":
            return 0.0
        if self.frames_total is None:
            return None
        total = max(self.frames_total, self._read)
        encoding, joining = self._tail(total)
        if self.stage == "joining":
            return self._join_left * joining
        if self.stage == "encoding":
            passed = self._clock() - self._stage_started
            return max(encoding - passed, _OVERDUE * passed) + joining
        network = self._work(total)
        return None if network is None else network[1] + encoding + joining

    def _work(self, total: int) -> tuple[float, float] | None:
        """Seconds of the network's steps, done and left, each at what it takes now."""
        flow, backward, forward = (self._step_seconds(step) for step in ("flow", "backward", "forward"))
        if flow is None or backward is None or forward is None:
            return None
        planned = max(self._window_end, self.frames_done)
        steps = max(self._backward - self.frames_done, 0) + backward_steps(total - planned, self._windows)
        done = self._read * flow + self._backward_done * backward + self.frames_done * forward
        left = (total - self._read) * flow + steps * backward + (total - self.frames_done) * forward
        return done, left

    def _fraction_done(self, left: float | None) -> float | None:
        if self.frames_total is None:
            return None
        total = max(self.frames_total, self._read)
        if self.stage == "done":
            return 1.0
        work = self._work(total)
        if work is None or left is None:
            now = self.frames_done / total if total else 0.0
        else:
            passed = sum(self._tail(total)) + sum(work)
            now = (passed - left) / passed if passed else 0.0
        self._fraction = min(max(self._fraction, now), _MAX_FRACTION)
        return self._fraction
