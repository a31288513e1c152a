"""Writing a video: the encoder, and a file that appears whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.codec import CodecContext
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from skipvsr.errors import ConfigError, OutputError
from skipvsr.video.colour import BT709, LIMITED, RGB, ColourSpec, from_rgb, is_rgb, is_subsampled
from skipvsr.video.decode import clock
from skipvsr.video.encode import EncodeOptions, choose_encoder, encoder_rate
from skipvsr.video.errors import PIPE, file_name, writing
from skipvsr.video.frame import Frame
from skipvsr.video.probe import VideoInfo
from skipvsr.video.segments import Segment, SegmentWriter, decoding_times
from skipvsr.video.stream_copy import Copier

__all__ = ["EncodeOptions", "VideoWriter"]

_LOG = logging.getLogger("skipvsr")
# Containers that keep times, rotation and pixel aspect, each in one file.
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
_ISO_CONTAINERS = (".mp4", ".m4v", ".mov")
# AV_CODEC_FLAG_FRAME_DURATION: how long each frame is shown goes through the encoder too.
_FRAME_DURATION = 0x100
# Frames after which whoever watches the parts being joined is told.
_JOINED_AT_A_TIME = 256


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
        self.size = (width, height)
        self.segments = list(segments)
        # Why not all that is copied could be read from the source; known when the file is finished.
        self.stopped: str | None = None
        # Called while the parts are joined, now and then: frames done, frames in all.
        self.on_join: Callable[[int, int], object] | None = None
        self._source = source
        self._encoder = choose_encoder(
            options or EncodeOptions(),
            width,
            height,
            container=self.path.suffix,
            deep=source is not None and source.bit_depth > 8,
            hdr=source is not None and source.colour.hdr,
            metadata=source.hdr if source is not None else None,
        )
        self._rate = encoder_rate(source.frame_rate if source else frame_rate)
        self._time_base: Fraction | None = source.time_base if source else None
        self._sample_aspect_ratio = sample_aspect_ratio or (source.sample_aspect_ratio if source else None)
        self._colour = output_colour(source, self._encoder.pixel_format)
        _check_place(self.path)
        self._own_work = (
            None if work is not None else self.path.with_name(f".{self.path.stem[:100]}.{os.getpid()}.part")
        )
        self._work = work or self._make_work()
        self._whole = self._work / f"whole{self.path.suffix}"
        self._segment: SegmentWriter | None = None
        self._container: OutputContainer | None = None
        self._copier: Copier | None = None
        try:
            self._container = _open_for_writing(self._whole, self.path)
            self._stream = self._add_video(self._container)
            if source is not None and source.path != PIPE:
                self._copier = Copier(source, self._container, self.path)
            with writing(self.path):
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
                context = self._new_encoder(self._time_base)
                self._segment = SegmentWriter(self._work / f"{len(self.segments):06d}.packets", context)
            picture = from_rgb(frame.pixels, self._encoder.pixel_format, self._colour)
            picture.pts, picture.time_base = frame.pts, frame.time_base
            if frame.duration is not None:
                picture.duration = frame.duration
            self._segment.write(picture, frame)

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

    def _add_video(self, container: OutputContainer) -> VideoStream:
        """The stream that the parts are joined in, with an encoder that only says what they look like."""
        encoder, source = self._encoder, self._source
        with writing(self.path):
            stream = container.add_stream(encoder.codec, rate=self._rate, options=self._options())
            assert isinstance(stream, VideoStream)
            if encoder.codec == "libx265" and self.path.suffix.lower() in _ISO_CONTAINERS:
                # Some players take no other name for it.
                stream.codec_context.codec_tag = "hvc1"
            if source is not None:
                stream.time_base = source.time_base
                if source.display_matrix is not None:
                    stream.set_display_matrix(source.display_matrix)
        self._set_up(stream.codec_context, self._time_base)
        return stream

    def _new_encoder(self, time_base: Fraction | None) -> VideoCodecContext:
        """An encoder for a part: the same settings, and the same headers."""
        context = CodecContext.create(self._encoder.codec, "w")
        assert isinstance(context, VideoCodecContext)
        context.options = self._options()
        context.framerate = self._rate
        context.flags = self._stream.codec_context.flags
        self._set_up(context, time_base)
        return context

    def _set_up(self, context: VideoCodecContext, time_base: Fraction | None) -> None:
        context.width, context.height = self.size
        context.pix_fmt = self._encoder.pixel_format
        context.thread_type = "AUTO"
        context.flags |= _FRAME_DURATION
        context.colorspace, context.color_range = self._colour.matrix, self._colour.range
        context.color_primaries, context.color_trc = self._colour.primaries, self._colour.transfer
        if time_base is not None:
            context.time_base = time_base
        if self._sample_aspect_ratio is not None:
            context.sample_aspect_ratio = self._sample_aspect_ratio
        try:
            context.open(strict=False)
        except (FFmpegError, ValueError) as error:
            width, height = self.size
            raise ConfigError(
                f"{self._encoder.codec} refuses {width}x{height} {self._encoder.pixel_format} with these settings "
                f"({error.strerror if isinstance(error, FFmpegError) else error}); choose others, or another encoder"
            ) from error

    def _options(self) -> dict[str, str]:
        if not is_subsampled(av.VideoFormat(self._encoder.pixel_format)):
            return self._encoder.options
        return {**self._encoder.options, "chroma_sample_location": self._colour.chroma_location}

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
            self._whole.replace(self.path)

    def _join(self, container: OutputContainer) -> None:
        """Write all parts into the container, and what is copied beside them."""
        listed = [packet for segment in self.segments for packet in segment.packets()]
        contents = (part for segment in self.segments for part in segment.contents())
        time_base = self._time_base or 1 / self._rate  # without any frame nobody has said
        # No container made here shows what comes before zero.
        shift = max(0, -min((packet.pts for packet in listed), default=0))
        if shift:
            delay = shift * time_base
            _LOG.warning("the first frame is at -%s; everything is moved on by so much, to start at 0", clock(delay))
            if self._copier is not None:
                self._copier.delay = delay
        times = decoding_times([packet.pts + shift for packet in listed])
        for number, (packet, dts, part) in enumerate(zip(listed, times, contents, strict=True)):
            if self.on_join is not None and number % _JOINED_AT_A_TIME == 0:
                self.on_join(number, len(listed))
            encoded = Packet(part)
            encoded.stream, encoded.time_base = self._stream, time_base
            encoded.pts, encoded.dts, encoded.duration = packet.pts + shift, dts, packet.duration
            encoded.is_keyframe = packet.keyframe
            container.mux(encoded)
            if self._copier is not None:
                self._copier.copy_until(float(encoded.pts * time_base))

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


def output_colour(source: VideoInfo | None, pixel_format: str) -> ColourSpec:
    """The source's colour description, but YUV for RGB sources and RGB for RGB outputs.

    Chroma goes to the left, where players expect it, but for top-left sources (BT.2020): those say so.
    """
    output = av.VideoFormat(pixel_format)
    rgb = is_rgb(output)
    colour = source.colour if source is not None else ColourSpec(BT709, LIMITED, BT709, BT709)
    if rgb:
        return ColourSpec(RGB, 2, colour.primaries, colour.transfer)
    if colour.matrix == RGB:
        return ColourSpec(BT709, LIMITED, colour.primaries, colour.transfer)
    top_left = colour.chroma_location == "topleft" and output.chroma_height(8) == 4
    return replace(colour, chroma_location="topleft" if top_left else "left")


def _check_place(path: Path) -> None:
    """Raise ConfigError or OutputError unless a video can be written there."""
    folder = path.parent
    if path.suffix.lower() not in CONTAINERS:
        ending = path.suffix or "no ending"
        raise ConfigError(
            f"{path} has {ending}, no container that keeps all that a video has; use {', '.join(CONTAINERS)}"
        )
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the folder {folder} may not be written; choose another")


def _open_for_writing(work: Path, path: Path) -> OutputContainer:
    try:
        return av.open(file_name(work), "w")
    except (FFmpegError, ValueError) as error:
        work.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, ValueError):
            raise OutputError(f"{path} cannot be written ({error.strerror})") from error
        ending = path.suffix or "no ending"
        raise ConfigError(f"{path} has {ending}, which is no video container; use .mp4, .mkv or .mov") from error
