"""When each frame is shown."""

from __future__ import annotations

from fractions import Fraction

from skipvsr.video.clock import clock

# A jump back by so much is another video in the same file, and not a disorder.
_JUMP_SECONDS = 1


class Timeline:
    """Gives each frame a time that is later than that of the frame before.

    Attributes:
        last_pts: of the frame before; None before the first.
        step: how long a frame lasts, as far as that is known; units of the time base.

    Args:
        time_base: seconds per unit.
        first_pts: of a first frame that has no time of its own.
    """

    def __init__(self, time_base: Fraction, first_pts: int = 0) -> None:
        self._first_pts = first_pts
        self.last_pts: int | None = None
        self.step = 1
        self._time_base = time_base

    def place(self, pts: int | None, duration: int | None) -> int | None:
        """The time of the next frame; None where its own jumps back by a second or more.

        A frame without a time follows the one before. One at the same time, or a little before, is moved to the next unit:
        no frame may be lost.

        Args:
            pts: of the frame itself.
            duration: how long it is shown; None where the file does not say.
        """
        if self.last_pts is None:
            pts = self._first_pts if pts is None else pts
        elif pts is None:
            pts = self.last_pts + self.step
        elif pts <= self.last_pts:
            if (self.last_pts - pts) * self._time_base >= _JUMP_SECONDS:
                return None
            pts = self.last_pts + 1
        if duration is not None:
            self.step = duration
        elif self.last_pts is not None and pts - self.last_pts > 1:
            self.step = pts - self.last_pts
        self.last_pts = pts
        return pts

    @property
    def end_pts(self) -> int:
        """When the last frame ends."""
        return (self.last_pts or 0) + self.step

    def where(self) -> str:
        """How far the video has come, for a message."""
        return "its first frame" if self.last_pts is None else clock(self.end_pts * self._time_base)
