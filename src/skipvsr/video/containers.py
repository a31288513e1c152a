"""The containers that videos are written to, and which streams each of them holds."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TypeGuard

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream

from skipvsr.errors import ConfigError, OutputError, SkipVSRError
from skipvsr.video.errors import OPEN_OPTIONS, file_name
from skipvsr.video.sound import CONVERSIONS, Audio, Kept, SoundConverter, needs_conversion

# Those that keep times, rotation and pixel aspect, each in one file; by FFmpeg's name of the format.
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
CONTAINERS = tuple(_FORMATS)
ISO_CONTAINERS = (".mp4", ".m4v", ".mov")
COPIED = ("audio", "subtitle")
# Units a second in which MP4 says when each stream begins and ends: to less than half a sample of sound.
_MIN_TIMESCALE, _MAX_TIMESCALE = 240_000, 1_000_000
# How many packets of the source are looked at to find one of each stream of sound.
_TRIED_PACKETS = 300
_LAYOUTS = {1: "mono", 2: "stereo"}


def open_output(file: Path | io.BytesIO, ending: str, time_base: Fraction | None = None) -> OutputContainer:
    """A container of the kind that an ending says.

    Args:
        file: where it is written.
        ending: one of `CONTAINERS`.
        time_base: of the video; None: not known yet.
    """
    options = {"movie_timescale": str(_movie_timescale(time_base))} if ending in ISO_CONTAINERS else {}
    target = file_name(file) if isinstance(file, Path) else file
    return av.open(target, "w", format=_FORMATS[ending], options=options)


def _movie_timescale(time_base: Fraction | None) -> int:
    """Units of the video's own, or a multiple of them, so that it begins exactly when it should."""
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


def check_copies(source: Path, destination: Path, kept: Kept | None = None) -> None:
    """Raise OutputError unless a container can hold all sound and subtitles of a source, with a way that there is.

    FFmpeg refuses some combinations at once, some when the header is written and some with the last packet; so all of that
    is tried, in memory, with the first packets of each stream of sound.

    Args:
        source: a video file.
        destination: its ending says which container.
        kept: what becomes of them; None: they are copied.
    """
    kept = kept or Kept()
    audio = kept.audio
    with av.open(file_name(source), options=OPEN_OPTIONS, metadata_errors="replace") as container:
        streams = [stream for stream in container.streams if kept.has(stream)]
        if not streams:
            return
        packets = _first_packets(container, [stream for stream in streams if stream.type == "audio"])
        ending = destination.suffix.lower()
        for stream in streams:
            if not holding(_filling([stream], packets, audio), [ending]):
                codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
                what = codec if not _converts(stream, audio) else f"{codec} to be converted to {audio}"
                raise OutputError(
                    f"{ending} files cannot hold stream {stream.index} of {source} ({stream.type}, {what}); "
                    f"{_way_out(source, destination, stream, streams, packets, audio)}"
                )


def _way_out(
    source: Path,
    destination: Path,
    stream: Stream,
    streams: list[Stream],
    packets: dict[int, list[bytes]],
    audio: Audio,
) -> str:
    """What to do where a container cannot hold a stream, in words."""

    def names(endings: list[str]) -> str:
        return " or ".join(destination.with_suffix(other).name for other in endings)

    ending = destination.suffix.lower()
    others = holding(_filling(streams, packets, audio))
    here = [kind for kind in CONVERSIONS if holding(_filling(streams, packets, kind), [ending])]
    ways = [f"write to {names(others)} instead"] if others else []
    if here:
        ways.insert(0, f"convert its sound with --audio {_choice(here)}")
    if stream.type == "subtitle":
        ways.append("leave them out with --no-subtitles")
    if ways:
        return ", or ".join(ways)
    elsewhere = {kind: holding(_filling(streams, packets, kind)) for kind in CONVERSIONS}
    kinds = [kind for kind in CONVERSIONS if elsewhere[kind]]
    if kinds:
        return f"write to {names(elsewhere[kinds[0]])} instead, with --audio {kinds[0]}"
    return (
        "nor can the other containers: convert that stream first "
        f"(ffmpeg -i {source.name} -map 0 -c copy -c:a flac {source.stem}-converted.mkv), or leave it out with --audio none"
    )


def _choice(kinds: Sequence[str]) -> str:
    return kinds[0] + (f" (or {', '.join(kinds[1:])})" if kinds[1:] else "")


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


def _filling(streams: list[Stream], packets: dict[int, list[bytes]], audio: Audio) -> Callable[[OutputContainer], None]:
    """Copies or converts the streams, with the first of their packets or with silence."""

    def fill(output: OutputContainer) -> None:
        converters = [SoundConverter(output, stream, audio) for stream in streams if _converts(stream, audio)]
        copies = {stream.index: add_copy(output, stream) for stream in streams if not _converts(stream, audio)}
        output.start_encoding()
        for converter in converters:
            output.mux(converter.try_out())
        for index, copy in copies.items():
            for number, contents in enumerate(packets.get(index, [])):
                packet = Packet(contents)
                packet.stream, packet.time_base = copy, Fraction(1, 50)
                packet.pts = packet.dts = number
                packet.duration, packet.is_keyframe = 1, True
                output.mux(packet)

    return fill


def _converts(stream: Stream, audio: Audio) -> TypeGuard[AudioStream]:
    return isinstance(stream, AudioStream) and needs_conversion(stream, audio)


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
