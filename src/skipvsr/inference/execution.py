"""Which execution runs the residual blocks on a device: our kernels on a GPU where they work, tiles through torch elsewhere."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from skipvsr.inference import masked, tiled
from skipvsr.inference.graphs import StepGraphs
from skipvsr.inference.kernel_network import KernelNetwork, warp_by_kernel
from skipvsr.inference.remembered import recall
from skipvsr.inference.routed import RunBlocks
from skipvsr.inference.triton_blocks import LaunchSettings, TritonBlocks
from skipvsr.models.blocks import ResidualBlock
from skipvsr.models.flow import warp
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import ByDepth

_LOG = logging.getLogger("skipvsr")
# Types that the kernels know, each with the relative error up to which their results are right: of sums in fp32 over operands
# that are rounded, and of one rounding more between the two convolutions.
_TOLERANCES = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}
# A program holds that many sums for each of its pixels.
_MOST_CHANNELS = 128


def choose_execution(
    device: torch.device,
    dtype: torch.dtype,
    channels: int,
    patch_batch_size: int | None = None,
    graphs: StepGraphs | None = None,
) -> RunBlocks:
    """How blocks of a width are run in a type on a device.

    On a GPU these are the kernels of `triton_blocks`, launched as was measured to be fastest on this machine where
    `skipvsr benchmark` did so. Where they cannot be used, a note in the log says why, once, and tiles run through torch.

    Args:
        device, dtype: of the state.
        channels: C.
        patch_batch_size: for `tiled.run_blocks`, where it is used.
        graphs: for the kernels.
    """
    if device.type == "cuda":  # NVIDIA's, and AMD's under the same name
        reason = why_no_kernels(device, dtype, channels)
        if reason is None:
            return replace(remembered_kernels(device, dtype, channels), graphs=graphs)
        _note(reason)
    return partial(tiled.run_blocks, patch_batch_size=patch_batch_size) if patch_batch_size else tiled.run_blocks


def remembered_kernels(device: torch.device, dtype: torch.dtype, channels: int) -> TritonBlocks:
    """The kernels as they were fastest here, or as they are by default where nobody measured."""
    known = recall("kernels", kernel_key(device, dtype, channels))
    try:
        if known:
            return TritonBlocks(known["dense_ratio"], known["whole"], LaunchSettings(**known["settings"]))
    except (KeyError, TypeError):
        pass  # of another version
    return TritonBlocks()


def kernel_network(model: SkipVSR) -> KernelNetwork | None:
    """The network with our kernels, on a GPU where they can be used; None elsewhere.

    Blocks run through them even where every block runs everywhere if `skipvsr benchmark` found that faster.
    """
    weights, channels = next(model.parameters()), model.config.channels
    if weights.device.type != "cuda" or why_no_kernels(weights.device, weights.dtype, channels) is not None:
        return None
    known = remembered_kernels(weights.device, weights.dtype, channels)
    return KernelNetwork(model, known if known.whole else None)


def kernel_key(device: torch.device, dtype: torch.dtype, channels: int) -> dict[str, object]:
    """Under which `inference.remembered` keeps how the kernels are fastest."""
    return {"device": device.type, "dtype": str(dtype), "channels": channels}


@lru_cache
def why_no_kernels(device: torch.device, dtype: torch.dtype, channels: int) -> str | None:
    """Why the kernels cannot run blocks of this width in a type on a device; None: they can.

    They are compiled and tried on a small frame, once in a process: what torch computes on the CPU is what they must give.
    Whatever goes wrong, a compiler that is missing, a GPU that is too old, or wrong numbers, costs time and no frames.
    """
    if dtype not in _TOLERANCES:
        return f"the kernels do not know {dtype}"
    if channels > _MOST_CHANNELS:
        return f"the kernels are for up to {_MOST_CHANNELS} channels, and this model has {channels}"
    try:
        import triton as _  # noqa: F401 - whether it is there
    except ImportError:
        return "Triton is not installed; 'pip install triton' brings it"
    try:
        error = max(kernel_error(device, dtype, channels), warp_error(device, dtype, channels))
    except Exception as error:  # noqa: BLE001 - compilers and drivers raise what they like
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return f"Triton's kernels do not run here ({lines[-1].strip()})"
    return None if error < _TOLERANCES[dtype] else f"Triton's kernels err here by {error:.2g}"


@torch.inference_mode()
def kernel_error(device: torch.device, dtype: torch.dtype, channels: int) -> float:
    """How far the kernels are from the reference on two blocks, some tiles at rest, in relation to what the blocks add."""
    generator = torch.Generator().manual_seed(channels)
    with torch.random.fork_rng(devices=[]):
        blocks = [ResidualBlock(channels) for _ in range(2)]
    for parameter in (each for block in blocks for each in block.parameters()):
        parameter.normal_(0, 0.5 if parameter.ndim == 1 else (9 * channels) ** -0.5, generator=generator)
    blocks = [block.to(dtype) for block in blocks]
    state = torch.randn(1, channels, 13, 22, generator=generator).to(dtype)
    grid = TileGrid(13, 22, 8, 8)
    depth = torch.tensor([[[2, 0, 1], [1, 2, 2]]])
    expected, _ = masked.run_blocks([block.float() for block in blocks], state.float(), ByDepth(depth), grid)
    blocks = [block.to(device, dtype) for block in blocks]
    found, _ = TritonBlocks(dense_ratio=2.0)(blocks, state.to(device), ByDepth(depth.to(device), depth), grid)
    return _relative(found, expected, expected - state.float())


@torch.inference_mode()
def warp_error(device: torch.device, dtype: torch.dtype, channels: int) -> float:
    """How far the kernel for warping is from the reference, in relation to its result; some of it comes from outside."""
    generator = torch.Generator().manual_seed(channels)
    state = torch.randn(1, channels, 13, 22, generator=generator).to(dtype)
    flow = 3 * torch.randn(1, 2, 13, 22, generator=generator)
    expected = warp(state.float(), flow)
    return _relative(warp_by_kernel(state.to(device), flow.to(device)), expected, expected)


def _relative(found: Tensor, expected: Tensor, scale: Tensor) -> float:
    """|found - expected| / |scale|; infinite for what is not a number."""
    error = ((found.cpu().float() - expected).norm() / scale.norm()).item()
    return error if error == error else math.inf


@lru_cache
def _note(reason: str) -> None:
    _LOG.warning("blocks run through torch, with more work for the CPU: %s", reason)
