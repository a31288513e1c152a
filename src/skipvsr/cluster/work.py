"""Upscaling one chunk, and storing its result: a segment of encoded packets and a report."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from torch import Tensor

from skipvsr.cluster.chunks import ChunkFrame, Role
from skipvsr.cluster.store import Store
from skipvsr.inference.upscaler import Upscaler
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.upscale.pipeline import enlarged_alpha
from skipvsr.upscale.size import resize
from skipvsr.video.frame import Frame
from skipvsr.video.image_segments import ImageSegmentEncoder
from skipvsr.video.prefetch import WriteBehind
from skipvsr.video.segment_encoder import SegmentEncoder
from skipvsr.video.segments import Segment

_PACKETS, _LIST, _DONE = ".packets", ".json", ".done"


@dataclass(frozen=True)
class ChunkReport:
    """What was done for one chunk of a film.

    Args:
        index: of the chunk.
        first, end: numbers of its first frame, and of the one after its last.
        passes, ratios: of a trunk over a frame, and the sum of what each of them ran (`Tally`).
        seconds: that it took.
        peak_bytes: resident memory of the process that did it.
        worker: where it was done.
        precision: in which it was done.
    """

    index: int
    first: int
    end: int
    passes: int
    ratios: float
    seconds: float
    peak_bytes: int
    worker: str
    precision: str

    @property
    def frames(self) -> int:
        """How many were written."""
        return self.end - self.first


def upscale_chunk(
    frames: Iterable[ChunkFrame],
    upscaler: Upscaler,
    encoder: SegmentEncoder | ImageSegmentEncoder,
    path: Path,
    *,
    index: int,
    first: int,
    worker: str = "",
    on_frame: Callable[[], object] | None = None,
) -> tuple[Segment, ChunkReport]:
    """Upscale a chunk and encode the frames of its body into a segment.

    Args:
        frames: of the chunk, taken as they are needed.
        upscaler: what is done with them.
        encoder: of the film.
        path: of the segment, which is there when this returns and not before.
        index, first: of the chunk.
        worker: who does it, for the report.
        on_frame: called after each frame of the body.
    """
    start = time.perf_counter()
    waiting: deque[ChunkFrame] = deque()
    stream = upscaler.stream(_tensors(frames, waiting))
    writer, count = None, 0

    def encode(item: tuple[ChunkFrame, Tensor]) -> None:
        assert writer is not None
        frame = _resized(*item, encoder.size, upscaler.model.scale)
        writer.write(encoder.converted(frame), frame)

    try:
        with ThreadPoolExecutor(1, "encode") as executor:
            behind = WriteBehind(encode, executor)
            for item, result in _of_body(stream, waiting):
                if writer is None:
                    writer = encoder.start_segment(path, item.frame.time_base)
                behind.put((item, result))
                count += 1
                if on_frame is not None:
                    on_frame()
            behind.finish()
        assert writer is not None, "a chunk has a frame"
        segment = writer.finish()
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    memory = psutil.Process().memory_info().rss
    report = ChunkReport(
        index, first, first + count, stream.tally.passes, stream.tally.ratios,
        time.perf_counter() - start, memory, worker, upscaler.precision,
    )  # fmt: skip
    return segment, report


def _tensors(frames: Iterable[ChunkFrame], waiting: deque[ChunkFrame]) -> Iterator[Tensor]:
    """The pixels of each frame; its times and its role are appended to `waiting`, for its result."""
    for item in frames:
        # Only its times are needed from here on.
        small = replace(item.frame, pixels=np.empty((0, 0, 3), item.frame.pixels.dtype))
        waiting.append(replace(item, frame=small))
        yield to_tensor(item.frame.pixels)


def _of_body(results: Iterable[Tensor], waiting: deque[ChunkFrame]) -> Iterator[tuple[ChunkFrame, Tensor]]:
    """The frames of the body with their results, without warm-up and lookahead."""
    for result in results:
        item = waiting.popleft()
        if item.role is Role.LOOKAHEAD:
            return
        if item.role is Role.BODY:
            yield item, result


def _resized(item: ChunkFrame, result: Tensor, size: tuple[int, int], scale: int) -> Frame:
    """The frame that is written, of (width, height) pixels."""
    (width, height), frame = size, item.frame
    pixels = to_array(resize(result, height, width), frame.pixels.dtype)
    alpha = None if frame.alpha is None else enlarged_alpha(frame.alpha, scale, height, width)
    return replace(frame, pixels=pixels, alpha=alpha)


def publish(store: Store, packets: bytes | Path, rows: bytes, report: ChunkReport) -> None:
    """Make a chunk safe in the work folder; it counts from the moment when its report is there, which comes last.

    Args:
        store: the work folder.
        packets: the segment's bytes, or a file of them.
        rows: the list of its packets.
        report: of the chunk.
    """
    stem = _stem(report.first)
    if isinstance(packets, Path):
        if store.local is None or packets != store.local / f"{stem}{_PACKETS}":
            store.put(packets, f"{stem}{_PACKETS}")
    else:
        store.write(f"{stem}{_PACKETS}", packets)
    store.write(f"{stem}{_LIST}", rows)
    store.write(f"{stem}{_DONE}", json.dumps(asdict(report)).encode())


def published(store: Store) -> dict[int, ChunkReport]:
    """The chunks that are safe in a work folder, by the number of their first frame."""
    done: dict[int, ChunkReport] = {}
    for name in store.names():
        if name.endswith(_DONE) and not name.startswith("."):
            try:
                report = ChunkReport(**json.loads(store.read(name)))
            except (FileNotFoundError, ValueError, TypeError):
                continue
            done[report.first] = report
    return done


def segments_of(store: Store, reports: Iterable[ChunkReport], folder: Path) -> list[Segment]:
    """The segments of chunks, fetched into a folder of this machine where they are not on it already."""
    segments = []
    for report in reports:
        stem = _stem(report.first)
        if store.local is not None:
            segments.append(Segment(store.local / f"{stem}{_PACKETS}"))
            continue
        for ending in (_PACKETS, _LIST):
            store.get(f"{stem}{ending}", folder / f"{stem}{ending}")
        segments.append(Segment(folder / f"{stem}{_PACKETS}"))
    return segments


def list_path(segment: Segment) -> Path:
    """The list of a segment's packets, beside it."""
    return segment.path.with_suffix(_LIST)


def _stem(first: int) -> str:
    return f"{first:09d}"
