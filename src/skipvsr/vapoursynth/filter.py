"""`upscale`: a clip of VapourSynth in, a larger clip out."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from skipvsr.checkpoints.load import load_any_model
from skipvsr.errors import ConfigError, ShapeError
from skipvsr.inference.options import (
    ComputeOptions,
    StreamOptions,
    StreamShorthands,
    check_keywords,
    with_shorthands,
)
from skipvsr.inference.precision import or_auto
from skipvsr.inference.seek import DEFAULT_WARMUP, Input, SeekableStream
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.vapoursynth.colours import from_rgb, to_rgb
from skipvsr.vapoursynth.package import vs

_SMALLEST_PX = 16


def upscale(
    clip: vs.VideoNode,
    model: AnyModel | str | Path = "compact",
    *,
    compute: ComputeOptions | None = None,
    stream: StreamOptions | None = None,
    warmup: int = DEFAULT_WARMUP,
    **options: Unpack[StreamShorthands],
) -> vs.VideoNode:
    """Super-resolve a clip. Options are checked, and the model is loaded, at once; frames are computed as they are asked for.

    Frames that are asked for in order are those of `upscale_frames`. After a jump, backwards or far ahead, the recurrence
    starts anew where the scene starts, or `warmup` frames earlier. Scenes start where the properties `_SceneChangePrev` and
    `_SceneChangeNext` say; where a clip has neither, cuts are looked for.

    Args:
        clip: of a constant format and size: RGB, YUV or grey, integer or floating point; each side at least 16 pixels. Of a
            frame without the properties `_Matrix` and `_Range`: BT.601 up to 576 lines and 1,024 columns, BT.709 above, and
            limited range; for RGB full range.
        model: a model, or what `load_model` takes.
        compute, stream: the options; None: their defaults.
        warmup: frames from which the state is built up after a jump within a scene.
        options: single fields of the two options, such as `budget=0.5`, which go before those of the objects.

    Returns:
        A clip of the same format and length, larger by the model's scale. Frames keep their properties, and say which matrix
        they were given where the source does not.

    Raises:
        ShapeError: the clip's format or size changes, or it is too small.
        ConfigError: an option is out of its range, or one that the model cannot follow; a target frame rate;
            a negative warm-up.
        ModelError: the model cannot be found or read.
        vapoursynth.Error: while frames are computed, with the message of what went wrong: also for an interlaced frame.
    """
    compute, stream = compute or ComputeOptions(), stream or StreamOptions()
    check_keywords("upscale", options, compute, stream)
    compute, stream = or_auto(with_shorthands(compute, options)), with_shorthands(stream, options)
    if compute.target_fps is not None:
        raise ConfigError(
            "a filter has no target frame rate, because its frames must not depend on when they are asked for; give a budget"
        )
    _check(clip)
    if isinstance(model, str | Path):
        model = load_any_model(model, device=compute.torch_device)
    rgb = to_rgb(clip)
    return from_rgb(_Filter(rgb, Upscaler(model, compute, stream), warmup).clip(), rgb, clip)


def _check(clip: vs.VideoNode) -> None:
    if clip.format is None or clip.format.id == vs.NONE or not clip.width or not clip.height:
        raise ShapeError("the clip changes its format or size; give one that does not (core.resize makes one)")
    if min(clip.width, clip.height) < _SMALLEST_PX:
        raise ShapeError(f"the clip is {clip.width}x{clip.height}; each side must be at least {_SMALLEST_PX} pixels")


class _Filter:
    """Feeds a `SeekableStream` with the frames of a clip, and makes frames of its results.

    The network runs in one thread of its own: each of VapourSynth's threads would otherwise bring up a set of torch's. It
    never asks VapourSynth for a frame, so that it cannot hold up the threads that make them.
    """

    def __init__(self, rgb: vs.VideoNode, upscaler: Upscaler, warmup: int) -> None:
        self._rgb, self._upscaler = rgb, upscaler
        self._store: dict[int, vs.VideoFrame] = {}
        size = rgb.height, rgb.width
        windows = upscaler.windows(*size)
        # Frames ahead of the one that is asked for which its result may take.
        self._reach = windows.window + windows.lookahead
        threads = vs.core.num_threads
        self._spare = self._reach + threads
        # As many requests as there are threads may come in any order.
        self._stream = SeekableStream(upscaler, size, rgb.num_frames, self._input, warmup=warmup, held=threads + 8)
        self._thread = ThreadPoolExecutor(1, "skipvsr")
        # A frame that the network's thread lacks (None: it is done), and the word that the frame is there.
        self._asked: SimpleQueue[int | None] = SimpleQueue()
        self._answered: SimpleQueue[None] = SimpleQueue()
        # Each frame is asked for as the one ahead, and again when it is upscaled; in between it shall not be made anew.
        # Meanwhile as many others are asked for the first time as for the second.
        vs.core.std.SetVideoCache(rgb, mode=1, fixedsize=True, maxsize=2 * self._spare)

    def clip(self) -> vs.VideoNode:
        scale = self._upscaler.model.config.scale
        size = {"width": scale * self._rgb.width, "height": scale * self._rgb.height}
        blank = vs.core.std.BlankClip(self._rgb, **size, keep=True)
        # The frame that a result newly needs when frames are asked for in order is asked for with it, so that VapourSynth
        # makes those of many results at a time. Beyond the end it gives the last.
        ahead = self._rgb[min(self._reach, self._rgb.num_frames - 1) :]
        return vs.core.std.ModifyFrame(blank, [blank, self._rgb, ahead], self._frame)

    def _frame(self, n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        """VapourSynth calls this for one frame at a time, in whatever order."""
        blank, source, ahead = f
        if source.props.get("_FieldBased", 0):
            raise ConfigError(
                f"frame {n} is interlaced; deinterlace the clip first, or say that it is not: core.std.SetFieldBased(clip, 0)"
            )
        self._store[n] = source
        self._store[min(n + self._reach, self._rgb.num_frames - 1)] = ahead
        self._fetch(self._stream.inputs_for(n))
        result = self._result(n)
        # One frame before the next that is read says whether a scene ends with it.
        first, last = self._stream.read - 1, max(n, self._stream.read) + self._spare
        for number in [number for number in self._store if not first <= number <= last]:
            del self._store[number]
        return _with_pixels(blank, result, source)

    def _result(self, n: int) -> Tensor:
        """A result from the network's thread, which is given on the way what else it asks for."""
        coming = self._thread.submit(lambda: self._stream[n].clamp(0, 1).float().cpu())
        coming.add_done_callback(lambda _: self._asked.put(None))
        error: vs.Error | None = None
        while (number := self._asked.get()) is not None:
            try:
                self._fetch(range(number, min(number + self._reach, self._rgb.num_frames)))
            except vs.Error as failure:
                error = failure
            self._answered.put(None)
        if error is not None:
            raise error
        return coming.result()

    def _fetch(self, numbers: range) -> None:
        """Have these frames at hand; those that are missing are made side by side (a few of them twice)."""
        missing = [number for number in numbers if number not in self._store]
        coming: dict[int, Future[vs.VideoFrame]] = {number: self._rgb.get_frame_async(number) for number in missing[1:]}
        for number in missing:
            future = coming.get(number)
            if future is not None and future.done():
                self._store[number] = future.result()
            else:  # here, and not while a future is waited for, VapourSynth gives this thread's place in its pool to another
                self._store[number] = self._rgb.get_frame(number)

    def _input(self, number: int) -> Input:
        if number not in self._store:
            self._asked.put(number)
            self._answered.get()
        frame = self._store[number]
        planes = np.stack([np.asarray(frame[plane]) for plane in range(3)])
        return Input(torch.from_numpy(planes), self._starts_scene(number))

    def _starts_scene(self, number: int) -> bool | None:
        """What the properties say; None: nothing."""
        props, before = self._store[number].props, self._store.get(number - 1)
        said = [props.get("_SceneChangePrev"), None if before is None else before.props.get("_SceneChangeNext")]
        if any(said):
            return True
        return None if said == [None, None] and "_SceneChangeNext" not in props else False


def _with_pixels(blank: vs.VideoFrame, pixels: Tensor, source: vs.VideoFrame) -> vs.VideoFrame:
    """A frame with pixels (3, H, W) and the properties of another."""
    frame = blank.copy()
    for plane in range(3):
        np.copyto(np.asarray(frame[plane]), pixels[plane].numpy())
    frame.props.clear()
    for name, value in source.props.items():
        frame.props[name] = value
    return frame
