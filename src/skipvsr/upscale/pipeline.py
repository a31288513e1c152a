"""From a reader through an upscaler to a writer: decoding ahead and encoding behind, each in a thread of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from skipvsr.errors import DecodeError
from skipvsr.inference.transfer import make_fetch
from skipvsr.inference.upscaler import FrameStream, StreamState, Upscaler
from skipvsr.models.resize import bicubic_upsample
from skipvsr.routing.trace import Trace
from skipvsr.upscale.checkpoint import Checkpoint, UnfinishedJob
from skipvsr.upscale.frames import scaled, to_array, to_tensor
from skipvsr.upscale.overlay import LatestDepths, draw_depth
from skipvsr.upscale.progress import ProgressMeter
from skipvsr.upscale.size import resize
from skipvsr.upscale.snapshot import Snapshot
from skipvsr.video.frame import Frame
from skipvsr.video.open import Reader, Writer
from skipvsr.video.prefetch import WriteBehind, read_ahead
from skipvsr.video.write import VideoWriter

# Follows the last frame: all that the encoder still holds.
_END = None
# How often progress is told while the encoder works on that.
_LOOK_SECONDS = 0.5


@dataclass
class CheckpointKeeper:
    """Finishes a segment and saves a checkpoint, whenever so many frames are done.

    Args:
        work: where checkpoints are saved.
        writer: of the output.
        every: frames.
        saved: frames that are safe already.
    """

    work: UnfinishedJob
    writer: Writer
    every: int
    saved: int

    def due(self, number: int, state: Callable[[], StreamState]) -> Checkpoint | None:
        """The checkpoint of this position, if it is time for one; called when the network stands there."""
        if number - self.saved < self.every:
            return None
        self.saved = number
        now = state()
        return Checkpoint(now.number, numbers=now.numbers, tensors=now.tensors)

    def save(self, checkpoint: Checkpoint) -> None:
        """Called when all frames before the checkpoint are written."""
        self.writer.end_segment()
        segments = self.writer.segments if isinstance(self.writer, VideoWriter) else []
        self.work.save(replace(checkpoint, segments=[part.path.name for part in segments]))


@dataclass(frozen=True)
class Overlay:
    """A second output, and the depths to draw on it."""

    writer: Writer
    depths: LatestDepths


class Pipeline:
    """One pass from a reader to a writer.

    Attributes:
        stream: the upscaler's, with how much ran and how many scenes there were.
        stopped: why decoding ended before its time, if it did.

    Args:
        reader: of the source.
        upscaler: what is done with its frames.
        writer: of the output.
        size: (height, width) of what is written.
        overlay: a second output.
        trace: what ran is added to it.
        start: where to go on.
        keeper: saves checkpoints; None: no checkpoints.
        meter: is told of every step.
        snapshot: shows the newest frame; None: nobody watches.
    """

    def __init__(
        self,
        reader: Reader,
        upscaler: Upscaler,
        writer: Writer,
        size: tuple[int, int],
        *,
        overlay: Overlay | None,
        trace: Trace | None,
        start: StreamState | None,
        keeper: CheckpointKeeper | None,
        meter: ProgressMeter,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.stopped: DecodeError | None = None
        self._reader, self._writer, self._size = reader, writer, size
        self._scale = upscaler.model.scale
        self._overlay, self._keeper, self._meter = overlay, keeper, meter
        self._snapshot = snapshot
        self._fetch = make_fetch(upscaler.device)
        self._first = 0 if start is None else start.number
        self._waiting: deque[Frame] = deque()
        self._decoder = ThreadPoolExecutor(1, "decode")
        self._encoder = ThreadPoolExecutor(1, "encode")
        self._behind = WriteBehind(self._take, self._encoder)
        self.stream: FrameStream = upscaler.stream(
            self._frames(self._decoder), trace, start, at_position=self._at_position, on_step=self._on_step
        )

    def run(self) -> None:
        """Upscale everything; the outputs are left to be closed."""
        self._meter.begin()
        with self._decoder, self._encoder:
            for number, result in enumerate(self.stream, self._first):
                depth = None if self._overlay is None else self._overlay.depths.take(number)
                frame = self._waiting.popleft()
                self._behind.put((result, self._pixels(result, frame.pixels.dtype), frame, depth))
                self._meter.frame_done()
            self._behind.put(_END)
            while not self._behind.finish(_LOOK_SECONDS):
                self._meter.encoding()
        self._meter.joining()

    def _on_step(self, step: Literal["read", "backward"], number: int) -> None:
        if step == "read":
            self._meter.frame_read(number)
        else:
            self._meter.backward_done(number)

    def _at_position(self, number: int, state: Callable[[], StreamState]) -> None:
        checkpoint = None if self._keeper is None else self._keeper.due(number, state)
        if checkpoint is not None:
            self._behind.put(checkpoint)

    def _frames(self, decoder: Executor) -> Iterator[Tensor]:
        try:
            for number, frame in enumerate(read_ahead(self._reader, decoder)):
                if number >= self._first:
                    # Only its times are needed from here on; its pixels would pile up over a window.
                    self._waiting.append(replace(frame, pixels=np.empty((0, 0, 3), frame.pixels.dtype)))
                yield to_tensor(frame.pixels)
        except DecodeError as error:
            self.stopped = error

    def _pixels(self, result: Tensor, dtype: np.dtype) -> Callable[[], np.ndarray]:
        """What makes the pixels that are written. From a GPU they start on their way now, small and without anybody waiting."""
        if self._fetch is None:
            return lambda: to_array(resize(result, *self._size), dtype)
        arriving = self._fetch(scaled(resize(result, *self._size), dtype))
        return lambda: arriving.get().numpy().astype(dtype, copy=False)

    def _take(
        self, item: Checkpoint | tuple[Tensor, Callable[[], np.ndarray], Frame, Tensor | None] | None
    ) -> None:  # fmt: skip
        """Encode, in the encoder's thread: a result, or (None, or a checkpoint) all that the encoder still holds."""
        started = time.perf_counter()
        if isinstance(item, Checkpoint):
            assert self._keeper is not None
            self._keeper.save(item)
        elif item is None:
            for writer in (self._writer, *(() if self._overlay is None else (self._overlay.writer,))):
                writer.end_segment()
        else:
            self._write(*item)
        self._meter.encoded(time.perf_counter() - started, flushed=not isinstance(item, tuple))

    def _write(
        self, result: Tensor, make_pixels: Callable[[], np.ndarray], frame: Frame, depth: Tensor | None
    ) -> None:  # fmt: skip
        alpha = None if frame.alpha is None else enlarged_alpha(frame.alpha, self._scale, *self._size)
        pixels = make_pixels()
        self._writer.write(replace(frame, pixels=pixels, alpha=alpha))
        if self._snapshot is not None:
            self._snapshot.take(pixels)
        if self._overlay is not None and depth is not None:
            drawn = resize(draw_depth(result, depth), *self._size)
            self._overlay.writer.write(replace(frame, pixels=to_array(drawn, frame.pixels.dtype), alpha=None))


def enlarged_alpha(alpha: np.ndarray, scale: int, height: int, width: int) -> np.ndarray:
    """Opacity (H, W) enlarged, bicubic, and resized like the frame."""
    plane = torch.from_numpy(alpha.astype(np.float32) / np.iinfo(alpha.dtype).max)[None]
    return to_array(resize(bicubic_upsample(plane, scale), height, width), alpha.dtype)[..., 0]
