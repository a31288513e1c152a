"""Everything of a file but its picture: sound, subtitles, chapters, attachments, covers and tags, copied as they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream
from av.video.stream import VideoStream

from skipvsr.errors import OutputError
from skipvsr.video.decode import clock
from skipvsr.video.errors import OPEN_OPTIONS, file_name
from skipvsr.video.probe import VideoInfo, picture_stream

if TYPE_CHECKING:
    from av.container.core import Chapter

_LOG = logging.getLogger("skipvsr")
_COPIED = ("audio", "subtitle")
# Times in seconds come as floats, and mean the simplest fraction that is this near.
_FINEST = 1_000_000
_MATROSKA = ("matroska", "webm")
# Codecs of cover pictures: ending and type of the files.
_COVERS = {"png": (".png", "image/png"), "mjpeg": (".jpg", "image/jpeg")}
# What belongs to the old file and not to what it shows.
_DROPPED_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands", "creation_time", "duration"}


class Copier:
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
