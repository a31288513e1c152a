"""What a running job says of itself."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Progress:
    """A moment of a running job.

    Args:
        frames_done: frames handed to the encoder.
        frames_total: what the container promised; None where it promised nothing.
        seconds: since the start of the job.
        frames_per_second: over the last hundred frames or so; 0 before the first.
        seconds_left: estimate; None where `frames_total` is None or nothing is done yet.
        memory_bytes: resident memory of this process.
    """

    frames_done: int
    frames_total: int | None
    seconds: float
    frames_per_second: float
    seconds_left: float | None
    memory_bytes: int


class ProgressMeter:
    """Counts frames and tells the speed over the last `memory` of them.

    Args:
        frames_total: how many there will be; None where nobody knows.
        done: how many were done before.
        memory: frames; two windows or more, because results come in bursts, one window at a time.
    """

    def __init__(self, frames_total: int | None, done: int = 0, memory: int = 96) -> None:
        self.frames_total = frames_total
        self.frames_done = done
        self.peak_bytes = 0
        self._process = psutil.Process()
        self._start = time.monotonic()
        self._times = deque([self._start], maxlen=memory + 1)

    @property
    def seconds(self) -> float:
        """Since the meter was made."""
        return time.monotonic() - self._start

    def step(self) -> Progress:
        """Count one frame more."""
        self.frames_done += 1
        self._times.append(time.monotonic())
        return self.now()

    def now(self) -> Progress:
        """How far the job is."""
        passed = max(self._times[-1] - self._times[0], 1e-9)
        rate = (len(self._times) - 1) / passed
        memory_bytes = self._process.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, memory_bytes)
        known = self.frames_total is not None and rate > 0
        left = max((self.frames_total or 0) - self.frames_done, 0) / rate if known else None
        return Progress(self.frames_done, self.frames_total, self._times[-1] - self._start, rate, left, memory_bytes)
