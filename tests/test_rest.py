"""Tiles at rest: which they are, and what a stream makes of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skipvsr.inference.frame_stream import StreamState
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.config import VSRConfig
from skipvsr.models.router import Calibration
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import GainThreshold
from skipvsr.routing.policies import TrunkStep
from skipvsr.routing.rest import MOST_SHIFT_PX, NOISE, Rest, Stillness, calm_tiles, most_change
from skipvsr.routing.trace import RoutingTrace
from tests.conftest import make_network

GRID = TileGrid.of(24, 36, 12)
# Every frame is computed, whatever it looks like.
STREAM = StreamOptions(window=64, lookahead=0, scene_detection=False, repeat_detection=False)


def network() -> SkipVSR:
    model = make_network(VSRConfig(6, 4, "light", "light", "gain"), seed=5)
    model.calibration = Calibration(12, (0.25, 0.5, 0.75), (0.3, 0.2, 0.1))
    return model


def depths(trace: RoutingTrace, direction: str = "forward") -> list[Tensor]:
    """How many blocks ran on each tile, (rows, columns), of each frame in the order in which they ran."""
    return [trunk.mask.sum(dim=0)[0] for trunk in trace.trunks if trunk.direction == direction]


@given(
    height=st.integers(16, 30), width=st.integers(16, 30), tile_px=st.integers(5, 12), seed=st.integers(0, 99)
)  # fmt: skip
def test_change_against_the_definition(height: int, width: int, tile_px: int, seed: int):
    random = torch.Generator().manual_seed(seed)
    one, two = torch.rand(2, 1, 3, height, width, generator=random).unbind()
    grid = TileGrid.of(height, width, tile_px)
    difference = (one - two).abs()[0].mean(dim=0)
    expected = torch.zeros(grid.rows, grid.columns)
    for row in range(grid.rows):
        for column in range(grid.columns):
            top, left = row * grid.tile_height, column * grid.tile_width
            for y in range(max(top - 4, 0), min(top + grid.tile_height + 4, height)):
                for x in range(max(left - 4, 0), min(left + grid.tile_width + 4, width)):
                    near = difference[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].mean()
                    expected[row, column] = torch.maximum(expected[row, column], near)
    torch.testing.assert_close(most_change(difference[None, None], grid)[0], expected)


def run(rest: Rest, frames: list[Tensor]) -> list[Stillness | None]:
    """What rests on each frame, whose states are the frame's number everywhere."""
    found = []
    for number, frame in enumerate(frames):
        still = rest.look("forward", frame[None], GRID, goes_on=number > 0)
        state = rest.keep("forward", frame[None], torch.full((1, 2, 24, 36), float(number)), GRID, still)
        found.append(still)
        if still is not None:
            resting = GRID.expand(still.resting).expand(1, 2, -1, -1)
            assert (state[~resting] == number).all()
            assert (state[resting] < number).all()
    return found


def test_a_tile_rests_after_it_settled_and_until_it_moves():
    frames = [torch.full((3, 24, 36), 0.5) for _ in range(8)]
    frames[5] = frames[5].clone()
    frames[5][:, 19:21, 14:16] = 0.9  # in the middle tile of the lower row, near its left border
    frames[6] = frames[7] = frames[5]
    found = run(Rest(), frames)
    assert found[0] is None
    counts = [(int(still.resting.sum()), int(still.settling.sum())) for still in found[1:] if still is not None]
    # All six tiles settle on two frames and rest. The object moves two of them.
    assert counts == [(0, 6), (0, 6), (6, 0), (6, 0), (4, 0), (4, 2), (4, 2)]
    assert found[5] is not None
    assert found[5].resting[0].tolist() == [[True, True, True], [False, False, True]]


def test_what_changes_slowly_is_computed_again_in_time():
    """The change is that since the state was computed, not that since the last frame."""
    step = NOISE * 0.4
    found = run(Rest(), [torch.full((3, 24, 36), 0.2 + step * number) for number in range(12)])
    resting = [still is not None and bool(still.resting.all()) for still in found]
    # Settles on frames 1 and 2, rests on 3 and 4, has changed by more than the limit on 5; and so on.
    assert resting == [False] * 3 + [True] * 2 + [False] * 3 + [True] * 2 + [False] * 2


def test_a_shift_is_no_rest_however_slow():
    """Stripes of any contrast, shifted by some hundredths of a pixel; and a change somewhere in a tile that is large."""
    for contrast in (0.1, 0.4):

        def stripes(shift: float, contrast: float = contrast) -> Tensor:
            row = 0.5 + contrast * torch.sin((torch.arange(36) + shift) * 0.9)
            return row.expand(1, 3, 24, 36)

        small = MOST_SHIFT_PX / 2
        assert calm_tiles(stripes(small), stripes(0), GRID).all()
        assert not calm_tiles(stripes(4 * small + NOISE / contrast), stripes(0), GRID).any()
    changed = stripes(0).clone()
    changed[..., 10:12, 10:12] += 0.2
    assert calm_tiles(changed, stripes(0), TileGrid.of(24, 36, 36)).tolist() == [[[False]]]


def test_nothing_rests_on_other_frames_or_after_the_end():
    frame = torch.full((1, 3, 24, 36), 0.5)
    rest = Rest(settling_frames=0)
    rest.keep("forward", frame, torch.zeros(1, 2, 24, 36), GRID, None)
    assert rest.look("forward", frame, GRID, goes_on=True) is not None
    assert rest.look("backward", frame, GRID, goes_on=True) is None
    assert rest.look("forward", frame[..., :30], TileGrid.of(24, 30, 12), goes_on=True) is None
    rest.keep("forward", frame, torch.zeros(1, 2, 24, 36), GRID, None)
    assert rest.look("forward", frame, GRID, goes_on=False) is None
    rest.keep("forward", frame, torch.zeros(1, 2, 24, 36), GRID, None)
    memory = rest.memory()
    assert set(memory) == {"state", "frame", "settled"}
    rest.stop()
    rest.recall(memory)
    assert rest.look("forward", frame, GRID, goes_on=True) is None
    rest.keep("forward", frame, torch.zeros(1, 2, 24, 36), GRID, None)
    assert rest.look("forward", frame, GRID, goes_on=True) is None


def test_gains_of_what_rests_are_spent_elsewhere():
    gains = torch.rand(1, 4, 2, 3).sort(dim=1, descending=True).values + 0.1
    resting = torch.tensor([[[True, False, False], [False, False, True]]])
    settling = torch.tensor([[[False, True, False], [False, False, False]]])
    worth = Stillness(resting, settling).worth(gains)
    assert worth[0, :, 0, 0].tolist() == worth[0, :, 1, 2].tolist() == [0] * 4
    assert torch.equal(worth[0, :, 0, 1], 3 * gains[0, :, 0, 1])
    assert torch.equal(worth[0, :, 0, 2], gains[0, :, 0, 2])
    step = TrunkStep(
        "forward", torch.rand(1, 3, 24, 36), torch.rand(1, 2, 24, 36), None, GRID, 4, still=Stillness(resting, settling)
    )
    for threshold in (0.0, 0.01):
        decide = GainThreshold(lambda step: gains, threshold)(step)
        ran = sum(decide(block, step.state).int() for block in range(4))
        assert ran.tolist() == (4 * (~resting).int()).tolist()  # pyright: ignore[reportAttributeAccessIssue]


def moving(count: int) -> list[Tensor]:
    """The left half stands still, the right half moves."""
    picture = torch.rand(3, 24, 36, generator=torch.Generator().manual_seed(3))
    frames = []
    for number in range(count):
        frame = picture.clone()
        frame[..., 20:] = torch.roll(frame[..., 20:], 3 * number, dims=-1)
        frames.append(frame)
    return frames


@pytest.mark.parametrize("compute", [ComputeOptions(budget=0.9), ComputeOptions(threshold=0.01)])
def test_a_stream_computes_what_moves(compute: ComputeOptions):
    trace = RoutingTrace()
    results = list(Upscaler(network(), compute, STREAM).stream(moving(8), trace))
    for direction in ("forward", "backward"):
        found = depths(trace, direction)
        assert all(int(depth[:, 0].sum()) > 0 for depth in found[:3])
        assert all(int(depth[:, 0].sum()) == 0 for depth in found[3:])
        assert all(int(depth[:, 2].sum()) > 0 for depth in found)
    # A tile that rests in both directions shows exactly the same; one that moves does not.
    assert torch.equal(results[4][:, :40, :40], results[3][:, :40, :40])
    assert not torch.equal(results[4][:, :40, 100:], results[3][:, :40, 100:])


def test_rest_can_be_left_out_and_is_where_every_block_runs():
    without = RoutingTrace()
    list(Upscaler(network(), ComputeOptions(threshold=1e-9, rest=False), STREAM).stream(moving(6), without))
    assert without.active_ratio == 1
    every, plain = RoutingTrace(), Upscaler(network(), None, STREAM)
    traced = list(plain.stream(moving(6), every))
    assert every.active_ratio == 1
    assert all(torch.equal(*pair) for pair in zip(traced, plain.stream(moving(6)), strict=True))
    with_rest = RoutingTrace()
    list(Upscaler(network(), ComputeOptions(threshold=1e-9), STREAM).stream(moving(6), with_rest))
    assert with_rest.active_ratio < 0.9


def test_a_stream_goes_on_with_what_rests():
    """From every place where it could stop, and through the copies of its state."""
    options = StreamOptions(window=3, lookahead=1, scene_detection=False, repeat_detection=False)
    upscaler = Upscaler(network(), ComputeOptions(budget=0.6), options)
    places: list[StreamState] = []
    frames = moving(10)
    trace = RoutingTrace()
    whole = list(upscaler.stream(frames, trace, at_position=lambda number, state: places.append(state())))
    assert any(int(depth[:, 0].sum()) == 0 for depth in depths(trace))
    later = [place for place in places if 0 < place.number < 10]
    assert len(later) >= 2
    for place in later:
        assert "memory.rest.state" not in place.tensors  # it is the state, which is kept once
        rest = list(upscaler.stream(frames, start=place))
        assert all(torch.equal(*pair) for pair in zip(rest, whole[place.number :], strict=True))
