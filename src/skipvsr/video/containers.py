"""The containers that videos are written to, and which streams each of them holds."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream

from skipvsr.errors import ConfigError, OutputError, SkipVSRError
from skipvsr.video.errors import OPEN_OPTIONS, file_name

# Those that keep times, rotation and pixel aspect, each in one file; by FFmpeg's name of the format.
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
CONTAINERS = tuple(_FORMATS)
ISO_CONTAINERS = (".mp4", ".m4v", ".mov")
COPIED = ("audio", "subtitle")
# Units a second in which MP4 says when each stream begins.
_MIN_TIMESCALE, _MAX_TIMESCALE = 1000, 1_000_000
# How many packets of the source are looked at to find one of each stream of sound.
_TRIED_PACKETS = 300
_LAYOUTS = {1: "mono", 2: "stereo"}


def open_output(file: Path | io.BytesIO, ending: str, time_base: Fraction | None = None) -> OutputContainer:
    """A container of the kind that an ending says.

    Args:
        file: where it is written.
        ending: one of `CONTAINERS`.
        time_base: of the picture; None: not known yet.
    """
    options = {"movie_timescale": str(_movie_timescale(time_base))} if ending in ISO_CONTAINERS else {}
    target = file_name(file) if isinstance(file, Path) else file
    return av.open(target, "w", format=_FORMATS[ending], options=options)


def _movie_timescale(time_base: Fraction | None) -> int:
    """Units of the picture's own, or a multiple of them, so that it begins exactly when it should."""
    units = _MIN_TIMESCALE if time_base is None else time_base.denominator
    return units * -(-_MIN_TIMESCALE // units) if units <= _MAX_TIMESCALE else _MIN_TIMESCALE


def add_copy(output: OutputContainer, stream: Stream) -> Stream:
    """Add a stream for the packets of another one, as they are. Raises FFmpegError or ValueError where it has no place."""
    copy = output.add_stream_from_template(stream)
    context = copy.codec_context
    if isinstance(context, AudioCodecContext):
        layout = context.layout
        # "2 channels" and no more: MP4 has to say where they stand.
        if layout.nb_channels in _LAYOUTS and layout.name == f"{layout.nb_channels} channels":
            context.layout = _LAYOUTS[layout.nb_channels]
    return copy


def holding(fill: Callable[[OutputContainer], None], among: Sequence[str] = CONTAINERS) -> list[str]:
    """The endings of the containers that can be filled.

    Args:
        fill: adds streams to a container, and packets if need be; raises FFmpegError or ValueError where it cannot.
        among: endings to try.
    """
    return [ending for ending in among if _can_be_filled(ending, fill)]


def check_copies(source: Path, destination: Path) -> None:
    """Raise OutputError unless a container can hold all sound and subtitles of a source, with those that can.

    FFmpeg refuses some combinations at once, some when the header is written and some with the last packet; so all of that
    is tried, in memory, with the first packets of each stream of sound.

    Args:
        source: a video file.
        destination: its ending says which container.
    """
    with av.open(file_name(source), options=OPEN_OPTIONS, metadata_errors="replace") as container:
        streams = [stream for stream in container.streams if stream.type in COPIED]
        if not streams:
            return
        packets = _first_packets(container, [stream for stream in streams if stream.type == "audio"])
        ending = destination.suffix.lower()
        for stream in streams:
            if holding(_copying([stream], packets), [ending]):
                continue
            codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
            others = holding(_copying(streams, packets))
            if others:
                instead = f"write to {' or '.join(destination.with_suffix(other).name for other in others)} instead"
            else:
                instead = (
                    "nor can the other containers: convert that stream first "
                    f"(ffmpeg -i {source.name} -map 0 -c copy -c:{stream.type[0]} "
                    f"{'flac' if stream.type == 'audio' else 'srt'} {source.stem}-converted.mkv)"
                )
            raise OutputError(
                f"{ending} files cannot hold stream {stream.index} of {source} ({stream.type}, {codec}); {instead}"
            )


def refuse_codec(path: Path, codec: str, fill: Callable[[OutputContainer], None]) -> ConfigError:
    """The error where a container does not take the video of an encoder.

    Args:
        path: of the output.
        codec: of the encoder.
        fill: adds the video to a container and writes its header.
    """
    others = holding(fill)
    instead = f"use {', '.join(others)}, or another codec" if others else "use another codec"
    return ConfigError(f"{path.suffix} files cannot hold the video of {codec}; {instead}")


def _can_be_filled(ending: str, fill: Callable[[OutputContainer], None]) -> bool:
    try:
        with open_output(io.BytesIO(), ending) as output:
            fill(output)
    except SkipVSRError:
        raise
    except (FFmpegError, ValueError):
        return False
    return True


def _copying(streams: list[Stream], packets: dict[int, list[bytes]]) -> Callable[[OutputContainer], None]:
    """Copies the streams with the first of their packets."""

    def fill(output: OutputContainer) -> None:
        copies = {stream.index: add_copy(output, stream) for stream in streams}
        output.start_encoding()
        for index, copy in copies.items():
            for number, contents in enumerate(packets.get(index, [])):
                packet = Packet(contents)
                packet.stream, packet.time_base = copy, Fraction(1, 50)
                packet.pts = packet.dts = number
                packet.duration, packet.is_keyframe = 1, True
                output.mux(packet)

    return fill


def _first_packets(container: InputContainer, streams: list[Stream]) -> dict[int, list[bytes]]:
    """The first packet of each stream, as far as it comes soon."""
    found: dict[int, list[bytes]] = {}
    if not streams:
        return found
    try:
        for packet in islice(container.demux(*streams), _TRIED_PACKETS):
            if packet.size:
                found.setdefault(packet.stream_index, [bytes(packet)])
            if len(found) == len(streams):
                break
    except (FFmpegError, IndexError, OSError):
        return found
    return found
