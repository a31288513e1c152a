"""Writing a video: the encoder, the streams that are copied, and a file that appears whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import av
from av.codec import CodecContext
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from skipvsr.errors import ConfigError, OutputError
from skipvsr.video.colour import BT709, LIMITED, RGB, ColourSpec, from_rgb, is_rgb, is_subsampled
from skipvsr.video.decode import clock
from skipvsr.video.encode import EncodeOptions, choose_encoder, encoder_rate
from skipvsr.video.faults import OPEN_OPTIONS, PIPE, file_name, writing
from skipvsr.video.frame import Frame
from skipvsr.video.probe import VideoInfo, picture_stream
from skipvsr.video.segments import Segment, SegmentWriter, decoding_times

if TYPE_CHECKING:
    from av.container.core import Chapter

__all__ = ["EncodeOptions", "VideoWriter"]

_LOG = logging.getLogger("skipvsr")
_COPIED = ("audio", "subtitle")
# Times in seconds come as floats, and mean the simplest fraction that is this near.
_FINEST = 1_000_000
_MATROSKA = ("matroska", "webm")
# Codecs of cover pictures: ending and type of the files.
_COVERS = {"png": (".png", "image/png"), "mjpeg": (".jpg", "image/jpeg")}
# Containers that keep times, rotation and pixel aspect, each in one file.
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
_ISO_CONTAINERS = (".mp4", ".m4v", ".mov")
# AV_CODEC_FLAG_FRAME_DURATION: how long each frame is shown goes through the encoder too.
_FRAME_DURATION = 0x100
# What belongs to the old file and not to what it shows.
_DROPPED_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands", "creation_time", "duration"}


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
        self._copier: _Copier | None = None
        try:
            self._container = _open_for_writing(self._whole, self.path)
            self._stream = self._add_video(self._container)
            if source is not None and source.path != PIPE:
                self._copier = _Copier(source, self._container, self.path)
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
        for packet, dts, part in zip(listed, times, contents, strict=True):
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


class _Copier:
    """Copies everything but the picture from the source: tags and chapters, attachments and covers at once, the packets of
    sound and subtitles as far as the picture has come. What the container has no place for is said.
    """

    def __init__(self, info: VideoInfo, output: OutputContainer, destination: Path) -> None:
        source = info.path
        self._output = output
        self._source = source
        self._start = Fraction(info.start_seconds).limit_denominator(_FINEST)
        self._end = None if info.end_seconds is None else Fraction(info.end_seconds).limit_denominator(_FINEST)
        self._input: InputContainer = av.open(file_name(source), options=OPEN_OPTIONS, metadata_errors="replace")
        output.metadata.update(_tags(self._input.metadata))
        chapters = _shifted(self._input.chapters(), self._start, self._end)
        if chapters:
            output.set_chapters(chapters)
        self._streams: dict[int, Stream] = {}
        self._covers: list[tuple[Stream, bytes]] = []
        picture = picture_stream(self._input, source)
        for stream in self._input.streams:
            if stream.type in _COPIED:
                self._streams[stream.index] = _add_copy(output, stream, destination)
            elif stream is not picture and not self._keep(stream):
                _LOG.warning(
                    "stream %d of %s (%s) is left out: %s files made here have no place for it",
                    stream.index, source.name, _describe(stream), destination.suffix,
                )  # fmt: skip
        self.stopped: str | None = None
        # Seconds by which everything comes later than in the source.
        self.delay = Fraction(0)
        self._packets = self._read()
        self._waiting: Packet | None = None
        self._last: dict[int, int] = {}

    def _read(self) -> Iterator[Packet]:
        """The packets of the streams that are copied, as far as they can be read."""
        inputs = [self._input.streams[index] for index in self._streams]
        seconds = 0.0
        try:
            for packet in self._input.demux(*inputs) if inputs else ():
                # An empty one is the demuxer's way of saying that a stream is at its end.
                if packet.size == 0:
                    continue
                if packet.dts is None:
                    packet.dts = packet.pts
                if packet.dts is not None:
                    seconds = float(packet.dts * packet.time_base)
                yield packet
        except IndexError:
            # At the end PyAV stumbles over streams that turned up while it read (FLV may have such).
            return
        except (FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            self.stopped = f"its sound and subtitles could not be read any further than {clock(seconds)} ({reason})"

    def _keep(self, stream: Stream) -> bool:
        """Take over an attachment or a cover picture, if the container has a place for it."""
        if isinstance(stream, AttachmentStream) and self._output.format.name == "matroska":
            name, kind = stream.name or f"attachment {stream.index}", stream.mimetype or "application/octet-stream"
            self._output.add_attachment(name, kind, stream.data)
            return True
        if not isinstance(stream, VideoStream) or not stream.disposition & Disposition.attached_pic:
            return False
        contents = self._cover(stream.index)
        codec = stream.codec_context.name
        if not contents or codec not in _COVERS:
            return False
        if self._output.format.name == "matroska":
            ending, kind = _COVERS[codec]
            self._output.add_attachment(stream.metadata.get("filename", f"cover{ending}"), kind, contents)
            return True
        if self._output.format.name != "mp4":
            return False
        cover = self._output.add_stream_from_template(stream)
        cover.disposition = Disposition.attached_pic
        self._covers.append((cover, contents))
        return True

    def _cover(self, index: int) -> bytes:
        """The file that is a cover picture."""
        with av.open(file_name(self._source), options=OPEN_OPTIONS, metadata_errors="replace") as container:
            return next((bytes(packet) for packet in container.demux(container.streams[index]) if packet.size), b"")

    def begin(self) -> None:
        """Write the covers; called when the header is written."""
        for stream, contents in self._covers:
            packet = Packet(contents)
            packet.stream, packet.pts, packet.dts = stream, 0, 0
            self._output.mux(packet)

    def copy_until(self, seconds: float | None) -> None:
        """Copy what is to be heard or read up to a time; None: everything that is left."""
        while True:
            packet, self._waiting = self._waiting, None
            if packet is None:
                packet = next(self._packets, None)
                if packet is None:
                    return
                if not self._within(packet):
                    continue
            time_base = packet.time_base
            if seconds is not None and packet.dts is not None and packet.dts * time_base > seconds:
                self._waiting = packet
                return
            if self._in_order(packet) and not self._before_the_start(packet):
                packet.stream = self._streams[packet.stream.index]
                self._output.mux(packet)

    def _within(self, packet: Packet) -> bool:
        """Put a packet on the output's clock; False: it is not in the part that is upscaled.

        Sound begins with the first packet that starts in the part. A subtitle that is up when the part begins is up then.
        """
        if packet.pts is None or packet.time_base is None:
            return True
        start, time = self._start, packet.pts * packet.time_base
        if self._end is not None and time >= self._end:
            return False
        if start and time < start:
            shown_until = time + (packet.duration or 0) * packet.time_base
            if packet.stream.type != "subtitle" or shown_until <= start:
                return False
            packet.duration = round((shown_until - start) / packet.time_base)
            packet.pts = packet.dts = round(start / packet.time_base)
        shift = round((start - self.delay) / packet.time_base)
        packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        return True

    def _before_the_start(self, packet: Packet) -> bool:
        """Whether all streams would be moved for a packet that nobody is to hear.

        In MP4 the first packet of AAC, which only prepares the decoder, lies before zero. Matroska has no times below zero
        but for a delay of the codec, which MP4 does not tell.
        """
        if packet.pts is None or packet.pts >= 0:
            return False
        if self._output.format.name not in _MATROSKA or "matroska" in self._input.format.name:
            return False
        return packet.stream.type == "audio" and packet.pts + (packet.duration or 0) <= 0

    def _in_order(self, packet: Packet) -> bool:
        """False for packets after a jump back in time, where the picture stops too; equal times are moved on by a unit."""
        if packet.dts is None or packet.time_base is None:
            return True
        last = self._last.get(packet.stream.index)
        if last is not None and packet.dts <= last:
            if (last - packet.dts) * packet.time_base >= 1:
                return False
            packet.dts = last + 1
            packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        self._last[packet.stream.index] = packet.dts
        return True

    def close(self) -> None:
        """Close the source."""
        self._input.close()


def _add_copy(output: OutputContainer, stream: Stream, destination: Path) -> Stream:
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
    try:
        copy = output.add_stream_from_template(stream)
    except (FFmpegError, ValueError) as error:
        other = ".mkv" if destination.suffix.lower() != ".mkv" else ".mp4"
        raise OutputError(
            f"{destination.suffix} files cannot hold stream {stream.index} of the input ({stream.type}, {codec}); "
            f"write to {destination.with_suffix(other).name} instead"
        ) from error
    copy.metadata.update(_tags(stream.metadata))
    copy.disposition = stream.disposition
    return copy


def _shifted(chapters: list[Chapter], start: Fraction, end: Fraction | None) -> list[Chapter]:
    """The chapters of a part, on its clock."""
    if start == 0 and end is None:
        return chapters
    kept: list[Chapter] = []
    for chapter in chapters:
        unit = chapter["time_base"] or Fraction(1, av.time_base)
        first = max(chapter["start"] * unit, start)
        last = chapter["end"] * unit if end is None else min(chapter["end"] * unit, end)
        if first < last:
            shift = round(start / unit)
            kept.append({**chapter, "start": round(first / unit) - shift, "end": round(last / unit) - shift})
    return kept


def _describe(stream: Stream) -> str:
    if stream.type == "video":
        return "cover picture" if stream.disposition & Disposition.attached_pic else "another video stream"
    return stream.type


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key.lower() not in _DROPPED_TAGS}


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
