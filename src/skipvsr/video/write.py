"""Writing a video: the encoder, and a file that appears whole or not at all."""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType

from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from skipvsr.errors import ConfigError, OutputError
from skipvsr.video.clock import clock
from skipvsr.video.colour import from_rgb
from skipvsr.video.containers import CONTAINERS, check_copies, holding, open_output, refuse_codec
from skipvsr.video.encode import EncodeOptions
from skipvsr.video.errors import PIPE, writing
from skipvsr.video.files import hidden_name, move_into_place
from skipvsr.video.frame import Frame
from skipvsr.video.probe import VideoInfo
from skipvsr.video.segments import Segment, SegmentWriter, decoding_times, shown_durations
from skipvsr.video.stream_copy import StreamCopy
from skipvsr.video.video_stream import VideoSettings, add_video, new_encoder, video_settings

__all__ = ["EncodeOptions", "VideoWriter"]

_LOG = logging.getLogger("skipvsr")
_JOINED_AT_A_TIME = 64


class VideoWriter:
    """A video file that takes frames. A context manager: left normally, the file is finished and moved into its place;
    left by an exception, nothing is left behind but finished parts that were asked for.

    Frames are encoded into parts (`skipvsr.video.segments`), and joined with what is copied when all are there. What the
    container cannot hold is refused before the first frame.

    Args:
        path: the file; its ending chooses the container.
        width, height: of the frames that will come.
        source: what is upscaled: its sound and subtitles are copied, its timing, colour description, rotation, pixel
            aspect, tags and chapters kept. None: nothing to copy.
        options: the encoder.
        frame_rate: frames a second, where there is no source.
        sample_aspect_ratio: of the output's pixels; None: the source's.
        work: an existing folder for the parts, on the same disk as `path`, which is left to the caller; None: one of our
            own, which goes at the end.
        segments: parts that are finished already; the frames to come follow them.

    Raises:
        OutputError: the folder is missing or may not be written, or the container cannot hold a stream of the source.
        ConfigError: an ending that is no video container, or impossible encoder settings.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        *,
        source: VideoInfo | None = None,
        options: EncodeOptions | None = None,
        frame_rate: Fraction | None = None,
        sample_aspect_ratio: Fraction | None = None,
        work: Path | None = None,
        segments: Sequence[Segment] = (),
    ) -> None:
        self.path = Path(path)
        self._ending = _ending(self.path)
        self.size = (width, height)
        self.segments = list(segments)
        # Why not all that is copied could be read from the source; known when the file is finished.
        self.stopped: str | None = None
        # Called while the parts are joined, now and then: frames done, frames in all.
        self.on_join: Callable[[int, int], object] | None = None
        self._settings = video_settings(
            self._ending, width, height,
            source=source, options=options, frame_rate=frame_rate, sample_aspect_ratio=sample_aspect_ratio,
        )  # fmt: skip
        self._time_base = self._settings.time_base
        _check_folder(self.path.parent)
        self._own_work = (
            None if work is not None else self.path.with_name(hidden_name(self.path.stem, f"{os.getpid()}.part"))
        )
        self._work = work or self._make_work()
        self._whole = self._work / f"whole{self._ending}"
        self._segment: SegmentWriter | None = None
        self._container: OutputContainer | None = None
        self._copier: StreamCopy | None = None
        try:
            with writing(self.path):
                self._container = open_output(self._whole, self._ending, self._time_base)
                self._stream = _begin(self._container, self._settings, self.path)
                if source is not None and source.path != PIPE:
                    kept = (options or EncodeOptions()).kept
                    check_copies(source.path, self.path, kept)
                    self._copier = StreamCopy(source, self._container, self.path, kept)
                self._container.start_encoding()
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def write(self, frame: Frame) -> None:
        """Encode a frame.

        Raises:
            OutputError: the disk is full, or the encoder refuses.
        """
        height, width = frame.pixels.shape[:2]
        assert (width, height) == self.size
        self._time_base = self._time_base or frame.time_base
        with writing(self.path):
            if self._segment is None:
                context = new_encoder(self._settings, self._stream, self._time_base)
                self._segment = SegmentWriter(self._work / f"{len(self.segments):06d}.packets", context)
            converted = from_rgb(frame.pixels, self._settings.encoder.pixel_format, self._settings.colour)
            converted.pts, converted.time_base = frame.pts, frame.time_base
            if frame.duration is not None:
                converted.duration = frame.duration
            self._segment.write(converted, frame)

    def end_segment(self) -> None:
        """Make what was written so far a finished part, safe on the disk; the next frame begins another."""
        if self._segment is not None:
            with writing(self.path):
                self.segments.append(self._segment.finish())
            self._segment = None

    def _make_work(self) -> Path:
        assert self._own_work is not None
        with writing(self.path):
            shutil.rmtree(self._own_work, ignore_errors=True)
            self._own_work.mkdir()
        return self._own_work

    def _finish(self) -> None:
        self.end_segment()
        assert self._container is not None
        with writing(self.path):
            if self._copier is not None:
                self._copier.begin()
            self._join(self._container)
            if self._copier is not None:
                self._copier.copy_until(None)
                self.stopped = self._copier.stopped
            self._container.close()
            with self._whole.open("rb") as file:
                os.fsync(file.fileno())
            move_into_place(self._whole, self.path, self._work)

    def _join(self, container: OutputContainer) -> None:
        """Write all parts into the container, and what is copied beside them."""
        listed = [packet for segment in self.segments for packet in segment.packets()]
        contents = (part for segment in self.segments for part in segment.contents())
        time_base = self._time_base or 1 / self._settings.rate  # without any frame nobody has said
        shift = self._shift([packet.pts for packet in listed], time_base)
        durations = shown_durations(listed)
        times = decoding_times([packet.pts + shift for packet in listed])
        for number, (packet, dts, part) in enumerate(zip(listed, times, contents, strict=True)):
            if self.on_join is not None and number % _JOINED_AT_A_TIME == 0:
                self.on_join(number, len(listed))
            encoded = Packet(part)
            encoded.stream, encoded.time_base = self._stream, time_base
            encoded.pts, encoded.dts, encoded.duration = packet.pts + shift, dts, durations[packet.pts]
            encoded.is_keyframe = packet.keyframe
            container.mux(encoded)
            if self._copier is not None:
                self._copier.copy_until(float(encoded.pts * time_base))

    def _shift(self, pts: list[int], time_base: Fraction) -> int:
        """By how much everything comes later, in units of the time base: no container made here shows what comes before 0."""
        delay, what = max(0, -min(pts, default=0)) * time_base, "frame"
        if self._copier is not None:
            delay, what = self._copier.delay_for(delay)
        shift = ceil(delay / time_base)
        if shift:
            _LOG.warning("the first %s is at -%s; everything is moved on by so much, to start at 0", what, clock(delay))
        if self._copier is not None:
            self._copier.set_delay(shift * time_base)
        return shift

    def _discard(self) -> None:
        """Leave nothing but finished parts in a folder that is not ours. After `_finish`, there is little left to do."""
        if self._copier is not None:
            self._copier.close()
            self._copier = None
        if self._segment is not None:
            self._segment.discard()
            self._segment = None
        try:
            if self._container is not None:
                self._container.close()
        except (OSError, ValueError, FFmpegError):
            # Nothing to save: closing writes a trailer, for which a full disk has no room, to a file that goes anyway.
            self._container = None
        finally:
            self._whole.unlink(missing_ok=True)
            if self._own_work is not None:
                shutil.rmtree(self._own_work, ignore_errors=True)


def check_video_output(
    path: Path,
    width: int,
    height: int,
    *,
    source: VideoInfo,
    options: EncodeOptions | None = None,
    sample_aspect_ratio: Fraction | None = None,
) -> None:
    """Raise OutputError or ConfigError where a `VideoWriter` would; nothing is written, and the folder need not be there."""
    ending = _ending(path)
    settings = video_settings(
        ending, width, height, source=source, options=options, frame_rate=None, sample_aspect_ratio=sample_aspect_ratio
    )
    with writing(path):
        with open_output(io.BytesIO(), ending, settings.time_base) as container:
            _begin(container, settings, path)
        if source.path != PIPE:
            check_copies(source.path, path, (options or EncodeOptions()).kept)


def _begin(container: OutputContainer, settings: VideoSettings, path: Path) -> VideoStream:
    """Add the video to a container. Raises ConfigError, with the containers that take it, where this one does not."""
    ending = path.suffix.lower()

    def fill(output: OutputContainer) -> None:
        add_video(output, settings, ending)
        output.start_encoding()

    if ending not in holding(fill, [ending]):
        raise refuse_codec(path, settings.encoder.codec, fill)
    return add_video(container, settings, ending)


def _ending(path: Path) -> str:
    """Of a container. Raises ConfigError for another."""
    if path.suffix.lower() not in CONTAINERS:
        ending = path.suffix or "no ending"
        raise ConfigError(
            f"{path} has {ending}, no container that keeps all that a video has; use {', '.join(CONTAINERS)}"
        )
    return path.suffix.lower()


def _check_folder(folder: Path) -> None:
    """Raise OutputError unless files can be made there."""
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the folder {folder} may not be written; choose another")
