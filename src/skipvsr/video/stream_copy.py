"""Everything of a file but its video: sound, subtitles, chapters, attachments, covers and tags, copied as they are.

Sound is converted where that was asked for (`skipvsr.video.sound`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.format import Flags
from av.packet import Packet
from av.stream import Disposition, Stream

from skipvsr.video.attachments import Attachments
from skipvsr.video.clock import clock, seconds_as_fraction
from skipvsr.video.containers import COPIED, add_copy
from skipvsr.video.errors import OPEN_OPTIONS, file_name
from skipvsr.video.probe import VideoInfo, main_video_stream
from skipvsr.video.sound import Audio, Kept, SoundConverter, needs_conversion
from skipvsr.video.tags import chapters_of_part, tags_of, with_tags_of

_LOG = logging.getLogger("skipvsr")
_MATROSKA = ("matroska", "webm")
_MAX_CODEC_DELAY_SECONDS = Fraction(1, 10)
# Behind this, no packet is expected that lies before 0.
_FIRST_SECONDS = 1
# Of sound that is converted, so much is decoded before a part begins: decoders need what comes before to be right.
_DECODED_BEFORE_SECONDS = 1
_MAX_DURATION_SECONDS = 24 * 3600


class StreamCopy:
    """Copies everything but the video from the source: tags and chapters, attachments and covers at once, the packets of
    sound and subtitles as far as the video has come. What the container has no place for is said.

    Args:
        info: of the source.
        output: the container.
        destination: its file.
        kept: what becomes of sound and subtitles; None: they are copied.
    """

    def __init__(self, info: VideoInfo, output: OutputContainer, destination: Path, kept: Kept | None = None) -> None:
        source, kept = info.path, kept or Kept()
        self._output = output
        self._start = seconds_as_fraction(info.start_seconds)
        self._end = None if info.end_seconds is None else seconds_as_fraction(info.end_seconds)
        self._input: InputContainer = av.open(file_name(source), options=OPEN_OPTIONS, metadata_errors="replace")
        output.metadata.update(tags_of(self._input.metadata))
        chapters = chapters_of_part(self._input.chapters(), self._start, self._end)
        if chapters:
            output.set_chapters(chapters)
        self._streams: dict[int, Stream] = {}
        self._converters: dict[int, SoundConverter] = {}
        self._attachments = Attachments(output, source)
        video = main_video_stream(self._input, source)
        for stream in self._input.streams:
            if stream.type in COPIED and not kept.has(stream):
                continue
            if isinstance(stream, AudioStream) and needs_conversion(stream, kept.audio):
                self._convert(stream, kept.audio)
            elif stream.type in COPIED:
                self._streams[stream.index] = with_tags_of(add_copy(output, stream), stream)
            elif stream is not video and not self._attachments.keep(stream):
                _LOG.warning(
                    "stream %d of %s (%s) is left out: %s files made here have no place for it",
                    stream.index, source.name, _describe(stream), destination.suffix,
                )  # fmt: skip
        self.stopped: str | None = None
        self._delay = self._video_delay = Fraction(0)
        self._packets = self._read()
        # Read already, and on the output's clock.
        self._waiting: deque[Packet] = deque()
        self._last: dict[int, int] = {}
        self._least_step = 0 if Flags(output.format.flags) & Flags.ts_nonstrict else 1

    def _convert(self, stream: AudioStream, audio: Audio) -> None:
        end = None if self._end is None else self._end - self._start
        converter = self._converters[stream.index] = SoundConverter(self._output, stream, audio, end)
        self._streams[stream.index] = with_tags_of(converter.stream, stream)

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

    def begin(self) -> None:
        """Write the covers; called when the header is written."""
        self._attachments.write_covers()

    def delay_for(self, video_delay: Fraction) -> tuple[Fraction, str]:
        """By how many seconds everything has to come later, so that nothing lies before 0 where the container cannot hold
        that, and what it is that would; called before anything is copied.

        In MP4 sound may begin before the video, with a packet that only prepares the decoder, say. Matroska has no times
        below zero, except for the codec's delay, which MP4 does not store.

        Args:
            video_delay: seconds that the video alone needs.
        """
        self._video_delay, what = video_delay, "frame"
        if self._output.format.name not in _MATROSKA:
            return video_delay, what
        earliest = Fraction(0)
        for packet in self._first_packets():
            if self._start and packet.stream.index in self._converters:
                continue  # decoded for what comes after it
            time = Fraction(packet.pts or 0) * packet.time_base + video_delay
            if time < earliest - self._codec_delay(packet.stream) and not self._is_preparation(packet):
                earliest, what = time, packet.stream.type
        return video_delay - earliest, {"audio": "sound"}.get(what, what)

    def _codec_delay(self, stream: Stream) -> Fraction:
        """How much sound may lie before 0 in Matroska, at most: what its decoder does not give out, where the container of
        the source says so. Where everything is moved anyway, there is no need to guess."""
        if self._video_delay:
            return Fraction(0)
        codec = stream.codec_context.name if stream.codec_context is not None else ""
        known = "matroska" in self._input.format.name or "opus" in codec
        return _MAX_CODEC_DELAY_SECONDS if known and stream.type == "audio" else Fraction(0)

    def set_delay(self, delay: Fraction) -> None:
        """Have everything come later by so many seconds; called before anything is copied."""
        self._delay = delay

    def copy_until(self, seconds: float | None) -> None:
        """Copy sound and subtitles up to a time of the output; None: everything that is left."""
        while (packet := self._next()) is not None:
            time_base = packet.time_base
            if seconds is not None and packet.dts is not None and packet.dts * time_base + self._delay > seconds:
                self._waiting.appendleft(packet)
                return
            converter = self._converters.get(packet.stream.index)
            if converter is not None:
                self._output.mux(converter.convert(packet, self._delay))
                continue
            self._complete_duration(packet)
            if self._is_preparation(packet) or not self._in_order(packet):
                continue
            shift = round(self._delay / time_base) if time_base is not None else 0
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
            packet.stream = self._streams[packet.stream.index]
            self._output.mux(packet)
        if seconds is None:
            self._finish_conversions()

    def _finish_conversions(self) -> None:
        for index, converter in self._converters.items():
            stream = self._input.streams[index]
            assert isinstance(stream, AudioStream)
            self._output.mux(converter.finish(stream, self._delay))
            self.stopped = self.stopped or converter.complaint()

    def _first_packets(self) -> list[Packet]:
        """Those that may lie before 0; they stay there to be copied."""
        found: list[Packet] = []
        while (packet := self._next()) is not None:
            found.append(packet)
            if packet.dts is not None and packet.dts * packet.time_base > _FIRST_SECONDS:
                break
        self._waiting.extend(found)
        return found

    def _next(self) -> Packet | None:
        """The next packet of the part, on the output's clock; the delay is not added yet."""
        if self._waiting:
            return self._waiting.popleft()
        return next(filter(self._within, self._packets), None)

    def _within(self, packet: Packet) -> bool:
        """Put a packet on the output's clock; False: it is not in the part that is upscaled.

        Sound begins with the first packet that starts in the part; where it is converted, with the first sample, for which
        the decoder takes a start before it. A subtitle that is up when the part begins is up then.
        """
        if packet.pts is None or packet.time_base is None:
            return True
        start, time = self._start, packet.pts * packet.time_base
        if self._end is not None and time >= self._end:
            return False
        converted = packet.stream.index in self._converters
        if converted and time < start - _DECODED_BEFORE_SECONDS:
            return False
        if start and time < start and not converted:
            shown_until = time + (packet.duration or 0) * packet.time_base
            if packet.stream.type != "subtitle" or shown_until <= start:
                return False
            packet.duration = round((shown_until - start) / packet.time_base)
            packet.pts = packet.dts = round(start / packet.time_base)
        shift = round(start / packet.time_base)
        packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        return True

    def _complete_duration(self, packet: Packet) -> None:
        """Sound that does not say how long it is (in FLV) lasts as long as from the packet before to it: what has no duration
        is not played at the end of an MP4 file. A duration beyond all measure means that none is known."""
        if packet.duration and packet.time_base and packet.duration * packet.time_base > _MAX_DURATION_SECONDS:
            packet.duration = 0
        last = self._last.get(packet.stream.index)
        if packet.stream.type == "audio" and not packet.duration and last is not None and packet.dts is not None:
            packet.duration = max(0, packet.dts - last)

    def _is_preparation(self, packet: Packet) -> bool:
        """Whether this is an inaudible packet before zero (AAC's first in MP4), for which all streams would have to move."""
        if packet.pts is None or packet.time_base is None or packet.stream.type != "audio":
            return False
        if self._output.format.name not in _MATROSKA or "matroska" in self._input.format.name:
            return False
        time = packet.pts * packet.time_base + self._video_delay
        return time < 0 and time + (packet.duration or 0) * packet.time_base <= 0

    def _in_order(self, packet: Packet) -> bool:
        """False for packets after a jump back in time, where the video stops too; equal times are moved on by a unit where
        the container wants that.

        Matroska does not, and must not: in TrueHD six packets share five milliseconds.
        """
        if packet.dts is None or packet.time_base is None:
            return True
        last = self._last.get(packet.stream.index)
        if last is not None and packet.dts < last + self._least_step:
            if (last - packet.dts) * packet.time_base >= 1:
                return False
            packet.dts = last + self._least_step
            packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        self._last[packet.stream.index] = packet.dts
        return True

    def close(self) -> None:
        """Close the source."""
        self._input.close()


def _describe(stream: Stream) -> str:
    if stream.type == "video":
        return "cover image" if stream.disposition & Disposition.attached_pic else "another video stream"
    return stream.type
