"""A residual block on the active tiles of a frame, as two Triton kernels behind two `torch.library` operators.

    convolve_tiles    hidden = ReLU(conv1(state))    for each active tile with one pixel around it, into scratch
    add_tiles         state += conv2(hidden)         for the pixels of each active tile, in place

The state lies in device memory pixel after pixel, its channels together: (N, H, W, C). Every tile of the first launch has read
the state before the second one writes to it, so that neighbours see what was there before the block. A tile's scratch is its
own; where active tiles meet, both compute the pixels at their border, and nobody has to know who his neighbours are.

Which tiles are active is read from device memory: `order` lists tiles, and the first `counts[block]` of them are active. The
host may launch for more tiles than that (it need not know how many there are): the programs beyond return at once.

Both kernels are the same matrix product, nine times: so many pixels of a tile, times C channels of one of the nine
neighbours of each, times (C, C) weights. Operands keep their type (fp16, bf16 or fp32), sums are fp32. Pixels are numbered
within the tile, row after row; that costs no more than one part-filled program for each tile, whatever the tile's size.

Outside the frame the state is zero, and so is the hidden feature: that is what padding means to the second convolution.
ReLU(bias) would be wrong there.

This module imports Triton. With TRITON_INTERPRET=1 in the environment before that, the kernels run on CPU tensors.
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


@triton.jit
def _tile_of_program(order, height, width, tile_height, tile_width, parts):
    """Where this program works: the place of its tile in the list, the part of the tile, the image, and the tile's first pixel.

    Programs of one tile come one after the other, because they read the same pixels.
    """
    place = tl.program_id(0) // parts
    part = tl.program_id(0) % parts
    tile = tl.load(order + place)
    columns = (width + tile_width - 1) // tile_width
    rows = (height + tile_height - 1) // tile_height
    image = (tile // (rows * columns)).to(tl.int64)
    top = tile // columns % rows * tile_height
    left = tile % columns * tile_width
    return place.to(tl.int64), part, image, top, left


@triton.jit
def _add_product(
    total,
    near,
    weight,
    tap,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FP32: tl.constexpr,
):
    """total + near * W: pixels' neighbours (pixels, in) times the weights (in, out) of one of the nine taps.

    `weight` lies as (out, tap, in), which is how the channels-last weights of a convolution lie.
    """
    channel = tl.arange(0, BLOCK_CHANNELS)
    known = channel < CHANNELS
    places = channel[None, :] * (9 * CHANNELS) + tap * CHANNELS + channel[:, None]
    weights = tl.load(weight + places, mask=known[None, :] & known[:, None], other=0.0)
    if AS_FP32:
        near, weights = near.to(tl.float32), weights.to(tl.float32)
    return tl.dot(near, weights, total, input_precision=PRECISION)


@triton.jit(do_not_specialize=["block", "height", "width", "tile_height", "tile_width", "parts"])
def _convolve_tiles(
    state,  # (N, height, width, C)
    weight,  # (C, 9, C): out, tap, in
    bias,  # (C,)
    order,  # (N * tiles,) int32
    counts,  # (blocks,) int32
    hidden,  # (N * tiles, tile_height + 2, tile_width + 2, C), by place in `order`
    block,
    height,
    width,
    tile_height,
    tile_width,
    parts,  # programs for each tile
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,  # CHANNELS up to a power of two, as products of matrices need it
    BLOCK_PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,  # of products of fp32
    AS_FP32: tl.constexpr,  # make operands fp32
):
    active = tl.load(counts + block)
    if tl.program_id(0) >= active * parts:
        return
    place, part, image, top, left = _tile_of_program(order, height, width, tile_height, tile_width, parts)
    state += image * height * width * CHANNELS
    hidden += place * (tile_height + 2) * (tile_width + 2) * CHANNELS

    pixel = part * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    written = pixel < (tile_height + 2) * (tile_width + 2)
    y = top - 1 + pixel // (tile_width + 2)
    x = left - 1 + pixel % (tile_width + 2)
    in_frame = written & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    channel = tl.arange(0, BLOCK_CHANNELS)
    known = channel < CHANNELS

    total = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), dtype=tl.float32)
    for tap in range(9):
        near_y, near_x = y + tap // 3 - 1, x + tap % 3 - 1
        there = in_frame & (near_y >= 0) & (near_y < height) & (near_x >= 0) & (near_x < width)
        places = (near_y * width + near_x)[:, None] * CHANNELS + channel[None, :]
        near = tl.load(state + places, mask=there[:, None] & known[None, :], other=0.0)
        total = _add_product(total, near, weight, tap, CHANNELS, BLOCK_CHANNELS, PRECISION, AS_FP32)
    total += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    total = tl.where(in_frame[:, None], tl.maximum(total, 0.0), 0.0)
    places = pixel[:, None] * CHANNELS + channel[None, :]
    tl.store(hidden + places, total.to(hidden.dtype.element_ty), mask=written[:, None] & known[None, :])


@triton.jit(do_not_specialize=["block", "height", "width", "tile_height", "tile_width", "parts"])
def _add_tiles(
    hidden,  # of all arguments: as above
    weight,
    bias,
    order,
    counts,
    state,
    block,
    height,
    width,
    tile_height,
    tile_width,
    parts,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FP32: tl.constexpr,
):
    active = tl.load(counts + block)
    if tl.program_id(0) >= active * parts:
        return
    place, part, image, top, left = _tile_of_program(order, height, width, tile_height, tile_width, parts)
    state += image * height * width * CHANNELS
    hidden += place * (tile_height + 2) * (tile_width + 2) * CHANNELS

    pixel = part * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    row, column = pixel // tile_width, pixel % tile_width
    y, x = top + row, left + column
    # The last tiles of the frame may reach beyond it.
    written = (row < tile_height) & (y < height) & (x < width)
    channel = tl.arange(0, BLOCK_CHANNELS)
    known = channel < CHANNELS
    stored = written[:, None] & known[None, :]

    total = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), dtype=tl.float32)
    for tap in range(9):
        places = ((row + tap // 3) * (tile_width + 2) + column + tap % 3)[:, None] * CHANNELS + channel[None, :]
        near = tl.load(hidden + places, mask=stored, other=0.0)
        total = _add_product(total, near, weight, tap, CHANNELS, BLOCK_CHANNELS, PRECISION, AS_FP32)
    total += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    places = (y * width + x)[:, None] * CHANNELS + channel[None, :]
    total += tl.load(state + places, mask=stored, other=0.0).to(tl.float32)
    tl.store(state + places, total.to(state.dtype.element_ty), mask=stored)


INTERPRETED = not isinstance(_add_tiles, triton.JITFunction)


# Opaque operators (`custom_op`, not `triton_op`): inductor has nothing to fuse into a kernel that ends with its own store, and
# the interpreter could not be traced.
@custom_op("skipvsr::convolve_tiles", mutates_args=("hidden",))
def convolve_tiles(
    state: Tensor, weight: Tensor, bias: Tensor, order: Tensor, counts: Tensor, hidden: Tensor,
    block: int, launched: int, tile_height: int, tile_width: int, block_pixels: int, warps: int, stages: int,
) -> None:  # fmt: skip
    """hidden = ReLU(conv1(state)) on the active tiles and one pixel around each; zero outside the frame.

    Args:
        state: (N, H, W, C), contiguous, fp16, bf16 or fp32.
        weight: (C, C, 3, 3) in the same type, in channels-last memory.
        bias: (C,).
        order: (N * tiles,) int32, tiles numbered row by row in each of the N images; the active ones come first.
        counts: (blocks,) int32, how many of them are active for each block.
        hidden: (at least `launched`, tile_height + 2, tile_width + 2, C) contiguous, in the type of the state, overwritten:
            that of the tile at each place of `order`.
        block: number of the block.
        launched: tiles to launch for, at least counts[block].
        tile_height, tile_width: of the tiles, from the frame's top left corner; the last ones may reach beyond it.
        block_pixels, warps, stages: pixels of a program, and how Triton compiles it.
    """
    _check(state, weight, bias, order, counts, hidden, launched, tile_height, tile_width)
    parts = -(-(tile_height + 2) * (tile_width + 2) // block_pixels)
    with torch.cuda.device_of(state):
        _convolve_tiles[(max(launched * parts, 1),)](
            state, weight, bias, order, counts, hidden,
            block, state.shape[1], state.shape[2], tile_height, tile_width, parts,
            num_warps=warps, num_stages=stages, **_constants(state, block_pixels),
        )  # fmt: skip


@custom_op("skipvsr::add_tiles", mutates_args=("state",))
def add_tiles(
    hidden: Tensor, weight: Tensor, bias: Tensor, order: Tensor, counts: Tensor, state: Tensor,
    block: int, launched: int, tile_height: int, tile_width: int, block_pixels: int, warps: int, stages: int,
) -> None:  # fmt: skip
    """state += conv2(hidden) on the pixels of the active tiles, in place; arguments as for `convolve_tiles`."""
    _check(state, weight, bias, order, counts, hidden, launched, tile_height, tile_width)
    parts = -(-tile_height * tile_width // block_pixels)
    with torch.cuda.device_of(state):
        _add_tiles[(max(launched * parts, 1),)](
            hidden, weight, bias, order, counts, state,
            block, state.shape[1], state.shape[2], tile_height, tile_width, parts,
            num_warps=warps, num_stages=stages, **_constants(state, block_pixels),
        )  # fmt: skip


@convolve_tiles.register_fake
def _(
    state: Tensor, weight: Tensor, bias: Tensor, order: Tensor, counts: Tensor, hidden: Tensor,
    block: int, launched: int, tile_height: int, tile_width: int, block_pixels: int, warps: int, stages: int,
) -> None:  # fmt: skip
    _check(state, weight, bias, order, counts, hidden, launched, tile_height, tile_width)


@add_tiles.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor, order: Tensor, counts: Tensor, state: Tensor,
    block: int, launched: int, tile_height: int, tile_width: int, block_pixels: int, warps: int, stages: int,
) -> None:  # fmt: skip
    _check(state, weight, bias, order, counts, hidden, launched, tile_height, tile_width)


def _constants(state: Tensor, block_pixels: int) -> dict[str, object]:
    channels = state.shape[3]
    return {
        "CHANNELS": channels,
        # Matrix units want at least 16.
        "BLOCK_CHANNELS": max(16, triton.next_power_of_2(channels)),
        "BLOCK_PIXELS": block_pixels,
        # fp32 means fp32: Triton's default for it, tf32, keeps 10 bits of the operands.
        "PRECISION": "ieee" if state.dtype == torch.float32 else "tf32",
        # The interpreter's product takes bf16 for integers.
        "AS_FP32": INTERPRETED and state.dtype == torch.bfloat16,
    }


def _check(
    state: Tensor, weight: Tensor, bias: Tensor, order: Tensor, counts: Tensor, hidden: Tensor,
    launched: int, tile_height: int, tile_width: int,
) -> None:  # fmt: skip
    """What the kernels take for granted: they see pointers, and would read and write elsewhere."""
    count, height, width, channels = state.shape
    tiles = count * -(-height // tile_height) * -(-width // tile_width)
    assert state.is_contiguous(), "the state lies pixel after pixel"
    assert hidden.is_contiguous(), "and so does the hidden feature"
    assert weight.shape == (channels, channels, 3, 3), tuple(weight.shape)
    assert weight.is_contiguous(memory_format=torch.channels_last), "weights lie channels-last"
    assert weight.dtype == bias.dtype == hidden.dtype == state.dtype, (weight.dtype, hidden.dtype, state.dtype)
    assert order.dtype == counts.dtype == torch.int32, (order.dtype, counts.dtype)
    assert order.shape == (tiles,), (tuple(order.shape), tiles)
    assert launched <= tiles, f"launched for {launched} tiles of {tiles}"
    assert hidden.shape[0] >= launched, (tuple(hidden.shape), launched)
    assert hidden.shape[1:] == (tile_height + 2, tile_width + 2, channels), tuple(hidden.shape)
