"""The whole benchmark: every way to run a network in turn, in one run, against plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skipvsr.benchmark.contenders import Contender, contenders
from skipvsr.benchmark.quick import moving_frames
from skipvsr.errors import ConfigError
from skipvsr.evaluation.clock import PartTimes, PeakMemory
from skipvsr.inference.machine import describe_machine
from skipvsr.inference.options import Precision
from skipvsr.inference.precision import fastest_precision
from skipvsr.models.vsr import SkipVSR

FRAMES, GPU_FRAMES, ROUNDS = 6, 48, 7
# Width and height of frames, for how time grows with them; and numbers of frames, of the first size.
SIZES = ((320, 180), (640, 360), (1280, 720))
LENGTHS = (6, 24)
# A GPU multiplies small matrices in less time than it takes to give it the work.
_MATRIX, _GPU_MATRIX, _TRIES = 2048, 8192, 6
# First rounds that do not count: convolutions are prepared, and on a GPU kernels compiled and graphs recorded.
_WARM, _GPU_WARM = 1, 2


@dataclass(frozen=True)
class Row:
    """What was measured of a contender.

    Args:
        name, precision, step: of the `Contender`.
        active_ratio: of the residual blocks' work that ran.
        gmacs: 1e9 multiply-accumulates a frame.
        seconds: a frame: lower quartile, median and upper quartile of the rounds.
        speed_up: how many times faster than the first contender, the median over rounds of the ratio within a round.
        share_of_peak: of the machine's arithmetic in this precision, as measured; None for what has no such measure.
        peak_bytes: the largest memory of the process (of the GPU) while it ran.
        parts: seconds a frame of flow, trunks, router and reconstruction, for ours.
    """

    name: str
    precision: str
    step: bool
    active_ratio: float
    gmacs: float
    seconds: tuple[float, float, float]
    speed_up: float
    share_of_peak: float | None
    peak_bytes: int
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Growth:
    """Seconds a frame with every block (and a quarter of them, where there is a router) for one size and length."""

    width: int
    height: int
    frames: int
    seconds: dict[str, float]
    peak_bytes: int


@dataclass(frozen=True)
class Benchmark:
    """All that `skipvsr benchmark` found.

    Args:
        machine: its description.
        device: on which everything ran.
        width, height, frames, rounds: of the clip, and how often each contender ran on it.
        gflops: arithmetic of the machine by precision: 1e9 multiplications and additions a second of a large matrix product.
        rows: of each contender; the first is plain PyTorch.
        growth: with size and length.
    """

    machine: dict[str, Any]
    device: str
    width: int
    height: int
    frames: int
    rounds: int
    gflops: dict[str, float]
    rows: tuple[Row, ...]
    growth: tuple[Growth, ...]


def benchmark(
    model: SkipVSR,
    *,
    precision: Precision = "auto",
    width: int = SIZES[0][0],
    height: int = SIZES[0][1],
    frames: int = FRAMES,
    rounds: int = ROUNDS,
    sizes: Sequence[tuple[int, int]] = SIZES,
    spread: bool = False,
    on_progress: Callable[[float], object] | None = None,
) -> Benchmark:
    """Run everything in turn, on frames that are always the same.

    Every round takes all contenders one after the other, so that whatever else the machine does slows all of them. A first
    round, in which convolutions are prepared, does not count; on a GPU two of them.

    Args:
        model: on the device that is measured.
        precision: of the faster contenders; "auto": the fastest here.
        width, height, frames: of the clip.
        rounds: that count.
        sizes: width and height of the frames with which growth is measured; none: it is not.
        spread: where the model has no router, skip blocks of tiles at random.
        on_progress: called with how much is done, from 0 to 1.

    Raises:
        ConfigError: the precision is "int8", which is a contender of its own, or the device has none of it.
    """
    check_precision(precision)
    device = str(next(model.parameters()).device)
    chosen = fastest_precision(model) if precision == "auto" else precision
    runs = contenders(model, device, chosen, spread=spread)
    warm = _GPU_WARM if device.startswith("cuda") else _WARM
    clip = torch.stack(list(moving_frames(height, width, frames)))
    tell = on_progress or (lambda done: None)
    seconds = np.zeros((warm + rounds, len(runs)))
    ratios, peaks = [1.0] * len(runs), [0] * len(runs)
    for number in range(warm + rounds):
        for index, contender in enumerate(runs):
            memory = PeakMemory(torch.device(device))
            seconds[number, index], ratios[index] = timed(contender, clip, device)
            peaks[index] = max(peaks[index], memory.look())
            tell(0.7 * (number * len(runs) + index + 1) / seconds.size)
    precisions = dict.fromkeys(run.precision for run in runs if run.precision != "int8")
    gflops = {each: peak_gflops(each, device) for each in precisions}
    per_frame = seconds[warm:].T / frames
    rows: list[Row] = []
    for index, contender in enumerate(runs):
        found = row(contender, per_frame[index], per_frame[0], ratios[index], (height, width), gflops, peaks[index])
        rows.append(with_parts(found, contender, clip))
    growth = measure_growth(runs, device, sizes, frames, tell)
    tell(1.0)
    return Benchmark(describe_machine(), device, width, height, frames, rounds, gflops, tuple(rows), growth)


def check_precision(precision: Precision | None) -> None:
    """Raise ConfigError for 8 bit, which does not run where the other precisions do."""
    if precision == "int8":
        raise ConfigError(
            "the benchmark runs 8 bit as a row of its own, in OpenVINO, where that is installed and the model has a table of "
            "ranges; choose auto, fp32, bf16 or fp16"
        )


def row(
    contender: Contender,
    seconds: np.ndarray,
    first: np.ndarray,
    ratio: float,
    size: tuple[int, int],
    gflops: dict[str, float],
    peak_bytes: int,
) -> Row:
    """A contender's row from the seconds a frame of each round, its own and those of the first contender."""
    macs = contender.macs(*size, ratio)
    low, middle, high = np.percentile(seconds, (25, 50, 75)).tolist()
    peak = gflops.get(contender.precision)
    share = None if peak is None else 2 * macs / middle / (1e9 * peak)
    speed_up = float(np.median(first / seconds))
    return Row(
        contender.name, contender.precision, contender.step, ratio, macs / 1e9, (low, middle, high), speed_up, share, peak_bytes
    )  # fmt: skip


def timed(contender: Contender, clip: Tensor, device: str) -> tuple[float, float]:
    """Seconds of the whole clip, and the ratio that ran."""
    wait_for(device)
    started = time.perf_counter()
    ratio = contender.run(clip)
    wait_for(device)
    return time.perf_counter() - started, ratio


def wait_for(device: str) -> None:
    """Until a GPU has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def with_parts(found: Row, contender: Contender, clip: Tensor) -> Row:
    """The row with the time of each part, where the contender is ours and runs in torch."""
    upscaler = contender.upscaler
    if upscaler is None or upscaler.compute.runtime != "torch":
        return found
    parts = PartTimes(upscaler.device)
    for _ in upscaler.stream(clip, instrument=parts):
        pass
    of_part = {name: values["median"] for name, values in parts.seconds_per_frame(len(clip)).items()}
    return Row(**{**vars(found), "parts": of_part})


def measure_growth(
    runs: Sequence[Contender],
    device: str,
    sizes: Sequence[tuple[int, int]],
    frames: int,
    tell: Callable[[float], object],
) -> tuple[Growth, ...]:
    """Seconds a frame of the last dense contender of ours and of the least budget, by size, and by length at the first size."""
    steps = [(each, each.upscaler.routes) for each in runs if each.step and each.upscaler is not None]
    measured = [next(each for each, routes in reversed(steps) if not routes)]
    measured += [each for each, routes in steps if routes][-1:]
    cases = [(*size, frames) for size in sizes] + [
        (*sizes[0], length) for length in LENGTHS if sizes and length != frames
    ]
    found: list[Growth] = []
    for number, (width, height, length) in enumerate(cases):
        clip = torch.stack(list(moving_frames(height, width, length)))
        memory = PeakMemory(torch.device(device))
        seconds = {each.name: timed(each, clip, device)[0] / length for each in measured}
        found.append(Growth(width, height, length, seconds, memory.look()))
        tell(0.7 + 0.3 * (number + 1) / len(cases))
    return tuple(found)


def peak_gflops(precision: str, device: str) -> float:
    """1e9 multiplications and additions a second of a product of two large matrices: the best of a few."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    side = _GPU_MATRIX if device.startswith("cuda") else _MATRIX
    one = torch.rand(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_TRIES):
        wait_for(device)
        started = time.perf_counter()
        torch.mm(one, one)
        wait_for(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best / 1e9
