"""A part of a video, from one time to another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from skipvsr.errors import ConfigError
from skipvsr.video.clock import clock, seconds_as_fraction
from skipvsr.video.probe import VideoInfo


@dataclass(frozen=True)
class Part:
    """The frames at `start` or later and before `end`.

    Args:
        start, end: seconds of the file's own clock, on which the first frame need not be at 0; None: no limit.
    """

    start: Fraction | None
    end: Fraction | None

    @classmethod
    def of(cls, start: float | None, end: float | None) -> Part:
        """The part that is meant by two floats: 0.1 + 0.2 is a frame at 0.3 s, and not a little more.

        Raises:
            ConfigError: a time is not a number, or the end is not later than the start.
        """
        for seconds, name in ((start, "start"), (end, "end")):
            if seconds is not None and not math.isfinite(seconds):
                raise ConfigError(f"{name} is {seconds}; it must be a number of seconds")
        if start is not None and end is not None and end <= start:
            raise ConfigError(f"the part ends at {end:g} s and starts at {start:g} s; the end must be later")
        return cls(
            None if start is None else seconds_as_fraction(start), None if end is None else seconds_as_fraction(end)
        )

    def limits(self, time_base: Fraction) -> tuple[int | None, int | None]:
        """Start and end in units of a time base: the next unit, where a time falls between two."""
        return (
            None if self.start is None else math.ceil(self.start / time_base),
            None if self.end is None else math.ceil(self.end / time_base),
        )

    def __str__(self) -> str:
        words = [f"from {clock(self.start)} on"] if self.start is not None else []
        words += [f"before {clock(self.end)}"] if self.end is not None else []
        return " and ".join(words)


def describe_part(whole: VideoInfo, part: Part, stream_start: Fraction) -> VideoInfo:
    """What the whole's description becomes for a part of it.

    Args:
        whole: of the file.
        part: of the file.
        stream_start: seconds, when the video stream begins.
    """
    if part.start is None and part.end is None:
        return whole
    start_pts, _ = part.limits(whole.time_base)
    begin = stream_start if start_pts is None else max(stream_start, start_pts * whole.time_base)
    duration = None if part.end is None else part.end - begin
    if whole.duration_seconds is not None:
        left = stream_start + Fraction(whole.duration_seconds) - begin
        duration = max(Fraction(0), left if duration is None else min(duration, left))
    count = max(1, round(duration * whole.frame_rate)) if duration is not None and whole.frame_rate else None
    return replace(
        whole,
        frame_count=count,
        duration_seconds=None if duration is None else float(duration),
        start_seconds=float((start_pts or 0) * whole.time_base),
        end_seconds=None if part.end is None else float(part.end),
    )
