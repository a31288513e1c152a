"""What the benchmark compares: ways to run one network, each a function of a clip."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from skipvsr.benchmark.plain import PlainNetwork
from skipvsr.benchmark.spread import SpreadDepths
from skipvsr.evaluation.cost import stream_cost
from skipvsr.inference.lean import begins_lean
from skipvsr.inference.options import ComputeOptions, Precision, StreamOptions
from skipvsr.inference.precision import half_precisions
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.vsr import SkipVSR

BUDGETS = (0.6, 0.5, 0.25)


@dataclass(frozen=True)
class Contender:
    """A way to run the network.

    Args:
        name: what it is, in a few words.
        precision: in which it runs.
        run: takes a clip (T, 3, H, W) through it, and returns the ratio of the residual blocks' work that ran.
        macs: multiply-accumulates of a frame of the given height and width, with this ratio.
        step: it adds one technique to those of the step before it; other contenders stand for themselves.
        upscaler: that runs it, where it is one of ours.
    """

    name: str
    precision: str
    run: Callable[[Tensor], float]
    macs: Callable[[int, int, float], int]
    step: bool = False
    upscaler: Upscaler | None = None


def contenders(model: SkipVSR, device: str, precision: Precision, *, spread: bool = False) -> list[Contender]:
    """Plain execution first; then ours, one technique after the other; static networks; OpenVINO where it is installed.

    Args:
        model: whose weights run.
        device: "cpu", "cuda", ...
        precision: of the faster contenders.
        spread: where the model has no router, skip blocks of tiles at random.
    """
    on_gpu = torch.device(device).type == "cuda"
    # The others of half precision that there are stand beside the chosen one.
    halves: tuple[Precision, ...] = half_precisions(torch.device(device)) if on_gpu else ()
    others: list[Precision] = [half for half in halves if half != precision]
    dense = ours("one frame at a time, channels last", model, device, "fp32", step=True, tuned=False)
    found = [plain(model, device, None)]
    if precision != "fp32":
        found.append(plain(model, device, precision))
    found += [plain(model, device, half) for half in others]
    found.append(dense)
    if precision != "fp32":
        found.append(ours(f"in {precision}", model, device, precision, step=True, tuned=False))
    found += [ours(f"in {half}", model, device, half, tuned=False) for half in others]
    if on_gpu:
        found.append(_tuned(model, device, precision))
    if model.calibration is not None or spread:
        found += [ours(_of_blocks(model, budget), model, device, precision, budget, step=True) for budget in BUDGETS]
    fewer = sorted(
        {max(1, round(budget * model.config.blocks)) for budget in BUDGETS} - {model.config.blocks}, reverse=True
    )
    found += [ours(f"static, {blocks} blocks", model.shortened(blocks), device, precision) for blocks in fewer]
    if model.quantization is not None and device == "cpu" and find_spec("openvino") is not None:
        found.append(ours("OpenVINO, 8 bit", model, device, "int8"))
    return found


def _of_blocks(model: SkipVSR, budget: float) -> str:
    lean = begins_lean(model, ComputeOptions(budget=budget))
    return f"{budget:.0%} of the blocks" + (", lean parts" if lean else "")


def _tuned(model: SkipVSR, device: str, precision: Precision) -> Contender:
    """All that a GPU has beside precision: its name says what that is."""
    found = ours("through CUDA graphs", model, device, precision, step=True)
    assert found.upscaler is not None
    by_kernels = found.upscaler.blocks_by_kernels
    return replace(found, name=f"{found.name} and our kernels") if by_kernels else found


def plain(model: SkipVSR, device: str, precision: Precision | None) -> Contender:
    """Plain eager execution; in half precision by autocast around the unchanged code, as people do it."""
    network = PlainNetwork(model).to(device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision or "")
    kind = torch.device(device).type

    def run(clip: Tensor) -> float:
        with torch.inference_mode(), nullcontext() if dtype is None else torch.autocast(kind, dtype):
            network(clip[None].to(device))
        return 1.0

    name = "plain PyTorch" if dtype is None else f"plain PyTorch, autocast to {precision}"
    every_block = Upscaler(model, ComputeOptions(device=device))
    return Contender(name, precision or "fp32", run, _macs(every_block), step=dtype is None)


def ours(
    name: str,
    model: SkipVSR,
    device: str,
    precision: Precision,
    budget: float | None = None,
    *,
    step: bool = False,
    tuned: bool = True,
) -> Contender:
    """Through `Upscaler`, as files are; a budget that no router can keep to by `SpreadDepths`."""
    runtime = "openvino" if precision == "int8" else "torch"
    stream_options = StreamOptions(scene_detection=False, repeat_detection=False)
    if budget is not None and model.calibration is None:
        compute = ComputeOptions(device=device, precision=precision)
        upscaler = Upscaler(model, compute, stream_options, policy=partial(SpreadDepths, budget), tuned=tuned)
    else:
        compute = ComputeOptions(budget=budget, device=device, precision=precision, runtime=runtime)
        upscaler = Upscaler(model, compute, stream_options, tuned=tuned)

    def run(clip: Tensor) -> float:
        stream = upscaler.stream(clip)
        for _ in stream:
            pass
        return stream.tally.active_ratio if upscaler.routes else 1.0

    return Contender(name, precision, run, _macs(upscaler), step, upscaler)


def _macs(upscaler: Upscaler) -> Callable[[int, int, float], int]:
    return lambda height, width, ratio: stream_cost(upscaler, height, width).at_ratio(ratio)
