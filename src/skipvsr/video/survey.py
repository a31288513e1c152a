"""A summary of a video file, to be shown before anything is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from skipvsr.video.errors import reading
from skipvsr.video.probe import VideoInfo, main_video_stream, open_container
from skipvsr.video.read import VideoReader

# Packets that are looked at to see whether frames come at a constant rate.
_PACKETS = 300
# Steps between frames differ by less where containers round them to milliseconds.
_ROUNDING_SECONDS = 0.0025


@dataclass(frozen=True)
class Sound:
    """A sound stream: FFmpeg's name of the codec, channels, samples a second."""

    codec: str
    channels: int
    sample_rate: int


@dataclass(frozen=True)
class Survey:
    """A summary of a video file.

    Args:
        info: of its video.
        first_seconds: of the file's own clock, when the first frame is shown.
        codec: FFmpeg's name of the video codec.
        container: FFmpeg's names of the format.
        variable_rate: whether the steps between the first frames differ.
        sounds: its sound streams.
        size_bytes: of the file.
    """

    info: VideoInfo
    first_seconds: float
    codec: str
    container: str
    variable_rate: bool
    sounds: tuple[Sound, ...]
    size_bytes: int


def survey(path: str | Path) -> Survey:
    """Look into a video file; decodes its first frame. Raises InputError as VideoReader does."""
    path = Path(path)
    with VideoReader(path) as reader:
        info = reader.info
        first = next(iter(reader))
    container, file = open_container(path)
    try:
        stream = main_video_stream(container, path)
        sounds = tuple(
            Sound(each.codec_context.name, each.channels, each.sample_rate)
            for each in container.streams.audio
            if each.codec_context is not None
        )
        with reading(path):
            times = _first_times(container, stream)
        return Survey(
            info=info,
            first_seconds=first.seconds,
            codec=stream.codec_context.name,
            container=container.format.name,
            variable_rate=varies(times, info.time_base),
            sounds=sounds,
            size_bytes=path.stat().st_size,
        )
    finally:
        container.close()
        file.close()


def varies(times: list[int], time_base: Fraction) -> bool:
    """Whether the steps between times, in units of the time base and in any order, differ by more than rounding."""
    ordered = sorted(set(times))
    steps = [later - earlier for earlier, later in pairwise(ordered)]
    if len(steps) < 2:
        return False
    spread = (max(steps) - min(steps)) * time_base
    return spread > max(2 * time_base, Fraction(_ROUNDING_SECONDS))


def _first_times(container: InputContainer, stream: VideoStream) -> list[int]:
    """Times of the packets at the beginning. Frames that lean on later ones come out of order: the last few are left out."""
    times: list[int] = []
    try:
        for packet in islice(container.demux(stream), _PACKETS):
            times += [] if packet.pts is None else [packet.pts]
    except FFmpegError:
        return times
    return sorted(times)[:-16] if len(times) == _PACKETS else times
