"""Decoding that goes on behind a damaged place, and remembers what was damaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from skipvsr.video.clock import clock

# Codecs that have packets without a frame of their own.
_HIDDEN_FRAMES = {"vp8", "vp9", "av1", "libdav1d", "mpeg4", "msmpeg4", "msmpeg4v2"}
_TIMES_SHOWN = 5


class Decoder:
    """The frames of a stream, each with its time in units of the stream (None where the file does not say), as an iterator
    to be read once.

    A frame that does not decode is left out, and the next ones come; one that the decoder mended comes as it is. Both
    are counted. Errors of the container end the stream, after the frames that came before.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        assert stream.time_base is not None
        self._container, self._stream = container, stream
        self._time_base: Fraction = stream.time_base
        # AVI says when a packet is decoded and not when its frame is shown. The frames come in the order in which they
        # are shown: the first takes the first time, and so on.
        self._without_times = "avi" in container.format.name.split(",")
        self._times: deque[int] = deque()
        # Until when the file has anything at all, its sound included.
        self.end_seconds = 0.0
        self.packets = self.packet_bytes = 0
        self.stopped: str | None = None
        self._started = False
        self._first_pts: int | None = None
        self._missing: set[int] = set()
        self._damaged: set[int] = set()
        # Times of packets whose frame has not come yet.
        self._expected: set[int] = set()
        self._one_frame_each = not self._without_times and stream.codec_context.name not in _HIDDEN_FRAMES
        self._broken_ends: dict[int, bool] = {}

    def __iter__(self) -> Iterator[tuple[av.VideoFrame, int | None]]:
        try:
            for packet in self._container.demux():
                self._note_end(packet)
                if packet.stream == self._stream:
                    self.packets += packet.size > 0
                    self.packet_bytes += packet.size
                    yield from self._decode(packet)
        except IndexError:
            # At the end PyAV stumbles over streams that turned up while it read (FLV may have such).
            yield from self._decode(None)
        except (FFmpegError, OSError) as error:
            self.stopped = _reason(error)
            yield from self._decode(None)
        self._missing |= self._expected
        self._expected = set()

    @property
    def cut_off(self) -> bool:
        """Whether the last packet of any stream is incomplete."""
        return any(self._broken_ends.values())

    def damage(self, start_pts: int | None, end_pts: int | None) -> str | None:
        """Which frames of a part are missing and which are damaged, for a message; None: all is well."""

        def within(pts: int) -> bool:
            return (start_pts is None or pts >= start_pts) and (end_pts is None or pts < end_pts)

        missing = sorted(filter(within, self._missing))
        damaged = sorted(filter(within, self._damaged - self._missing))
        parts = []
        if missing:
            parts.append(f"{_frames(missing)} that did not decode ({self._when(missing)})")
        if damaged:
            parts.append(f"{_frames(damaged)} with errors ({self._when(damaged)})")
        return f"has {' and '.join(parts)}" if parts else None

    def _decode(self, packet: Packet | None) -> Iterator[tuple[av.VideoFrame, int | None]]:
        """The frames that come out when a packet goes in; None: all that are left."""
        self._expect(packet)
        try:
            frames = self._stream.codec_context.decode(packet)
        except FFmpegError:
            self._refuse(packet)
            return
        for frame in frames:
            assert isinstance(frame, av.VideoFrame)
            pts = self._time_of(frame)
            self._arrive(frame, pts)
            yield frame, pts

    def _expect(self, packet: Packet | None) -> None:
        if packet is None or not packet.size:
            return
        self._started = self._started or packet.is_keyframe
        if self._without_times and packet.dts is not None:
            self._times.append(packet.dts)
        if packet.pts is not None and not packet.is_discard:
            # Frames that lean on what was before the first key frame are not missed either.
            leading = self._first_pts is not None and packet.pts < self._first_pts
            if self._one_frame_each and self._started and not leading:
                self._expected.add(packet.pts)
            if packet.is_corrupt:
                self._damaged.add(packet.pts)

    def _refuse(self, packet: Packet | None) -> None:
        """A packet that does not decode. A recording may begin between two key frames: what comes before the first
        cannot be shown and is not missed."""
        if packet is None or not packet.size:
            return
        if self._without_times and self._times:
            self._times.pop()
        pts = packet.pts if packet.pts is not None else packet.dts
        if self._started and pts is not None:
            self._missing.add(pts)

    def _time_of(self, frame: av.VideoFrame) -> int | None:
        if self._without_times:
            return self._times.popleft() if self._times else None
        return frame.pts if frame.pts is not None else frame.dts

    def _arrive(self, frame: av.VideoFrame, pts: int | None) -> None:
        """Strike a frame off those that are expected. What is shown before it and has not come is missing."""
        if pts is not None and frame.is_corrupt:
            self._damaged.add(pts)
        if pts is not None and pts in self._missing:
            # It comes after all: times in order of decoding, as some MXF files have them, say nothing of what is missing.
            self._missing.discard(pts)
            self._one_frame_each = False
        if pts not in self._expected or frame.interlaced_frame:
            # Frames do not come as packets do; each field may be a packet of its own.
            self._one_frame_each = False
        if not self._one_frame_each or pts is None:
            self._expected.clear()
            return
        if self._first_pts is None:
            self._first_pts = pts
        else:
            self._missing |= {expected for expected in self._expected if expected < pts}
        self._expected = {expected for expected in self._expected if expected > pts}

    def _note_end(self, packet: Packet) -> None:
        if not packet.size:
            return
        self._broken_ends[packet.stream_index] = packet.is_corrupt
        if packet.stream != self._stream and packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self.end_seconds = max(self.end_seconds, end)

    def _when(self, times: list[int]) -> str:
        shown = ", ".join(clock(pts * self._time_base) for pts in times[:_TIMES_SHOWN])
        return f"at {shown}{' and later' if len(times) > _TIMES_SHOWN else ''}"


def _frames(times: list[int]) -> str:
    return f"{len(times)} frame{'s' if len(times) != 1 else ''}"


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
