"""A short measurement of the speed of a model here: a few frames, cut to what a few seconds allow, remembered afterwards."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, replace
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.checkpoints.native import fingerprint
from skipvsr.errors import SkipVSRError
from skipvsr.inference.options import StreamOptions
from skipvsr.inference.remembered import recall, remember
from skipvsr.inference.upscaler import Upscaler
from skipvsr.upscale.frames import to_array
from skipvsr.upscale.speed import Step, StepSeconds, counted_steps, encode_seconds
from skipvsr.video.frame import Frame
from skipvsr.video.write import EncodeOptions, VideoWriter

# Frames that are run, and how many calls of each step do not count: without a neighbour, or the first of their kind.
MEASURED_FRAMES = 4
_COLD = 1
# Low-resolution pixels of a first try, that says how many more fit into the time.
_FIRST_PIXELS = 64 * 64
_MIN_SIDE_PX = 32
# Seconds for the network; a try of a whole frame is not repeated for less than so many times its pixels.
MEASURE_SECONDS = 4.0
_WORTHWHILE = 1.5
# Of the time of all threads: less used than this means that others used the processor.
_MIN_USED = 0.5
# Of the encoder's try.
_ENCODED_FRAMES = 8
_ENCODED_PIXELS = 1280 * 720

OnStep = Callable[[], object]


def measure_steps(
    upscaler: Upscaler,
    frames: Sequence[Tensor],
    pixels_out: int,
    *,
    seconds: float = MEASURE_SECONDS,
    on_step: OnStep | None = None,
) -> tuple[StepSeconds, bool]:
    """Seconds of each step for frames of this size, measured on as large a part of them as the time allows.

    Args:
        upscaler: the model and its options.
        frames: (3, H, W), RGB in [0, 1], neighbours; four of them, or fewer, which are repeated.
        pixels_out: of a frame that is written. Encoding is not measured here.
        seconds: about how long it may take.
        on_step: called after each step.

    Returns:
        They, and whether other programs took so much of the processor meanwhile that they are far too long.
    """
    load = _Load(upscaler.device)
    height, width = frames[0].shape[-2:]
    ratio = min(1.0, (_FIRST_PIXELS / (height * width)) ** 0.5)
    found, taken, area = _try(upscaler, frames, ratio, pixels_out, on_step)
    fits = (area * seconds / max(taken, 1e-6) / (height * width)) ** 0.5  # the part of each side
    if ratio < 1 and fits > ratio * _WORTHWHILE**0.5:
        found, _, _ = _try(upscaler, frames, min(1.0, fits), pixels_out, on_step)
    return found, load.busy


def steps_key(upscaler: Upscaler, height: int, width: int) -> dict[str, object]:
    """Everything on the side of the model that the time of its steps depends on."""
    parameter = next(upscaler.model.parameters())
    return {
        "model": fingerprint(upscaler.model),
        "size": [height, width],
        "device": f"{parameter.device.type}, {parameter.dtype}",
        **{name: str(value) for name, value in asdict(upscaler.compute).items() if name not in ("device", "precision")},
    }


def remembered_steps(upscaler: Upscaler, height: int, width: int, pixels_out: int) -> StepSeconds | None:
    """What was measured before of this model, size and options on this machine."""
    values = recall("speed", steps_key(upscaler, height, width))
    try:
        if values is None:
            return None
        flow, backward, forward = map(float, values)
        return StepSeconds(flow, backward, forward, encode_seconds(pixels_out))
    except (TypeError, ValueError):
        return None


def remember_steps(upscaler: Upscaler, height: int, width: int, steps: StepSeconds) -> None:
    """Keep a measurement for `remembered_steps`."""
    remember("speed", steps_key(upscaler, height, width), list(astuple(steps)[:3]))


def measure_encoding(frames: Sequence[Tensor], options: EncodeOptions, container: str) -> float:
    """Seconds an output pixel of encoding, measured once for these options and remembered.

    Args:
        frames: (3, H, W), RGB in [0, 1]; enlarged to what is encoded.
        options: the encoder.
        container: the ending of the file.
    """
    key = {"encoder": [str(value) for value in astuple(options)], "container": container}
    known = recall("encode", key)
    if isinstance(known, float):
        return known
    height, width = frames[0].shape[-2:]
    scale = min(4.0, (_ENCODED_PIXELS / (height * width)) ** 0.5)
    size = (max(16, 2 * int(scale * height / 2)), max(64, 2 * int(scale * width / 2)))
    images = [
        to_array(F.interpolate(frame[None].float(), size=size, mode="bilinear")[0], np.dtype(np.uint8))
        for frame in frames
    ]
    load = _Load(torch.device("cpu"))
    try:
        found = _encode(images, options, container) / (size[0] * size[1])
    except SkipVSRError:
        return encode_seconds(1)  # what is wrong with the options is said where they are used
    if not load.busy:
        remember("encode", key, found)
    return found


class _Load:
    """Tells whether other programs took processor time from this process since the object was made."""

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self._wall, self._used = time.perf_counter(), time.process_time()

    @property
    def busy(self) -> bool:
        wall, used = time.perf_counter() - self._wall, time.process_time() - self._used
        return self._on_cpu and used < _MIN_USED * wall * min(torch.get_num_threads(), os.cpu_count() or 1)


def _encode(images: list[np.ndarray], options: EncodeOptions, container: str) -> float:
    """Seconds a frame."""
    height, width = images[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"try{container}"
        with VideoWriter(path, width, height, options=options, frame_rate=Fraction(25)) as writer:
            started = time.perf_counter()
            for number in range(_ENCODED_FRAMES):
                writer.write(Frame(images[number % len(images)], number, None, Fraction(1, 25)))
            writer.end_segment()
            return (time.perf_counter() - started) / _ENCODED_FRAMES


def _try(
    upscaler: Upscaler, frames: Sequence[Tensor], ratio: float, pixels_out: int, on_step: OnStep | None
) -> tuple[StepSeconds, float, int]:
    """Seconds of the steps of whole frames, from the middle of them, `ratio` of each side; how long it took; its pixels."""
    height, width = frames[0].shape[-2:]
    sides = [side if ratio == 1 else _part(side, ratio) for side in (height, width)]
    top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
    parts = [
        frames[number % len(frames)][:, top : top + sides[0], left : left + sides[1]]
        for number in range(MEASURED_FRAMES)
    ]
    started = time.perf_counter()
    times, active_ratio = _times(upscaler, parts, on_step)
    taken = time.perf_counter() - started
    counted = counted_steps(upscaler, sides[0], sides[1], pixels_out, ratio=active_ratio)
    # A budget is kept to in the long run, whatever these few frames took; a threshold runs what it runs.
    whole = counted_steps(
        upscaler, height, width, pixels_out, ratio=active_ratio if upscaler.compute.threshold else None
    )
    steps = {step: median(times[step]) * whole.of(step) / counted.of(step) for step in times}
    return replace(whole, **steps, measured=True), taken, sides[0] * sides[1]


def _part(side: int, ratio: float) -> int:
    return min(side, max(_MIN_SIDE_PX, 4 * round(ratio * side / 4)))


def _times(upscaler: Upscaler, frames: list[Tensor], on_step: OnStep | None) -> tuple[dict[Step, list[float]], float]:
    """Seconds of the calls of each step, but for the first ones, and the ratio of the blocks that ran."""
    times: dict[Step, list[float]] = {"flow": [], "backward": [], "forward": []}
    device, last = upscaler.device, time.perf_counter()

    def note(step: Step) -> None:
        nonlocal last
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        times[step].append(now - last)
        last = now
        if on_step is not None:
            on_step()

    def watch(step: Literal["read", "backward"], number: int) -> None:
        note("flow" if step == "read" else step)

    one_window = StreamOptions(window=len(frames), lookahead=0, scene_detection=False, repeat_detection=False)
    timed = Upscaler(upscaler.model, upscaler.compute, one_window)
    stream = timed.stream(frames, on_step=watch)
    for _ in stream:
        note("forward")
    return {step: calls[_COLD:] for step, calls in times.items()}, stream.tally.active_ratio
