"""Reading a video, one frame at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av
from av.error import FFmpegError

from skipvsr.errors import DecodeError, InputError
from skipvsr.video.colour import to_rgb
from skipvsr.video.faults import PIPE
from skipvsr.video.frame import Frame
from skipvsr.video.pipe import Y4MInput
from skipvsr.video.probe import VideoInfo, describe, open_container, picture_stream, stream_duration_seconds


class VideoReader:
    """A video file as an iterator of frames, in the order in which they are shown. A context manager; read once. The path
    "-" is standard input, raw video in YUV4MPEG2.

    Raises:
        InputError: missing, empty, no video in it, not a single frame that decodes, or under 16 pixels a side.
        DecodeError: while iterating, after the last frame before a place that does not decode, or before the end of a
            file that was cut off.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._pipe = Y4MInput() if self.path == PIPE else None
        self._container = self._pipe.container if self._pipe is not None else open_container(self.path)
        self._last_pts: int | None = None
        # Until when the file has anything at all, its sound included.
        self._end_seconds = 0.0
        # AVI says when a packet is decoded and not when its frame is shown. The frames come in the order in which they
        # are shown: the first takes the first time, and so on.
        self._without_times = "avi" in self._container.format.name.split(",")
        self._times: deque[int] = deque()
        self._step = 1
        self._packets = self._packet_bytes = 0
        try:
            self._stream = picture_stream(self._container, self.path)
            self._stream.thread_type = "AUTO"
            self._decoded = self._decode()
            try:
                self._first = next(self._decoded, None)
            except DecodeError as error:
                raise InputError(f"{self.path} holds no frame that decodes; it is damaged or no video") from error
            if self._first is None:
                raise InputError(f"{self.path} holds no video frames; it was cut off, or is no video")
            self.info: VideoInfo = describe(self.path, self._container, self._stream, self._first)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        assert self._first is not None, "a reader can be read once"
        first, self._first = self._first, None
        yield self._frame(first)
        del first
        for decoded in self._decoded:
            yield self._frame(decoded)
        if self._pipe is not None and not self._pipe.is_whole(self._packets, self._packet_bytes):
            raise DecodeError(f"standard input ends within frame {self._packets + 1}; it was cut off")
        self._check_complete()

    def _decode(self) -> Iterator[av.VideoFrame]:
        """All frames; FFmpeg's refusal to decode, at any point, is where the stream ends for us."""
        try:
            for packet in self._container.demux():
                if packet.stream == self._stream:
                    self._packets += packet.size > 0
                    self._packet_bytes += packet.size
                    if self._without_times and packet.size and packet.dts is not None:
                        self._times.append(packet.dts)
                    yield from packet.decode()  # type: ignore[misc]
                elif packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._end_seconds = max(self._end_seconds, end)
        except FFmpegError as error:
            reason = " ".join((error.strerror or str(error)).split())
            raise DecodeError(f"{self.path} stopped decoding at {self._where()} ({reason})") from error

    def _frame(self, decoded: av.VideoFrame) -> Frame:
        if (decoded.width, decoded.height) != (self.info.width, self.info.height):
            raise DecodeError(
                f"{self.path} changes from {self.info.width}x{self.info.height} to {decoded.width}x{decoded.height} at "
                f"{self._where()}; split it there and upscale the parts"
            )
        pts, duration = self._pts(decoded), decoded.duration or None
        if duration is not None:
            self._step = duration
        elif self._last_pts is not None and pts - self._last_pts > 1:
            self._step = pts - self._last_pts
        self._last_pts = pts
        return Frame(to_rgb(decoded, self.info.colour), pts, duration, self.info.time_base)

    def _pts(self, decoded: av.VideoFrame) -> int:
        """When a frame is shown, in units of the stream: later than the frame before.

        Frames at the same time, or a little before, are moved to the next unit: none may be lost.

        Raises:
            DecodeError: the times jump back by a second or more.
        """
        pts = decoded.pts if decoded.pts is not None else decoded.dts
        if self._without_times:
            pts = self._times.popleft() if self._times else None
        if self._last_pts is None:
            return pts or 0
        if pts is None:
            return self._last_pts + self._step
        if pts <= self._last_pts:
            if (self._last_pts - pts) * self.info.time_base >= 1:
                raise DecodeError(
                    f"{self.path} jumps back in time at {self._where()}; it is several videos in one: split it there"
                )
            pts = self._last_pts + 1
        return pts

    def _check_complete(self) -> None:
        """A file that was cut off just ends; only its own header knows that there should be more."""
        if self._last_pts is None or self.info.duration_seconds is None:
            return
        step_seconds = float(self._step * self.info.time_base)
        end = float(self._last_pts * self.info.time_base) + step_seconds
        if stream_duration_seconds(self._stream) is not None:
            # Matroska counts its tag from zero, others from the start of the stream; a last frame may be shown for long.
            start = float((self._stream.start_time or 0) * self.info.time_base) if self._stream.duration else 0.0
            tolerance = max(0.25, 3 * step_seconds)
        else:
            # The length of the file: its sound may well be longer than its picture.
            start, tolerance = (self._container.start_time or 0) / av.time_base, 2.0
            end = max(end, self._end_seconds)
        missing = start + self.info.duration_seconds - end
        if missing > tolerance:
            raise DecodeError(
                f"{self.path} ends at {self._where()}, {missing:.2f} s before its header says; it was cut off"
            )

    def _where(self) -> str:
        if self._last_pts is None:
            return "its first frame"
        seconds = float((self._last_pts + self._step) * self.info.time_base)
        minutes, seconds = divmod(seconds, 60)
        return f"{int(minutes)}:{seconds:06.3f}"


def probe(path: str | Path) -> VideoInfo:
    """What a video file holds; decodes its first frame. Raises InputError as VideoReader does."""
    with VideoReader(path) as reader:
        return reader.info
