"""Reading a video, one frame at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av

from skipvsr.errors import DecodeError, InputError
from skipvsr.video.colour import ColourSpec, colour_of, to_rgb
from skipvsr.video.completeness import cut_off
from skipvsr.video.decode import Decoder
from skipvsr.video.deinterlace import Deinterlacer, TimedFrame
from skipvsr.video.errors import PIPE, reading
from skipvsr.video.frame import Frame
from skipvsr.video.limits import limit_decoder
from skipvsr.video.part import Part, describe_part
from skipvsr.video.pipe import Y4MInput
from skipvsr.video.probe import VideoInfo, describe, main_video_stream, open_container
from skipvsr.video.seek import first_time, is_seekable, seek_key_frame
from skipvsr.video.source import SourceFile
from skipvsr.video.timeline import Timeline

_LOG = logging.getLogger("skipvsr")


class VideoReader:
    """A video file, or a part of it, as an iterator of frames, in the order in which they are shown. A context manager;
    read once. The path "-" is standard input, raw video in YUV4MPEG2.

    Args:
        path: the file.
        start, end: seconds of the file's own clock, on which the first frame need not be at 0: frames at `start` or later
            and before `end` are read. None: from the first, to the last. With a start, timestamps count from it (from the
            next unit of the stream's time base where it falls between two: `info.start_seconds`).
        deinterlace: make whole frames of those that are flagged as interlaced.

    Raises:
        InputError: missing, empty, no video in it, not a single frame that decodes or that is in the part, a size beyond
            the limits.
        ConfigError: a part that ends before it starts.
        DecodeError: while iterating, after the last frame that can be read: frames were missing or damaged, the file was
            cut off, could not be read to its end or changed meanwhile, or the video changes its size or jumps back in time.
    """

    def __init__(
        self,
        path: str | Path,
        start: float | None = None,
        end: float | None = None,
        *,
        deinterlace: bool = True,
    ) -> None:
        self.path = Path(path)
        part = Part.of(start, end)
        self._deinterlace = deinterlace
        # Frames before this one may lean on others that were not decoded.
        self._from_pts: int | None = None
        self._problem: str | None = None
        self._at_end = False
        self._open()
        try:
            self._start_pts, self._end_pts = part.limits(self._time_base)
            if self._start_pts is not None:
                self._seek(self._start_pts)
            self._decoder = Decoder(self._container, self._stream)
            self._decoded = iter(self._decoder)
            with reading(self.path):
                first = next(self._decoded, None)
            if first is None:
                raise InputError(f"{self.path} holds no frame that decodes; it is damaged, cut off or no video")
            self._timeline = Timeline(self._time_base, 0 if first[1] is not None else first_time(self.path))
            self._whole = describe(self.path, self._container, self._stream, first[0])
            stream_start = Fraction(self._stream.start_time or 0) * self._time_base
            self.info: VideoInfo = describe_part(self._whole, part, stream_start)
            self._part = self._cut(first)
            self._first = next(self._part, None)
            if self._first is None:
                raise InputError(f"{self.path} has no frame {part}{self._last_read()}: choose another part")
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __iter__(self) -> Iterator[Frame]:
        assert self._first is not None, "a reader can be read once"
        first, self._first = self._first, None
        yield self._frame(first)
        del first
        for timed in self._part:
            yield self._frame(timed)
        self._complain()

    def _open(self) -> None:
        self._file: SourceFile | Y4MInput
        if self.path == PIPE:
            self._file = Y4MInput()
            self._container = self._file.container
        else:
            self._container, self._file = open_container(self.path)
        try:
            self._stream = main_video_stream(self._container, self.path)
            limit_decoder(self.path, self._stream)
            assert self._stream.time_base is not None
            self._time_base: Fraction = self._stream.time_base
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        self._container.close()
        self._file.close()

    def _seek(self, pts: int) -> None:
        """Go to a key frame that is shown at a time or before it; stay at the beginning where that cannot be had."""
        if not is_seekable(self._container):
            return
        self._from_pts = seek_key_frame(self._container, self._stream, pts)
        if self._from_pts is None:
            self._close()
            self._open()

    def _cut(self, first: tuple[av.VideoFrame, int | None]) -> Iterator[TimedFrame]:
        """The frames of the part, with times of the file."""
        for timed in self._whole_frames(first):
            if self._start_pts is not None and timed.pts < self._start_pts:
                continue
            if self._end_pts is not None and timed.pts >= self._end_pts:
                return
            yield timed
        self._at_end = True

    def _whole_frames(self, first: tuple[av.VideoFrame, int | None]) -> Iterator[TimedFrame]:
        """All frames, none interlaced unless that is wanted."""
        deinterlacer: Deinterlacer | None = None
        for timed in self._timed(first):
            if timed.decoded.interlaced_frame and self._deinterlace and deinterlacer is None:
                deinterlacer = Deinterlacer()
                _LOG.warning("%s is interlaced; it is deinterlaced (--no-deinterlace: take it as it is)", self.path)
            if deinterlacer is None:
                yield timed
            else:
                yield from deinterlacer.push(timed)
        if deinterlacer is not None:
            yield from deinterlacer.finish()

    def _timed(self, first: tuple[av.VideoFrame, int | None]) -> Iterator[TimedFrame]:
        """Frames with times that grow, up to where the size changes or the times jump back."""
        pending: tuple[av.VideoFrame, int | None] | None = first
        while pending is not None:
            decoded, own_pts = pending
            if self._from_pts is None or (own_pts is not None and own_pts >= self._from_pts):
                self._from_pts = None
                timed = self._time(decoded, own_pts)
                if timed is None:
                    return
                yield timed
            pending = next(self._decoded, None)

    def _time(self, decoded: av.VideoFrame, own_pts: int | None) -> TimedFrame | None:
        """A frame and when it is shown; None: this is another video."""
        whole = self._whole
        if (decoded.width, decoded.height) != (whole.width, whole.height):
            self._problem = (
                f"changes from {whole.width}x{whole.height} to {decoded.width}x{decoded.height} at "
                f"{self._timeline.where()}: split it there and upscale the parts"
            )
            return None
        duration = decoded.duration or None
        pts = self._timeline.place(own_pts, duration)
        if pts is None:
            self._problem = (
                f"jumps back in time at {self._timeline.where()}: it is several videos in one, split it there"
            )
            return None
        return TimedFrame(decoded, pts, duration)

    def _colour(self, decoded: av.VideoFrame) -> ColourSpec:
        """What this frame says of itself: it may change in the middle of a stream."""
        try:
            return replace(colour_of(decoded), chroma_location=self.info.colour.chroma_location)
        except InputError as error:
            raise DecodeError(f"{self.path} cannot be used from {self._timeline.where()} on: {error}") from error

    def _frame(self, timed: TimedFrame) -> Frame:
        pts, duration = timed.pts, timed.duration
        if duration is not None and self._end_pts is not None:
            duration = min(duration, self._end_pts - pts)
        shift = self._start_pts or 0
        return Frame(to_rgb(timed.decoded, self._colour(timed.decoded)), pts - shift, duration, self._time_base)

    def _complain(self) -> None:
        """Raise DecodeError where not all was well."""
        problems = [problem for problem in self._problems() if problem]
        if problems:
            name = "standard input" if self.path == PIPE else self.path
            raise DecodeError(f"{name} {'; it '.join(problems)}")

    def _problems(self) -> Iterator[str | None]:
        """What the user has to know at the end, in words that follow the file's name."""
        yield self._decoder.damage(self._start_pts, self._end_pts)
        yield self._problem
        if self._at_end and self._problem is None:
            failed = self._file.error or self._decoder.stopped
            if failed:
                reason = getattr(failed, "strerror", None) or failed
                yield f"could not be read any further than {self._timeline.where()} ({reason})"
            else:
                yield cut_off(self._file, self._container, self._stream, self._whole, self._timeline, self._decoder)
            yield self._changed()

    def _changed(self) -> str | None:
        change = self._file.changed()
        return f"{change}: upscale it again when it is complete" if change else None

    def _last_read(self) -> str:
        if self._timeline.last_pts is None:
            return ""
        return f"; those that were read end at {self._timeline.where()}"
