"""Tiles, policies and what is traced, against plain computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.models.flow import Warp, warp
from skipvsr.models.router import GainRouter
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import DifferenceThreshold, GainBudget, GainThreshold, backward_first, depth_within
from skipvsr.routing.policies import (
    Decide,
    FixedBlocks,
    GradientRank,
    RandomBlocks,
    TrunkStep,
    all_blocks,
    depth_by_rank,
    depth_by_shift,
    gradient_energy,
    rank_shift,
)
from skipvsr.routing.trace import RoutingTrace, TracedTrunk
from skipvsr.terms import Direction

SIDES = st.integers(1, 70)


@given(height=SIDES, width=SIDES, tile_px=st.integers(1, 80))
@settings(max_examples=60)
def test_tiles_cover_the_frame_once(height: int, width: int, tile_px: int):
    grid = TileGrid.of(height, width, tile_px)
    assert grid.tile_height <= tile_px
    assert grid.tile_width <= tile_px
    assert grid.rows == -(-height // tile_px)
    assert int(grid.pixels().sum()) == height * width
    assert int(grid.pixels().min()) >= 1
    numbers = torch.arange(grid.tiles).view(1, grid.rows, grid.columns)
    spread = grid.expand(numbers)
    assert spread.shape == (1, 1, height, width)
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
        assert spread[0, 0, y, x] == (y // grid.tile_height) * grid.columns + x // grid.tile_width
    assert torch.equal(torch.bincount(spread.flatten(), minlength=grid.tiles), grid.pixels().flatten())


@given(height=SIDES, width=SIDES, tile_px=st.integers(1, 80), cell_px=st.sampled_from([1, 2, 4]), whole=st.booleans())
@settings(max_examples=60)
def test_pooling_is_the_mean_of_a_tile(height: int, width: int, tile_px: int, cell_px: int, whole: bool):
    """Naive: every cell spread over its pixels, the last one over those beyond it, and a mean over the pixels of each tile."""
    grid = TileGrid.of(height, width, tile_px)
    # Whole cells alone, as a convolution with a stride leaves them, or one for what is left too, as sampling does.
    count = [max(1, side // cell_px if whole else -(-side // cell_px)) for side in (height, width)]
    cells = torch.from_numpy(np.random.default_rng(height * 100 + width).random((2, 3, *count)))
    rows, columns = (
        (torch.arange(side) // cell_px).clamp(max=most - 1) for side, most in zip((height, width), count, strict=True)
    )
    pixels = cells[..., rows, :][..., columns]
    found = [grid.pool(cells, cell_px), grid.pool(cells.to(memory_format=torch.channels_last), cell_px)]
    for row in {0, grid.rows - 1}:
        for column in {0, grid.columns - 1}:
            of_tile = pixels[
                ...,
                row * grid.tile_height : (row + 1) * grid.tile_height,
                column * grid.tile_width : (column + 1) * grid.tile_width,
            ]
            for pooled in found:
                torch.testing.assert_close(pooled[..., row, column], of_tile.mean(dim=(-1, -2)))


def test_a_router_looks_at_exactly_the_tile_that_it_decides_on():
    """540 rows in tiles of 24, the last of which has 12: what changes in one tile alone changes no other tile's features."""
    grid = TileGrid.of(540, 52, 24)
    assert int(grid.pixels()[-1, 0]) == 12 * 18
    frame, state, flow = torch.rand(1, 3, 540, 52), torch.rand(1, 6, 540, 52), torch.rand(1, 2, 540, 52)
    before = GainRouter.features(frame, state, flow, grid)
    for row in (0, 11, 22):
        inside = slice(row * 24, (row + 1) * 24)
        after_state, after_flow = state.clone(), flow.clone()
        after_state[..., inside, :] += 1
        after_flow[..., inside, :] += 1
        changed = (GainRouter.features(frame, after_state, after_flow, grid) - before).abs().amax(dim=(0, 1, 3)) > 1e-3
        assert changed.nonzero().flatten().tolist() == [row]


def test_a_size_that_is_no_multiple():
    grid = TileGrid.of(180, 320, 48)
    assert (grid.rows, grid.columns, grid.tile_height, grid.tile_width) == (4, 7, 45, 46)
    with pytest.raises(ConfigError, match="at least 1"):
        TileGrid.of(10, 10, 0)


def make_step(blocks: int = 6, flow: Tensor | None = None, batch: int = 2, frame: Tensor | None = None) -> TrunkStep:
    torch.manual_seed(1)
    frame = torch.rand(batch, 3, 40, 60) if frame is None else frame
    return TrunkStep("forward", frame, torch.rand(batch, 4, 40, 60), flow, TileGrid.of(40, 60, 10), blocks)


def masks_of(decide: Decide, step: TrunkStep) -> Tensor:
    return torch.stack([decide(block, step.state) for block in range(step.blocks)])


@pytest.mark.parametrize(
    ("kind", "ratio", "expected"),
    [
        ("deep", 0.5, [1, 1, 1, 0, 0, 0]),
        ("shallow", 0.5, [0, 0, 0, 1, 1, 1]),
        ("uniform", 0.5, [0, 1, 0, 1, 0, 1]),
        ("uniform", 1 / 3, [0, 1, 0, 0, 1, 0]),
        ("uniform", 1.0, [1] * 6),
        ("deep", 0.01, [1, 0, 0, 0, 0, 0]),
    ],
)
def test_fixed_blocks(kind, ratio: float, expected: list[int]):
    step = make_step()
    masks = masks_of(FixedBlocks(kind, ratio)(step), step)
    assert masks.shape == (6, 2, 4, 6)
    for mask, value in zip(masks, expected, strict=True):
        assert (mask == bool(value)).all()


def test_random_blocks_have_their_share():
    step = make_step(blocks=100)
    masks = masks_of(RandomBlocks(0.3, torch.Generator().manual_seed(0))(step), step)
    assert masks.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert 0 < masks[0].float().mean() < 1


@given(ratio=st.floats(0.02, 1.0), blocks=st.integers(1, 30), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_depth_by_rank_has_its_share_and_its_order(ratio: float, blocks: int, seed: int):
    energy = torch.from_numpy(np.random.default_rng(seed).random((2, 9, 11)))
    depth = depth_by_rank(energy, ratio, blocks)
    assert depth.float().mean().item() == pytest.approx(ratio * blocks, abs=0.2 + 0.02 * blocks)
    for one, expected in zip(energy.flatten(1), depth.flatten(1), strict=True):
        assert (expected[one.argsort()].diff() >= 0).all()


def test_gradient_rank_prefers_texture():
    frame = torch.full((1, 3, 40, 60), 0.5)
    frame[..., 30:] += 0.2 * torch.rand(1, 1, 40, 30)
    step = make_step(batch=1, frame=frame)
    energy = gradient_energy(frame, step.grid)
    assert energy[..., :3].max() < 0.5 * energy[..., 3:].min()
    masks = masks_of(GradientRank(0.5)(step), step)
    assert masks[..., 3:].float().mean() > 0.7
    assert masks[..., :3].float().mean() < 0.3


def falling_gains(seed: int, batch: int = 2, blocks: int = 6, rows: int = 4, columns: int = 6) -> Tensor:
    steps = torch.from_numpy(np.random.default_rng(seed).exponential(size=(batch, blocks, rows, columns))).float()
    return steps.flip(1).cumsum(1).flip(1)


def test_gain_threshold():
    gains = falling_gains(3)
    step = make_step()

    def router(asked: TrunkStep) -> Tensor:
        assert asked is step
        return gains

    for threshold in (0.5, 2.0, 1e9):
        masks = masks_of(GainThreshold(router, threshold)(step), step)
        assert torch.equal(masks.transpose(0, 1), gains > threshold)
    assert masks_of(GainThreshold(router, 0.0)(step), step).all()
    with pytest.raises(ConfigError, match="threshold"):
        GainThreshold(router, -0.1)
    with pytest.raises(ConfigError, match="threshold"):
        GainThreshold(router, float("nan"))


@given(ratio=st.floats(0.02, 1.0), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_a_budget_is_kept_and_spent_where_it_pays(ratio: float, seed: int):
    gains = falling_gains(seed)
    pixels = TileGrid.of(37, 60, 10).pixels()
    depth = depth_within(gains, pixels, ratio)
    spent = (depth * pixels).sum(dim=(1, 2)) / (6 * int(pixels.sum()))
    assert (spent <= ratio + 1e-6).all()
    assert (spent >= ratio - pixels.max() / (6 * pixels.sum()) - 1e-6).all()
    ran = torch.arange(6).view(1, 6, 1, 1) < depth[:, None]
    for one, mask in zip(gains, ran, strict=True):
        if 0 < mask.sum() < mask.numel():
            assert one[mask].min() >= one[~mask].max()


@given(ratios=st.lists(st.floats(0.02, 1.0), min_size=2, max_size=2), seed=st.integers(0, 99))
def test_each_frame_may_have_its_own_ratio(ratios: list[float], seed: int):
    gains, pixels = falling_gains(seed)[:2], TileGrid.of(37, 60, 10).pixels()
    together = depth_within(gains, pixels, torch.tensor(ratios, dtype=torch.float64))
    each = [depth_within(gains[i : i + 1], pixels, ratio) for i, ratio in enumerate(ratios)]
    assert torch.equal(together, torch.cat(each))
    energy = gains[:, 0]
    shifts = torch.tensor([rank_shift(energy[0].numel(), ratio, 6) for ratio in ratios])[:, None]
    each = [depth_by_rank(energy[i : i + 1], ratio, 6) for i, ratio in enumerate(ratios)]
    assert torch.equal(depth_by_shift(energy, shifts, 6), torch.cat(each))


def test_a_budget_with_equal_gains():
    depth = depth_within(torch.ones(1, 4, 2, 2), torch.ones(2, 2, dtype=torch.int64), 0.5)
    assert int(depth.sum()) == 8
    assert int(depth_within(torch.ones(1, 4, 2, 2), torch.ones(2, 2, dtype=torch.int64), 1.0).min()) == 4


def test_gain_budget_asks_the_router():
    gains = falling_gains(9)
    step = make_step()

    masks = masks_of(GainBudget(lambda asked: gains, 0.4)(step), step)
    assert torch.equal(masks.sum(0), depth_within(gains, step.grid.pixels(), 0.4))


def test_gain_budget_where_the_backward_trunk_yields_first():
    """5 blocks a trunk, 10 in all; forward tiles have what the whole number of backward blocks leaves."""
    assert backward_first(1.0, 5, 1) == (5, 1.0)
    assert backward_first(0.9, 5, 1) == (4, pytest.approx(1.0))
    assert backward_first(0.6, 5, 1) == (1, pytest.approx(1.0))
    assert backward_first(0.6, 5, 2) == (2, pytest.approx(0.8))
    assert backward_first(0.25, 5, 1) == (1, pytest.approx(0.3))
    assert backward_first(0.15, 5, 1) == (0, pytest.approx(0.3))
    gains = falling_gains(9)
    policy = GainBudget(lambda asked: gains, 0.4, least_backward=1)
    forward = make_step()
    backward = replace(forward, direction="backward")
    blocks = backward.blocks
    expected = backward_first(0.4, blocks, 1)
    assert torch.equal(masks_of(policy(backward), backward).sum(0), expected[0] * backward.everywhere(True).int())
    assert torch.equal(
        masks_of(policy(forward), forward).sum(0), depth_within(gains, forward.grid.pixels(), expected[1])
    )


@given(st.floats(0.02, 1.0), st.integers(1, 30), st.integers(1, 30))
def test_a_divided_ratio_is_spent(ratio: float, blocks: int, least: int):
    """Never more than the ratio in all, and with whole backward blocks no less than a block of it beneath."""
    backward, forward = backward_first(ratio, blocks, least)
    assert 0 <= backward <= blocks
    assert 0 <= forward <= 1
    spent = (backward / blocks + forward) / 2
    assert spent <= ratio + 1e-9
    assert spent > ratio - 0.5 / blocks - 1e-9


def score_by_mean(direction: str, difference: Tensor) -> Tensor:
    return difference.mean(dim=1)


@pytest.mark.parametrize("cell_px", [1, 5])
def test_difference_threshold_is_equations_5_and_9(cell_px: int):
    """Naive: |h_t - h_(t-1)| pooled per tile; everything on the first frame, and after a new scene."""
    policy = DifferenceThreshold(score_by_mean, 0.2, cell_px)
    first, flow = make_step(blocks=2), torch.zeros(2, 2, 40, 60)
    states = [torch.rand(2, 4, 40, 60) * scale for scale in (1.0, 0.9, 0.1, 0.2)]
    decide = policy(first)
    assert decide(0, states[0]).all()
    assert decide(1, states[1]).all()
    decide = policy(make_step(blocks=2, flow=flow))
    for block in (0, 1):
        now, before = states[2 + block], states[block]
        if cell_px > 1:
            now, before = (torch.nn.functional.avg_pool2d(value, cell_px) for value in (now, before))
        cells = 10 // cell_px
        tiles = (now - before).abs().mean(1).unfold(1, cells, cells).unfold(2, cells, cells).mean((-1, -2))
        assert torch.equal(decide(block, states[2 + block]), tiles > 0.2)
    assert policy(first)(0, states[0]).all()


def test_difference_after_alignment():
    """A state that only moves differs from the one before as it lies, and not when that is warped onto it."""
    torch.manual_seed(0)
    state = torch.nn.functional.avg_pool2d(torch.rand(1, 4, 48, 68), 9, stride=1)
    flow = torch.zeros(1, 2, 40, 60)
    flow[:, 0] = 2
    step = make_step(batch=1, flow=flow)
    moved = warp(state, flow, padding="border")
    found = {}
    for name, align in (("raw", None), ("warped", lambda flow: Warp(flow, "border"))):
        policy = DifferenceThreshold(score_by_mean, 0.002, 1, align)
        policy(make_step(batch=1))(0, state)
        found[name] = policy(step)(0, moved)
    assert found["raw"].all()
    assert not found["warped"].any()


def test_directions_do_not_share_memory():
    policy = DifferenceThreshold(score_by_mean, 0.0, 4)
    flow = torch.zeros(2, 2, 40, 60)
    forward, state = make_step(flow=flow), torch.rand(2, 4, 40, 60)
    policy(make_step())(0, state)
    backward = TrunkStep("backward", forward.frame, state, flow, forward.grid, 6)
    assert policy(backward)(0, state).all()  # nothing known of this direction: run
    assert not policy(forward)(0, state).any()


def test_all_blocks():
    step = make_step()
    assert masks_of(all_blocks(step), step).all()


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, float("nan")])
def test_impossible_shares(ratio: float):
    with pytest.raises(ConfigError, match="ratio"):
        GradientRank(ratio)


def traced(frame: int, mask: Tensor, direction: Direction = "forward") -> TracedTrunk:
    return TracedTrunk(frame, direction, mask, TileGrid.of(10, 25, 10))


def test_the_trace_counts_pixels():
    mask = torch.zeros(2, 1, 1, 3, dtype=torch.bool)
    mask[0, 0, 0, 0] = mask[1, 0, 0, 2] = True  # tiles of 9, 9 and 7 pixels width
    trunk = traced(0, mask)
    assert trunk.active_ratio == pytest.approx((90 + 70) / 500)
    assert trunk.macs(channels=4) == 160 * 2 * 9 * 16
    assert trunk.depth.tolist() == [[[1, 0, 1]]]
    trace = RoutingTrace()
    assert trace.active_ratio == 1
    trace.add(trunk)
    trace.add(traced(1, torch.ones_like(mask)))
    assert trace.active_ratio == pytest.approx((0.32 + 1) / 2)
    assert trace.depth_of(0).tolist() == [[[1, 0, 1]]]
    with pytest.raises(KeyError, match="frame 7"):
        trace.depth_of(7)


def test_decision_flicker():
    still, other = torch.zeros(2, 1, 1, 3, dtype=torch.bool), torch.zeros(2, 1, 1, 3, dtype=torch.bool)
    other[0, 0, 0, :2] = True
    trace = RoutingTrace()
    for frame, mask in enumerate((torch.ones_like(still), still, still, other)):
        trace.add(traced(frame, mask))
    # The first frame runs everything and does not count: no flip, then 2 of 6.
    assert trace.decision_flicker("forward") == pytest.approx((0 + 2 / 6) / 2)
    assert trace.decision_flicker("backward") == 0
