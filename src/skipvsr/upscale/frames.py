"""`upscale_frames`: any iterator of frames in, an iterator of larger frames out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor

from skipvsr.checkpoints.load import load_any_model
from skipvsr.errors import ShapeError
from skipvsr.evaluation.trace_file import TraceWriter
from skipvsr.inference.options import (
    ComputeOptions,
    StreamOptions,
    StreamShorthands,
    check_keywords,
    with_shorthands,
)
from skipvsr.inference.precision import or_auto
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.routing.trace import Trace

AnyFrame = TypeVar("AnyFrame", np.ndarray, Tensor)

_MOST = 8.0
_PEAK = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def upscale_frames(
    frames: Iterable[AnyFrame],
    model: AnyModel | str | Path = "compact",
    *,
    compute: ComputeOptions | None = None,
    stream: StreamOptions | None = None,
    trace: Trace | str | Path | None = None,
    **options: Unpack[StreamShorthands],
) -> Iterator[AnyFrame]:
    """Super-resolve a stream of frames, of any length, in fixed memory. Options are checked at once.

    Args:
        frames: numpy arrays (H, W, 3), RGB, uint8 or uint16 over their full range or floating point in [0, 1]; or torch
            tensors (3, H, W), RGB in [0, 1]. All of one size, each side at least 16 pixels. Taken as they are needed.
        model: a model, or what `load_model` takes.
        compute, stream: the options; None: their defaults.
        trace: what ran is added to it; or a file for that, complete after the last frame (`skipvsr.evaluation.trace_file`).
        options: single fields of the two options, such as `budget=0.5`, which go before those of the objects.

    Returns:
        One frame for each frame, in order, of the same kind and dtype, clamped to its range: (s * H, s * W, 3) or
        (3, s * H, s * W) with the model's scale s.

    Raises:
        ShapeError: a frame is not of the shape, size or dtype described above.
        ConfigError: an option is out of its range, or one that the model cannot follow.
        ModelError: the model cannot be found or read.
        OutputError: the trace cannot be written.
    """
    compute, stream = compute or ComputeOptions(), stream or StreamOptions()
    check_keywords("upscale_frames", options, compute, stream)
    compute, stream = or_auto(with_shorthands(compute, options)), with_shorthands(stream, options)
    if isinstance(model, str | Path):
        model = load_any_model(model, device=compute.torch_device)
    upscaler = Upscaler(model, compute, stream)
    if trace is not None:
        upscaler.check_traceable()
    writer = TraceWriter(trace) if isinstance(trace, str | Path) else None
    return _results(frames, upscaler, trace if writer is None else writer, writer)  # pyright: ignore[reportArgumentType]


def _results(
    frames: Iterable[AnyFrame], upscaler: Upscaler, trace: Trace | None, writer: TraceWriter | None
) -> Iterator[AnyFrame]:
    kinds: deque[AnyFrame] = deque()

    def tensors() -> Iterator[Tensor]:
        for frame in frames:
            tensor = to_tensor(frame)
            kinds.append(_empty_like(frame))
            # Whoever makes the frames may use their memory again for the next.
            yield tensor.clone() if tensor is frame else tensor

    with writer or nullcontext():
        for result in upscaler.stream(tensors(), trace):
            yield from_tensor(result, like=kinds.popleft())


def to_tensor(frame: np.ndarray | Tensor) -> Tensor:
    """A frame of any accepted kind as a (3, H, W) tensor, RGB in [0, 1]; floating-point tensors come back as they are.

    Raises:
        ShapeError: another dtype or number of dimensions.
    """
    if isinstance(frame, Tensor):
        if frame.ndim != 3 or frame.shape[0] != 3 or not frame.is_floating_point():
            raise ShapeError(
                f"got a {frame.dtype} tensor {tuple(frame.shape)}; give (3, height, width), float in [0, 1]"
            )
        return _in_range(frame)
    if not isinstance(frame, np.ndarray):
        raise ShapeError(f"got a {type(frame).__name__}; frames are numpy arrays or torch tensors")
    floating = np.issubdtype(frame.dtype, np.floating)
    if frame.ndim != 3 or frame.shape[2] != 3 or not (floating or frame.dtype in _PEAK):
        raise ShapeError(
            f"got a {frame.dtype} array {frame.shape}; give (height, width, 3), uint8, uint16 or float in [0, 1]"
        )
    peak = 1 if floating else _PEAK[frame.dtype]
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).astype(np.float32)
    return _in_range(torch.from_numpy(planes).div_(peak))


def _in_range(frame: Tensor) -> Tensor:
    """The frame, unless its numbers are plainly not in [0, 1]: a little beyond it is what filters leave."""
    if frame.numel() and frame.max() > _MOST:
        raise ShapeError(f"a frame has values up to {frame.max().item():g}; floating-point frames are in [0, 1]")
    return frame


def _empty_like(frame: AnyFrame) -> AnyFrame:
    """Only kind, dtype and device of a frame; a slice would keep all of its memory."""
    if isinstance(frame, Tensor):
        return frame.new_empty(0)
    return np.empty(0, frame.dtype)


def from_tensor(result: Tensor, like: AnyFrame) -> AnyFrame:
    """A result (3, H, W), clamped, as a frame of the kind, dtype and device of `like`."""
    result = result.clamp(0, 1)
    if isinstance(like, Tensor):
        return result.to(device=like.device, dtype=like.dtype)
    return to_array(result, like.dtype)


def to_array(result: Tensor, dtype: np.dtype) -> np.ndarray:
    """A result (3, H, W) as an array (H, W, 3), clamped; rounded to the full range of an integer dtype."""
    return scaled(result, dtype).cpu().numpy().astype(dtype, copy=False)


def scaled(result: Tensor, dtype: np.dtype) -> Tensor:
    """The numbers of `to_array`, where the result is: (H, W, 3), uint8, int32 for uint16, or floating point."""
    result = result.clamp(0, 1).permute(1, 2, 0)
    if dtype not in _PEAK:
        return result.contiguous()
    return (result * _PEAK[dtype]).round_().to(torch.uint8 if dtype == np.uint8 else torch.int32).contiguous()
