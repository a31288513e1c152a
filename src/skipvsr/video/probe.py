"""What a video file or a folder of images holds, before it is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.stream import VideoStream

from skipvsr.errors import InputError
from skipvsr.video.colour import ColourSpec, bit_depth, colour_of, is_subsampled
from skipvsr.video.errors import SOURCE_OPTIONS, reading
from skipvsr.video.hdr import HdrMetadata, hdr_metadata
from skipvsr.video.limits import check_size, check_streams
from skipvsr.video.properties import chroma_location, side_data
from skipvsr.video.source import SourceFile

# Formats that are lists of other files.
_LISTS = {"hls", "concat", "dash", "imf", "image2"}
# Decoders whose frames always say where chroma lies; from others, the centre may mean that nothing was said.
_SITED = {"mjpeg", "mpeg1video", "h261", "h263", "theora", "h264", "hevc"}
_IDENTITY = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class VideoInfo:
    """A video stream and what comes with it.

    Args:
        path: the file, or the folder of images.
        width, height: of the frames as they are decoded, before any rotation.
        display_matrix: nine integers, as the container holds them, for the player to turn or mirror the frame; None: as is.
        rotation_degrees: counter-clockwise, what `display_matrix` does: 0, 90, 180 or 270 (nearest).
        sample_aspect_ratio: width of a pixel over its height; 1 where unknown.
        time_base: seconds per unit of the timestamps.
        frame_rate: average, frames a second; None where unknown.
        frame_count: what the container says or implies, for showing progress; None where unknown.
        duration_seconds: of the video stream, or else of the file; None where unknown.
        pixel_format: FFmpeg's name.
        bit_depth: of the deepest component.
        colour: what the numbers mean.
        audio_streams, subtitle_streams: how many there are.
        hdr: for which display an HDR video was made, where it says so.
        start_seconds: what of the file's own clock is 0 in the timestamps: where a part of the file begins.
        end_seconds: of the file's own clock, where the part ends; None: at the end of the file.
        interlaced: whether the first frame is flagged so.
    """

    path: Path
    width: int
    height: int
    display_matrix: tuple[int, ...] | None
    rotation_degrees: int
    sample_aspect_ratio: Fraction
    time_base: Fraction
    frame_rate: Fraction | None
    frame_count: int | None
    duration_seconds: float | None
    pixel_format: str
    bit_depth: int
    colour: ColourSpec
    audio_streams: int
    subtitle_streams: int
    hdr: HdrMetadata | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None
    interlaced: bool = False


def open_container(path: Path) -> tuple[InputContainer, SourceFile]:
    """Open this file and no other, even if it names others, for reading; the caller closes both.

    Raises:
        InputError: it is missing, empty, no media at all, a list of other files, or has more than 64 streams.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or download it again")
    with reading(path):
        file = SourceFile(path)
        try:
            container = av.open(file, "r", options=SOURCE_OPTIONS, metadata_errors="replace")
        except BaseException:
            file.close()
            if file.error is not None:
                raise file.error from None
            raise
    try:
        if set(container.format.name.split(",")) & _LISTS:
            raise InputError(f"{path} is a playlist and would open other files; give the video file itself")
        check_streams(path, container)
    except InputError:
        container.close()
        file.close()
        raise
    return container, file


def main_video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not a cover image."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise InputError(
            f"{path} holds no video (only {', '.join(kinds) or 'nothing'}); give a file with a video stream"
        )
    return streams[0]


def describe(path: Path, container: InputContainer, stream: VideoStream, first: av.VideoFrame) -> VideoInfo:
    """Everything that the container, the stream and its first frame say.

    Raises:
        InputError: the frame is too small or too large, or its colours are stored in a way that is not supported.
    """
    check_size(path, first.width, first.height)
    assert stream.time_base is not None
    duration = stream_duration_seconds(stream)
    if duration is None and container.duration is not None:
        duration = container.duration / av.time_base
    rate = _frame_rate(stream)
    count = stream.frames or (round(duration * rate) if duration and rate else None)
    return VideoInfo(
        path=path,
        width=first.width,
        height=first.height,
        display_matrix=_display_matrix(first),
        rotation_degrees=90 * round(first.rotation / 90) % 360,
        sample_aspect_ratio=stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1),
        time_base=stream.time_base,
        frame_rate=rate,
        frame_count=count,
        duration_seconds=duration,
        pixel_format=first.format.name,
        bit_depth=bit_depth(first.format),
        colour=_colour(path, stream, first),
        audio_streams=len(container.streams.audio),
        subtitle_streams=len(container.streams.subtitles),
        hdr=hdr_metadata(first),
        interlaced=first.interlaced_frame,
    )


def _frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames a second in the mean; None: not known."""
    average, guessed = stream.average_rate, stream.guessed_rate
    # FFmpeg's reader of raw DV says the ticks of its clock, 60,000 a second.
    is_clock = average is not None and stream.time_base is not None and average == 1 / stream.time_base
    return guessed or average if is_clock else average or guessed


def _colour(path: Path, stream: VideoStream, first: av.VideoFrame) -> ColourSpec:
    try:
        colour = colour_of(first)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    if not is_subsampled(first.format):
        return colour
    location = chroma_location(first)
    if location == "center" and stream.codec_context.name not in _SITED:
        return colour
    return replace(colour, chroma_location=location)


def stream_duration_seconds(stream: VideoStream) -> float | None:
    """How long the container says that this very stream is; None where it says nothing."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # Matroska keeps it in a tag, as 00:00:01.200000000.
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """The 3x3 matrix of the frame's side data, None where there is none or it is the identity."""
    data = side_data(frame, Type.DISPLAYMATRIX)
    if data is None:
        return None
    matrix = tuple(memoryview(data).cast("i"))
    return None if matrix == _IDENTITY else matrix
