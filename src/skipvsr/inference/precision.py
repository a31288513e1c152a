"""Which precision a device computes a model fastest in: a short measurement, remembered for this machine.

Half precision is twice as fast on processors that compute it (AVX512_BF16, AMX, most GPUs) and half as fast on those that
imitate it, and nothing tells them apart as surely as trying. Only precisions whose results are as good take part: 8 bit does
not. On a GPU there are two of half precision; fp16, which is finer, goes before bf16 unless that is clearly faster.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from skipvsr.inference.device import DTYPES
from skipvsr.inference.options import AUTO, ComputeOptions, Precision
from skipvsr.inference.remembered import recall, remember
from skipvsr.models.any_model import AnyModel
from skipvsr.models.blocks import ResidualBlock
from skipvsr.models.vsr import SkipVSR

# What is tried beside fp32, by the type of device, the finest first; other devices stay in fp32.
_HALVES: dict[str, tuple[Precision, ...]] = {"cpu": ("bf16",), "cuda": ("fp16", "bf16")}
# Half precision has to be faster than fp32 by this factor: less is within what such a measurement errs by.
_WORTHWHILE = 1.15
# And one of half precision than a finer one by this.
_COARSER = 1.05
# Multiply-accumulates a pixel of both trunks below which nothing is measured, because there is nothing to win.
_SMALL_MACS = 50_000
_BLOCKS, _ROUNDS = 4, 6
# Height and width of the state. On a GPU so large that it takes longer than giving it the work.
_SIZES = {"cpu": (96, 160), "cuda": (540, 960)}


def or_auto(compute: ComputeOptions) -> ComputeOptions:
    """The options with the precision "auto" where nothing was said."""
    return replace(compute, precision=AUTO) if compute.precision is None else compute


def settled(compute: ComputeOptions, model: AnyModel) -> ComputeOptions:
    """The options with what the precision "auto" means for a model, on its device: of a network in fp32 the fastest."""
    if compute.precision != AUTO:
        return compute
    if next(model.parameters()).dtype != torch.float32:
        return replace(compute, precision=None)
    if compute.runtime == "torch" and isinstance(model, SkipVSR):
        return replace(compute, precision=fastest_precision(model))
    return replace(compute, precision="fp32")


def fastest_precision(model: SkipVSR) -> Precision:
    """The precision in which the residual blocks of a model run fastest where it is: "fp32", or half precision.

    Measured in less than a second on a few blocks of the model's width, in turn, by the best of some rounds; remembered for
    this machine, so that a job that goes on later gets the same answer.

    Args:
        model: only its shape and its device count.
    """
    where = next(model.parameters()).device
    halves, config = half_precisions(where), model.config
    if not halves or 36 * config.blocks * config.channels**2 < _SMALL_MACS:
        return "fp32"
    key = {"channels": config.channels, "device": where.type, "candidates": ["fp32", *halves]}
    known = recall("precision", key) or _measured_here.get(str(key))
    for candidate in ("fp32", *halves):
        if known == candidate:
            return candidate
    chosen = fastest({half: speed_up(config.channels, half, where) for half in halves})
    remember("precision", key, chosen)
    _measured_here[str(key)] = chosen
    return chosen


def fastest(speed_ups: Mapping[Precision, float]) -> Precision:
    """What to run in, given how many times faster than fp32 each half precision is, the finest first."""
    best: Precision = "fp32"
    at_least = _WORTHWHILE
    for half, ratio in speed_ups.items():
        if ratio > at_least:
            best, at_least = half, ratio * _COARSER
    return best


def half_precisions(device: torch.device) -> tuple[Precision, ...]:
    """The half precisions that a device computes itself, the finest first."""
    halves = _HALVES.get(device.type, ())
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return tuple(half for half in halves if half != "bf16")
    return halves


# For where nothing can be remembered on disk: within a process the answer is always the same.
_measured_here: dict[str, Precision] = {}


def speed_up(channels: int, precision: Precision, device: torch.device) -> float:
    """How many times faster residual blocks of this width run in a precision than in fp32, as measured now."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        runs = [_example(channels, DTYPES[each], device) for each in ("fp32", precision)]
        rounds = [[_seconds(*run) for run in runs] for _ in range(_ROUNDS)]
    fp32, other = (min(times) for times in zip(*rounds, strict=True))
    return fp32 / other


def _example(channels: int, dtype: torch.dtype, device: torch.device) -> tuple[nn.Module, Tensor]:
    """A few residual blocks, and a state for them, as they lie in memory where a model runs."""
    blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(_BLOCKS)))
    state = torch.rand(1, channels, *_SIZES[device.type], device=device, dtype=dtype)
    blocks.to(device, dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - the stubs forget it
    return blocks, state.to(memory_format=torch.channels_last)


def _seconds(network: nn.Module, values: Tensor) -> float:
    if values.device.type == "cuda":
        torch.cuda.synchronize(values.device)
    started = time.perf_counter()
    network(values)
    if values.device.type == "cuda":
        torch.cuda.synchronize(values.device)
    return time.perf_counter() - started
