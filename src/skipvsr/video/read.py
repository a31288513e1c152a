"""Reading a video, one frame at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.error import FFmpegError

from skipvsr.errors import ConfigError, DecodeError, InputError
from skipvsr.video.colour import ColourSpec, colour_of, to_rgb
from skipvsr.video.decode import Decoder, clock
from skipvsr.video.deinterlace import Deinterlacer, TimedFrame
from skipvsr.video.errors import PIPE, reading
from skipvsr.video.frame import Frame
from skipvsr.video.limits import limit_decoder
from skipvsr.video.pipe import Y4MInput
from skipvsr.video.probe import VideoInfo, describe, open_container, picture_stream, stream_duration_seconds
from skipvsr.video.source import SourceFile
from skipvsr.video.structure import bytes_missing

_LOG = logging.getLogger("skipvsr")
# Containers with an index of their key frames and a time on every packet.
_SEEKABLE = {"mov", "matroska"}
# Where the last key frame before a time turns out to be shown after it, an earlier one is tried.
_SEEK_MARGINS_SECONDS = (0, 10)
# Times that are asked for are the simplest fractions that they can be: a frame's time survives as a float.
_FINEST = 1_000_000


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
        DecodeError: while iterating, after the last frame that can be read: pictures were missing or damaged, the file was
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
        start_time, end_time = _check_part(start, end)
        self._deinterlace = deinterlace
        self._last_pts: int | None = None
        self._step = 1
        self._from_pts: int | None = None
        self._problem: str | None = None
        self._at_end = False
        self._open()
        try:
            self._start_pts = None if start_time is None else math.ceil(start_time / self._time_base)
            self._end_pts = None if end_time is None else math.ceil(end_time / self._time_base)
            if self._start_pts is not None:
                self._seek(self._start_pts)
            self._decoder = Decoder(self._container, self._stream)
            self._decoded = iter(self._decoder)
            with reading(self.path):
                first = next(self._decoded, None)
            if first is None:
                raise InputError(f"{self.path} holds no frame that decodes; it is damaged, cut off or no video")
            self._whole = describe(self.path, self._container, self._stream, first[0])
            self.info: VideoInfo = self._describe_part(self._whole, start_time, end_time)
            self._part = self._cut(first)
            self._first = next(self._part, None)
            if self._first is None:
                raise InputError(f"{self.path} has no frame {self._part_words(start_time, end_time)}")
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
            self._stream = picture_stream(self._container, self.path)
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
        if not _SEEKABLE & set(self._container.format.name.split(",")):
            return
        for margin in _SEEK_MARGINS_SECONDS:
            target = pts - int(margin / self._time_base)
            key_pts = self._key_frame_after_seek(target)
            if key_pts is not None and key_pts <= pts:
                self._container.seek(target, stream=self._stream)
                # Frames that come before it may lean on others that were not decoded.
                self._from_pts = key_pts
                return
        self._close()
        self._open()

    def _key_frame_after_seek(self, target: int) -> int | None:
        try:
            self._container.seek(target, stream=self._stream)
            for packet in self._container.demux(self._stream):
                for frame in self._stream.codec_context.decode(packet):
                    if isinstance(frame, av.VideoFrame) and frame.key_frame:
                        return frame.pts
        except (FFmpegError, OverflowError):
            return None
        return None

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
        """A frame and when it is shown: later than the frame before. None: this is another video.

        Frames at the same time, or a little before, are moved to the next unit: none may be lost.
        """
        whole = self._whole
        if (decoded.width, decoded.height) != (whole.width, whole.height):
            self._problem = (
                f"changes from {whole.width}x{whole.height} to {decoded.width}x{decoded.height} at {self._where()}: "
                "split it there and upscale the parts"
            )
            return None
        pts, duration = own_pts, decoded.duration or None
        if self._last_pts is None:
            pts = pts or 0
        elif pts is None:
            pts = self._last_pts + self._step
        elif pts <= self._last_pts:
            if (self._last_pts - pts) * self._time_base >= 1:
                self._problem = f"jumps back in time at {self._where()}: it is several videos in one, split it there"
                return None
            pts = self._last_pts + 1
        if duration is not None:
            self._step = duration
        elif self._last_pts is not None and pts - self._last_pts > 1:
            self._step = pts - self._last_pts
        self._last_pts = pts
        return TimedFrame(decoded, pts, duration)

    def _colour(self, decoded: av.VideoFrame) -> ColourSpec:
        """What this frame says of itself: it may change in the middle of a stream."""
        try:
            return replace(colour_of(decoded), chroma_location=self.info.colour.chroma_location)
        except InputError as error:
            raise DecodeError(f"{self.path} cannot be used from {self._where()} on: {error}") from error

    def _frame(self, timed: TimedFrame) -> Frame:
        pts, duration = timed.pts, timed.duration
        if duration is not None and self._end_pts is not None:
            duration = min(duration, self._end_pts - pts)
        shift = self._start_pts or 0
        return Frame(to_rgb(timed.decoded, self._colour(timed.decoded)), pts - shift, duration, self._time_base)

    def _describe_part(self, whole: VideoInfo, start: Fraction | None, end: Fraction | None) -> VideoInfo:
        if start is None and end is None:
            return whole
        first = Fraction(self._stream.start_time or 0) * self._time_base
        begin = first if self._start_pts is None else max(first, self._start_pts * self._time_base)
        duration = end - begin if end is not None else None
        if whole.duration_seconds is not None:
            left = first + Fraction(whole.duration_seconds) - begin
            duration = max(Fraction(0), left if duration is None else min(duration, left))
        count = max(1, round(duration * whole.frame_rate)) if duration is not None and whole.frame_rate else None
        return replace(
            whole,
            frame_count=count,
            duration_seconds=None if duration is None else float(duration),
            start_seconds=float((self._start_pts or 0) * self._time_base),
            end_seconds=None if end is None else float(end),
        )

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
                yield f"could not be read any further than {self._where()} ({reason})"
            else:
                yield self._cut_off()
            yield self._changed()

    def _changed(self) -> str | None:
        change = self._file.changed()
        return f"{change}: upscale it again when it is complete" if change else None

    def _cut_off(self) -> str | None:
        """A file that was cut off just ends; only its own header and its last packet know that there should be more."""
        if isinstance(self._file, Y4MInput):
            whole = self._file.is_whole(self._decoder.packets, self._decoder.packet_bytes)
            return None if whole else f"ends within frame {self._decoder.packets + 1}: it was cut off"
        missing = self._missing_seconds()
        if missing:
            return f"ends at {self._where()}, {missing:.2f} s before its header says: it was cut off"
        if self._decoder.cut_off or bytes_missing(self._file, self._container.format.name):
            return f"ends at {self._where()} in the middle of its data: it was cut off"
        return None

    def _missing_seconds(self) -> float:
        """How much is missing from what the header says; 0: nothing, as far as it can be known."""
        if self._last_pts is None or self._whole.duration_seconds is None:
            return 0.0
        step_seconds = float(self._step * self._time_base)
        end = float(self._last_pts * self._time_base) + step_seconds
        if stream_duration_seconds(self._stream) is not None:
            # Matroska counts its tag from zero, others from the start of the stream; a last frame may be shown for long.
            start = float((self._stream.start_time or 0) * self._time_base) if self._stream.duration else 0.0
            tolerance = max(0.25, 3 * step_seconds)
        else:
            # The length of the file: its sound may well be longer than its picture.
            start, tolerance = (self._container.start_time or 0) / av.time_base, 2.0
            end = max(end, self._decoder.end_seconds)
        missing = start + self._whole.duration_seconds - end
        return missing if missing > tolerance else 0.0

    def _where(self) -> str:
        if self._last_pts is None:
            return "its first frame"
        return clock((self._last_pts + self._step) * self._time_base)

    def _part_words(self, start: Fraction | None, end: Fraction | None) -> str:
        wanted = [f"from {clock(start)} on"] if start is not None else []
        wanted += [f"before {clock(end)}"] if end is not None else []
        read = f"; those that were read end at {self._where()}" if self._last_pts is not None else ""
        return f"{' and '.join(wanted)}{read}: choose another part"


def probe(path: str | Path) -> VideoInfo:
    """What a video file holds; decodes its first frame. Raises InputError as VideoReader does."""
    with VideoReader(path) as reader:
        return reader.info


def _check_part(start: float | None, end: float | None) -> tuple[Fraction | None, Fraction | None]:
    """The times as they are meant: 0.1 + 0.2 is a frame at 0.3 s, and not a little more."""
    for seconds, name in ((start, "start"), (end, "end")):
        if seconds is not None and not math.isfinite(seconds):
            raise ConfigError(f"{name} is {seconds}; it must be a number of seconds")
    if start is not None and end is not None and end <= start:
        raise ConfigError(f"the part ends at {end:g} s and starts at {start:g} s; the end must be later")
    begin = None if start is None else Fraction(start).limit_denominator(_FINEST)
    return begin, None if end is None else Fraction(end).limit_denominator(_FINEST)
