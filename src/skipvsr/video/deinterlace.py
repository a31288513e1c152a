"""Interlaced frames made whole ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.error import BlockingIOError as NotYet
from av.error import EOFError as AtEnd
from av.filter import Graph

_TIME_BASE = Fraction(1, 1000)


@dataclass(frozen=True)
class TimedFrame:
    """A frame as the decoder gave it, and when it is shown: pts and duration in units of the stream's time base."""

    decoded: av.VideoFrame
    pts: int
    duration: int | None


class Deinterlacer:
    """FFmpeg's bwdif on the frames that are flagged as interlaced: one frame out for each one in, at the same time, one
    frame late. Other frames pass as they are."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._layout: tuple[str, int, int] | None = None
        self._waiting: deque[TimedFrame] = deque()
        # The filter gets frame numbers as times; the frames' own times are put back behind it.
        self._count = 0

    def push(self, frame: TimedFrame) -> Iterator[TimedFrame]:
        """Take a frame; yields those that are ready."""
        decoded = frame.decoded
        layout = (decoded.format.name, decoded.width, decoded.height)
        if layout != self._layout:
            yield from self.finish()
            self._graph, self._layout = _graph(*layout), layout
        assert self._graph is not None
        decoded.pts, decoded.time_base = self._count, _TIME_BASE
        self._count += 1
        self._waiting.append(frame)
        self._graph.vpush(decoded)
        yield from self._ready()

    def finish(self) -> Iterator[TimedFrame]:
        """Yield the frames that are left."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._ready()
            self._graph = None
        assert not self._waiting

    def _ready(self) -> Iterator[TimedFrame]:
        assert self._graph is not None
        while True:
            try:
                decoded = self._graph.vpull()
            except (NotYet, AtEnd):
                return
            yield replace(self._waiting.popleft(), decoded=decoded)


def _graph(pixel_format: str, width: int, height: int) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat(pixel_format), time_base=_TIME_BASE)
    bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph
