"""Encoded frames on disk, in finished parts: what a job that was stopped does not have to do again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from skipvsr.video.files import sync, write_whole
from skipvsr.video.frame import Frame


@dataclass(frozen=True)
class EncodedPacket:
    """One frame as the encoder gave it.

    Args:
        size: bytes.
        pts: presentation time in units of the source's time base.
        duration: in the same units; 0 where it is not known.
        keyframe: whether decoding can start here.
    """

    size: int
    pts: int
    duration: int
    keyframe: bool


@dataclass(frozen=True)
class Segment:
    """A finished part: the bytes of its packets one after the other, and a list of them beside it.

    Args:
        path: of the bytes; the list has the same name, ending in .json.
    """

    path: Path

    def packets(self) -> list[EncodedPacket]:
        """In decoding order. Raises OSError or ValueError where the part is damaged."""
        rows = json.loads(_list_of(self.path).read_text())
        packets = [EncodedPacket(*row) for row in rows]
        if sum(packet.size for packet in packets) != self.path.stat().st_size:
            raise ValueError(f"{self.path} does not have the size that its list says")
        return packets

    def contents(self) -> Iterator[bytes]:
        """The bytes of each packet, in decoding order."""
        with self.path.open("rb") as file:
            for packet in self.packets():
                yield file.read(packet.size)

    def delete(self) -> None:
        """Remove the bytes and the list."""
        self.path.unlink(missing_ok=True)
        _list_of(self.path).unlink(missing_ok=True)


class SegmentWriter:
    """Encodes frames into a part of their own, which can be decoded without the others.

    Args:
        path: of the part; nothing is left there unless `finish` is called.
        encoder: opened, and used for nothing else.
    """

    def __init__(self, path: Path, encoder: VideoCodecContext) -> None:
        self._path = path
        self._encoder = encoder
        self._packets: list[EncodedPacket] = []
        self._durations: dict[int, int] = {}
        self._file: BinaryIO = path.open("wb")

    def write(self, converted: av.VideoFrame, frame: Frame) -> None:
        """Encode a frame, whose times are those of `frame`."""
        self._durations[frame.pts] = frame.duration or 0
        self._keep(self._encoder.encode(converted))

    def finish(self) -> Segment:
        """Take what the encoder still holds, and make the part safe against a power cut."""
        self._keep(self._encoder.encode(None))
        sync(self._file)
        self._file.close()
        rows = [[packet.size, packet.pts, packet.duration, packet.keyframe] for packet in self._packets]
        write_whole(_list_of(self._path), json.dumps(rows))
        return Segment(self._path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        Segment(self._path).delete()

    def _keep(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            assert packet.pts is not None
            self._file.write(bytes(packet))
            duration = self._durations.pop(packet.pts, 0)
            self._packets.append(EncodedPacket(packet.size, packet.pts, duration, packet.is_keyframe))


def decoding_times(presentation_times: list[int]) -> list[int]:
    """When each packet is decoded: rising, and never after it is shown.

    Args:
        presentation_times: distinct, in decoding order; the frames of a part are all shown before those of the next.

    Returns:
        The presentation times in rising order, delayed by as many packets as B-frames need; before them come times as far
        apart as the first frames are.
    """
    shown = sorted(presentation_times)
    place = {time: index for index, time in enumerate(shown)}
    delay = max((index - place[time] for index, time in enumerate(presentation_times)), default=0)
    before = [shown[0] - (shown[delay] - shown[index]) for index in range(delay)]
    return [*before, *shown][: len(shown)]


def shown_durations(packets: Sequence[EncodedPacket]) -> dict[int, int]:
    """How long each frame is shown, by its presentation time: until the next one, and the last as long as its packet says.

    What packets say is not always that: MP4 knows only how far apart frames are decoded.
    """
    shown = sorted(packets, key=lambda packet: packet.pts)
    until_next = {packet.pts: following.pts - packet.pts for packet, following in pairwise(shown)}
    return {**until_next, **{packet.pts: packet.duration for packet in shown[-1:]}}


def _list_of(path: Path) -> Path:
    return path.with_suffix(".json")
