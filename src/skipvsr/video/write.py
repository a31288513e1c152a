"""Writing a video: the encoder, the streams that are copied, and a file that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from skipvsr.errors import ConfigError, OutputError
from skipvsr.video.colour import BT709, LIMITED, RGB, ColourSpec, from_rgb, is_rgb
from skipvsr.video.encode import EncodeOptions, choose_encoder, encoder_rate
from skipvsr.video.faults import OPEN_OPTIONS, file_name, writing
from skipvsr.video.frame import Frame
from skipvsr.video.probe import VideoInfo

__all__ = ["EncodeOptions", "VideoWriter"]

_COPIED = ("audio", "subtitle")
# Containers that keep times, rotation and pixel aspect, each in one file.
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
# AV_CODEC_FLAG_FRAME_DURATION: how long each frame is shown goes through the encoder too.
_FRAME_DURATION = 0x100
# What belongs to the old file and not to what it shows.
_DROPPED_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands", "creation_time", "duration"}


class VideoWriter:
    """A video file that takes frames. A context manager: left normally, the file is finished and moved into its place;
    left by an exception, nothing is left behind.

    Args:
        path: the file; its ending chooses the container.
        width, height: of the frames that will come.
        source: what is upscaled: its sound and subtitles are copied, its timing, colour description, rotation, pixel
            aspect, tags and chapters kept. None: nothing to copy.
        options: the encoder.
        frame_rate: frames a second, where there is no source.
        sample_aspect_ratio: of the output's pixels; None: the source's.

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
    ) -> None:
        self.path = Path(path)
        self.size = (width, height)
        self._source = source
        self._encoder = choose_encoder(options or EncodeOptions(), width, height)
        self._rate = encoder_rate(source.frame_rate if source else frame_rate)
        self._work = self.path.with_name(f".{self.path.stem[:100]}.{os.getpid()}.part{self.path.suffix}")
        self._container = _open_for_writing(self._work, self.path)
        self._copier: _Copier | None = None
        try:
            self._colour = _output_colour(source, self._encoder.pixel_format)
            self._stream = self._add_video(sample_aspect_ratio)
            if source is not None:
                self._copier = _Copier(source.path, self._container, self.path)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._finish()
        except BaseException:
            self._discard()
            raise

    def write(self, frame: Frame) -> None:
        """Encode a frame; sound and subtitles up to its time are copied along.

        Raises:
            OutputError: the disk is full, or the encoder or the container refuses.
        """
        height, width = frame.pixels.shape[:2]
        assert (width, height) == self.size
        with writing(self.path):
            picture = from_rgb(frame.pixels, self._encoder.pixel_format, self._colour)
            picture.pts, picture.time_base = frame.pts, frame.time_base
            if frame.duration is not None:
                picture.duration = frame.duration
            self._container.mux(self._stream.encode(picture))
            if self._copier is not None:
                self._copier.copy_until(frame.seconds)

    def _add_video(self, sample_aspect_ratio: Fraction | None) -> VideoStream:
        encoder, source = self._encoder, self._source
        with writing(self.path):
            stream = self._container.add_stream(encoder.codec, rate=self._rate, options=encoder.options)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = self.size
            stream.pix_fmt = encoder.pixel_format
            context = stream.codec_context
            context.thread_type = "AUTO"
            context.flags |= _FRAME_DURATION
            context.colorspace, context.color_range = self._colour.matrix, self._colour.range
            context.color_primaries, context.color_trc = self._colour.primaries, self._colour.transfer
            if source is not None:
                context.time_base = source.time_base
                stream.time_base = source.time_base
                context.sample_aspect_ratio = sample_aspect_ratio or source.sample_aspect_ratio
                if source.display_matrix is not None:
                    stream.set_display_matrix(source.display_matrix)
        try:
            context.open(strict=False)
        except (FFmpegError, ValueError) as error:
            width, height = self.size
            raise ConfigError(
                f"{encoder.codec} refuses {width}x{height} {encoder.pixel_format} with these settings "
                f"({error.strerror if isinstance(error, FFmpegError) else error}); choose others, or another encoder"
            ) from error
        return stream

    def _finish(self) -> None:
        with writing(self.path):
            self._container.mux(self._stream.encode(None))
            if self._copier is not None:
                self._copier.copy_until(None)
                self._copier.close()
            self._container.close()
            with self._work.open("rb") as file:
                os.fsync(file.fileno())
            self._work.replace(self.path)

    def _discard(self) -> None:
        if self._copier is not None:
            self._copier.close()
        try:
            self._container.close()
        except (OSError, ValueError, FFmpegError):
            # Nothing to save: closing writes a trailer, for which a full disk has no room, to a file that goes anyway.
            del self._container
        finally:
            self._work.unlink(missing_ok=True)


class _Copier:
    """Copies the packets of sound and subtitles from the source, as far as the picture has come."""

    def __init__(self, source: Path, output: OutputContainer, destination: Path) -> None:
        self._output = output
        self._input: InputContainer = av.open(file_name(source), options=OPEN_OPTIONS, metadata_errors="replace")
        output.metadata.update(_tags(self._input.metadata))
        chapters = self._input.chapters()
        if chapters:
            output.set_chapters(chapters)
        self._streams: dict[int, Stream] = {}
        for stream in self._input.streams:
            if stream.type in _COPIED:
                self._streams[stream.index] = _add_copy(output, stream, destination)
        inputs = [self._input.streams[index] for index in self._streams]
        self._packets: Iterator[Packet] = self._input.demux(*inputs) if inputs else iter(())
        self._waiting: Packet | None = None
        self._last: dict[int, int] = {}

    def copy_until(self, seconds: float | None) -> None:
        """Copy what is to be heard or read up to a time; None: everything that is left."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.size == 0:
                continue  # the demuxer's way of saying that a stream is at its end
            if packet.dts is None:
                packet.dts = packet.pts
            time_base = packet.time_base
            if seconds is not None and packet.dts is not None and packet.dts * time_base > seconds:
                self._waiting = packet
                return
            if self._in_order(packet):
                packet.stream = self._streams[packet.stream.index]
                self._output.mux(packet)

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


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key.lower() not in _DROPPED_TAGS}


def _output_colour(source: VideoInfo | None, pixel_format: str) -> ColourSpec:
    """The source's colour description, but YUV for RGB sources and RGB for RGB outputs."""
    rgb = is_rgb(av.VideoFormat(pixel_format))
    colour = source.colour if source is not None else ColourSpec(BT709, LIMITED, BT709, BT709)
    if rgb:
        return ColourSpec(RGB, 2, colour.primaries, colour.transfer)
    if colour.matrix == RGB:
        return ColourSpec(BT709, LIMITED, colour.primaries, colour.transfer)
    return colour


def _open_for_writing(work: Path, path: Path) -> OutputContainer:
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
    try:
        return av.open(file_name(work), "w")
    except (FFmpegError, ValueError) as error:
        work.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, ValueError):
            raise OutputError(f"{path} cannot be written ({error.strerror})") from error
        ending = path.suffix or "no ending"
        raise ConfigError(f"{path} has {ending}, which is no video container; use .mp4, .mkv or .mov") from error
