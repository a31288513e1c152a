"""Execution on active tiles equals the masked reference, and with everything active the plain network."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from skipvsr.inference import masked, tiled
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.inference.tiled import DENSE_RATIO
from skipvsr.models.blocks import ResidualBlock
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import GradientRank, RandomBlocks, all_blocks
from skipvsr.routing.trace import RoutingTrace
from tests.conftest import make_network


def make_blocks(channels: int, count: int) -> list[ResidualBlock]:
    """Blocks with residuals and biases large enough that mistakes at borders show."""
    torch.manual_seed(channels + count)
    blocks = [ResidualBlock(channels) for _ in range(count)]
    for block in blocks:
        for conv in (block.conv1, block.conv2):
            torch.nn.init.normal_(conv.weight, std=0.15)
            assert conv.bias is not None
            torch.nn.init.normal_(conv.bias, std=0.5)
    return blocks


@given(
    height=st.integers(3, 50),
    width=st.integers(3, 50),
    tile_px=st.integers(1, 60),
    batch=st.integers(1, 2),
    ratio=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 9),
    patch_batch_size=st.sampled_from([None, 1, 3, 16]),
    dense_ratio=st.sampled_from([0.0, 0.5, DENSE_RATIO, 2.0]),
)
@settings(max_examples=100)
def test_tiles_equal_the_masked_reference(
    height: int, width: int, tile_px: int, batch: int, ratio: float, dtype: torch.dtype, seed: int,
    patch_batch_size: int | None, dense_ratio: float,
):  # fmt: skip
    blocks = [block.to(dtype) for block in make_blocks(4, 4)]
    torch.manual_seed(seed)
    state = torch.randn(batch, 4, height, width, dtype=dtype)
    grid = TileGrid.of(height, width, tile_px)
    # The second block runs nearly everywhere: whole frames and tiles take turns.
    ratios = torch.tensor([ratio, (ratio + 1) / 2, ratio, ratio]).view(-1, 1, 1, 1)
    chosen = torch.rand(4, batch, grid.rows, grid.columns) < ratios
    before = state.clone()
    with torch.inference_mode():
        expected, masks = masked.run_blocks(blocks, state, lambda block, _: chosen[block], grid)
        found, same = tiled.run_blocks(
            blocks,
            state,
            lambda block, _: chosen[block],
            grid,
            patch_batch_size=patch_batch_size,
            dense_ratio=dense_ratio,
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(masks, chosen)
    assert torch.equal(same, chosen)
    assert torch.equal(state, before)


@pytest.mark.parametrize("dense_ratio", [DENSE_RATIO, 2.0])
@pytest.mark.parametrize("channels_last", [False, True])
def test_everything_active_is_the_plain_trunk(channels_last: bool, dense_ratio: float):
    blocks = make_blocks(8, 4)
    state = torch.randn(1, 8, 45, 70)
    if channels_last:
        state = state.contiguous(memory_format=torch.channels_last)
    plain = state
    grid = TileGrid.of(45, 70, 16)
    active = torch.ones(1, grid.rows, grid.columns, dtype=torch.bool)
    with torch.inference_mode():
        for block in blocks:
            plain = block(plain)
        found, _ = tiled.run_blocks(blocks, state, lambda *_: active, grid, dense_ratio=dense_ratio)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


def test_decisions_see_the_state_that_enters_the_block():
    blocks = make_blocks(4, 3)
    state, grid = torch.randn(1, 4, 20, 20), TileGrid.of(20, 20, 7)
    seen: dict[str, list[Tensor]] = {"masked": [], "tiled": []}
    with torch.inference_mode():
        for name, run in (("masked", masked.run_blocks), ("tiled", tiled.run_blocks)):
            torch.manual_seed(2)

            def decide(block: int, state: Tensor, name: str = name) -> Tensor:
                seen[name].append(state.clone())
                return torch.rand(1, grid.rows, grid.columns) < 0.5

            run(blocks, state, decide, grid)
    assert len(seen["tiled"]) == 3
    for one, two in zip(seen["masked"], seen["tiled"], strict=True):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


def clip(network: SkipVSR, routed: RoutedTrunks | None, frames: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(frames, routed)


def test_the_network_with_everything_active():
    network = make_network(VSRConfig(8, 3, "light", "light"))
    frames = torch.rand(1, 4, 3, 33, 50)
    trace = RoutingTrace()
    found = clip(network, RoutedTrunks(all_blocks, 16, trace=trace), frames)
    torch.testing.assert_close(found, network(frames), atol=1e-5, rtol=1e-5)
    assert trace.active_ratio == 1
    assert len(trace.trunks) == 8


def test_the_network_with_tiles_and_with_masks():
    network = make_network(VSRConfig(8, 3, "light", "light"))
    frames = torch.rand(1, 4, 3, 33, 50)
    results = [
        clip(network, RoutedTrunks(RandomBlocks(0.5, torch.Generator().manual_seed(4)), 12, execute), frames)
        for execute in (masked.run_blocks, tiled.run_blocks)
    ]
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)
    assert (results[0] - network(frames)).abs().max() > 1e-4


def test_masks_let_gradients_through():
    """Blocks that ran learn, and so does what came before them."""
    blocks = make_blocks(4, 2)
    state = torch.randn(1, 4, 12, 12, requires_grad=True)
    grid = TileGrid.of(12, 12, 6)
    chosen = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    chosen[1, 0, 0, 0] = True
    result, _ = masked.run_blocks(blocks, state, lambda block, _: chosen[block], grid)
    result.sum().backward()
    assert state.grad is not None
    assert (state.grad[..., 8:, 8:] == 1).all()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in blocks[0].parameters())
    assert blocks[1].conv2.weight.grad is not None
    assert blocks[1].conv2.weight.grad.any()


def test_the_trace_and_torchs_counter_agree():
    """Torch counts what tiles compute; without their halo (tiles as large as the frame) it is what the trace counts."""
    network = make_network(VSRConfig(8, 4, "light", "light"))
    frames = torch.rand(1, 3, 3, 24, 32)
    tiles_only = partial(tiled.run_blocks, dense_ratio=2.0)
    counts = []
    for ratio in (0.25, 1.0):
        trace = RoutingTrace()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(frames, RoutedTrunks(GradientRank(ratio), 8, tiles_only, trace))
        counts.append((counter.get_total_flops() // 2, trace))
    # Tiles of 8 px: conv1 on 10 x 10, conv2 on 8 x 8.
    halo = (10 * 10 + 8 * 8) / (2 * 8 * 8)
    ran = [sum(trunk.macs(8) for trunk in trace.trunks) for _, trace in counts]
    assert counts[1][0] - counts[0][0] == pytest.approx((ran[1] - ran[0]) * halo)
    assert ran[1] == 6 * 4 * 2 * 9 * 8 * 8 * 24 * 32
