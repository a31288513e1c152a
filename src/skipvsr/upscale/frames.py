"""`upscale_frames`: any iterator of frames in, an iterator of frames four times larger out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.errors import ShapeError
from skipvsr.inference.options import Dial, Tiling
from skipvsr.inference.patched import PATCH_BATCH_SIZE
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.inference.streaming import DEFAULT_LOOKAHEAD, Windows, default_window, upscale_stream
from skipvsr.models.vsr import SkipVSR, check_clip
from skipvsr.routing.trace import Tally, Trace, Traces
from skipvsr.upscale.scenes import SceneCuts

AnyFrame = TypeVar("AnyFrame", np.ndarray, Tensor)

_MOST = 8.0
_PEAK = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def upscale_frames(
    frames: Iterable[AnyFrame],
    model: SkipVSR | str | Path = "compact",
    *,
    window: int | None = None,
    lookahead: int = DEFAULT_LOOKAHEAD,
    scene_cuts: bool = True,
    threshold: float | None = None,
    budget: float | None = None,
    tiling: Tiling = "frame",
    patch_batch_size: int = PATCH_BATCH_SIZE,
    trace: Trace | None = None,
) -> Iterator[AnyFrame]:
    """Super-resolve a stream of frames x4, of any length, in fixed memory. Settings are checked at once.

    Args:
        frames: numpy arrays (H, W, 3), RGB, uint8 or uint16 over their full range or floating point in [0, 1]; or torch
            tensors (3, H, W), RGB in [0, 1]. All of one size, each side at least 16 pixels. Taken as they are needed.
        model: a model, used where it is and in its dtype; or what `load_model` takes.
        window: frames per window; None: by `default_window`.
        lookahead: frames beyond a window from which the backward recurrence starts.
        scene_cuts: find scene cuts, and let nothing cross them.
        threshold: blocks run where the model's router expects more than this of them; 0 runs everything.
        budget: ratio of the residual blocks' work that may run, in (0, 1]; give this or a threshold, or neither.
        tiling: "frame", or "patch": the paper's isolated patches of 48 pixels.
        patch_batch_size: patches at once.
        trace: what ran is added to it (`skipvsr.routing.trace`).

    Returns:
        One frame for each frame, in order, of the same kind and dtype, clamped to its range: (4H, 4W, 3) or (3, 4H, 4W).

    Raises:
        ShapeError: a frame is not of the shape, size or dtype described above.
        ConfigError: window under 1, lookahead under 0, or a threshold or budget that is out of range or that the model
            cannot follow.
        ModelError: the model cannot be found or read.
    """
    network = model if isinstance(model, SkipVSR) else load_model(model)
    dial = Dial(threshold, budget, tiling=tiling, patch_batch_size=patch_batch_size)
    tally = Tally()
    traces = Traces((tally,) if trace is None else (tally, trace))
    routed = dial.turn(network, traces, trace_all=trace is not None)
    Windows(1 if window is None else window, lookahead)
    return _results(frames, network, window, lookahead, SceneCuts() if scene_cuts else None, dial, routed, tally)


def _results(
    frames: Iterable[AnyFrame],
    network: SkipVSR,
    window: int | None,
    lookahead: int,
    starts_scene: SceneCuts | None,
    dial: Dial,
    routed: RoutedTrunks | None,
    tally: Tally,
) -> Iterator[AnyFrame]:
    kinds: deque[AnyFrame] = deque()

    def tensors() -> Iterator[Tensor]:
        for frame in frames:
            tensor = to_tensor(frame)
            kinds.append(_empty_like(frame))
            # Whoever makes the frames may use their memory again for the next.
            yield tensor.clone() if tensor is frame else tensor

    stream = tensors()
    first = next(stream, None)
    if first is None:
        return
    check_clip(first[None, None])
    if window is None:
        window = default_window(network.config, first.shape[-2], first.shape[-1])
    stream = chain((first,), stream)
    windows = Windows(window, lookahead)
    recurrence = dial.around(network, first.shape[-2], first.shape[-1])
    controller = dial.controller(network, routed, window, tally)
    for result in upscale_stream(stream, recurrence, windows, starts_scene=starts_scene, routed=routed):
        if controller is not None:
            controller.frame_done(0.0)  # only budgets here, which do not look at the time
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
    """Only kind, dtype and device of a frame; a slice would keep the whole picture."""
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
    result = result.clamp(0, 1).permute(1, 2, 0)
    if dtype not in _PEAK:
        return result.contiguous().cpu().numpy().astype(dtype)
    scaled = (result * _PEAK[dtype]).round_()
    integers = scaled.to(torch.uint8 if dtype == np.uint8 else torch.int32).contiguous()
    return integers.cpu().numpy().astype(dtype, copy=False)
