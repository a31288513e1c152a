"""Warping as a Triton kernel behind a `torch.library` operator: in one pass, without leaving the channels-last memory format.

What `skipvsr.models.flow.warp` does with zeros outside the frame. The state is read and written in its own type, the channels
of a pixel together; coordinates, weights and sums are fp32.

This module imports Triton; see `triton_kernels`.
"""

# Constants of a compilation are in capitals, as is the custom. Type checkers do not know what `triton.jit` makes of a function.
# ruff: noqa: N803
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

_BLOCK_PIXELS, _WARPS = 64, 4


@triton.jit
def _place(start, flow, side):
    """The pixel before `start + flow`, and how far behind it that lies, in [0, 1); outside the frame: -1 or `side`, and 0."""
    at = start + flow
    # What is not a number is neither; then it lies outside.
    at = tl.where((at > -1.0) & (at < side), at, tl.where(at >= side, side, -1.0))
    before = tl.floor(at)
    return before.to(tl.int32), at - before


@triton.jit(do_not_specialize=["height", "width"])
def _warp(
    source,  # (N, height, width, C)
    flow,  # (N, 2, height, width) fp32
    result,  # (N, height, width, C)
    height,
    width,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):
    area = height * width
    image = tl.program_id(1).to(tl.int64)
    source += image * area * CHANNELS
    result += image * area * CHANNELS
    flow += image * 2 * area

    pixel = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    written = pixel < area
    channel = tl.arange(0, BLOCK_CHANNELS)
    known = channel < CHANNELS
    left, right = _place((pixel % width).to(tl.float32), tl.load(flow + pixel, mask=written, other=0.0), width * 1.0)
    top, below = _place(
        (pixel // width).to(tl.float32), tl.load(flow + area + pixel, mask=written, other=0.0), height * 1.0
    )  # fmt: skip

    total = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), dtype=tl.float32)
    for corner in range(4):
        y, x = top + corner // 2, left + corner % 2
        weight = tl.where(corner // 2 == 1, below, 1.0 - below) * tl.where(corner % 2 == 1, right, 1.0 - right)
        there = written & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        places = (y * width + x)[:, None] * CHANNELS + channel[None, :]
        near = tl.load(source + places, mask=there[:, None] & known[None, :], other=0.0)
        total += weight[:, None] * near.to(tl.float32)
    places = pixel[:, None] * CHANNELS + channel[None, :]
    tl.store(result + places, total.to(result.dtype.element_ty), mask=written[:, None] & known[None, :])


@custom_op("skipvsr::warp_pixels", mutates_args=())
def warp_pixels(source: Tensor, flow: Tensor) -> Tensor:
    """Sample `source` at `x + flow(x)`, bilinearly, with zeros outside the frame.

    Args:
        source: (N, H, W, C), contiguous, fp16, bf16 or fp32.
        flow: (N, 2, H, W), contiguous, fp32, in pixels; channel 0 is x (width), channel 1 is y (height).

    Returns:
        (N, H, W, C) in the type of `source`.
    """
    _check(source, flow)
    result = torch.empty_like(source)
    count, height, width, channels = source.shape
    with torch.cuda.device_of(source):
        _warp[(triton.cdiv(height * width, _BLOCK_PIXELS), count)](
            source, flow, result, height, width,
            CHANNELS=channels, BLOCK_CHANNELS=triton.next_power_of_2(channels), BLOCK_PIXELS=_BLOCK_PIXELS,
            num_warps=_WARPS,
        )  # fmt: skip
    return result


@warp_pixels.register_fake
def _(source: Tensor, flow: Tensor) -> Tensor:
    _check(source, flow)
    return torch.empty_like(source)


def _check(source: Tensor, flow: Tensor) -> None:
    """What the kernel takes for granted."""
    count, height, width, _ = source.shape
    assert source.is_contiguous(), "the state lies pixel after pixel"
    assert flow.is_contiguous(), "the flow lies plane after plane"
    assert flow.dtype == torch.float32, flow.dtype
    assert flow.shape == (count, 2, height, width), (tuple(flow.shape), tuple(source.shape))
