"""The kernels for active tiles against the reference: on a GPU where there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from skipvsr import ComputeOptions, Upscaler
from skipvsr.inference import execution, masked, tiled, triton_blocks, upscaler
from skipvsr.inference.execution import choose_execution, kernel_error, kernel_network, warp_error, why_no_kernels
from skipvsr.inference.graphs import GraphedNetwork
from skipvsr.inference.kernel_network import KernelNetwork, warp_by_kernel
from skipvsr.inference.remembered import remember
from skipvsr.inference.triton_blocks import LaunchSettings, TritonBlocks, active_tiles
from skipvsr.models.blocks import ResidualBlock
from skipvsr.models.config import VSRConfig
from skipvsr.models.flow import warp
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import ByDepth, RandomBlocks

pytest.importorskip("triton")
pytestmark = pytest.mark.any_device
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Relative to what the blocks add: operands and the hidden feature are rounded, sums are not.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
FEW = LaunchSettings(block_pixels=128)  # programs: they are what the interpreter takes its time for


@pytest.fixture(autouse=True)
def _poisoned_scratch(monkeypatch: pytest.MonkeyPatch):
    """What the kernels read and did not write is not a number."""
    plain = triton_blocks._scratch

    def poisoned(pixels: Tensor, grid: TileGrid, tiles: int) -> Tensor:
        return plain(pixels, grid, tiles).fill_(torch.nan)

    monkeypatch.setattr(triton_blocks, "_scratch", poisoned)
    # What torch runs of it on a GPU is fp32 where it says so.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def make_blocks(channels: int, count: int, dtype: torch.dtype, seed: int = 0) -> list[ResidualBlock]:
    """Blocks whose residuals are about as large as the state, with biases that show where padding is wrong."""
    generator = torch.Generator().manual_seed(seed)
    blocks = [ResidualBlock(channels) for _ in range(count)]
    with torch.no_grad():
        for parameter in (each for block in blocks for each in block.parameters()):
            parameter.normal_(0, 0.7 if parameter.ndim == 1 else (6 * channels) ** -0.5, generator=generator)
    return [block.to(dtype) for block in blocks]


def relative_error(
    run: TritonBlocks, blocks: list[ResidualBlock], state: Tensor, masks: Tensor, grid: TileGrid, *, settled: bool
) -> float:
    """Of what the blocks add, against the reference in fp64 with the same weights and state."""
    exact = [ResidualBlock(state.shape[1]).double() for _ in blocks]
    for one, two in zip(exact, blocks, strict=True):
        one.load_state_dict(two.state_dict())
    depth, before = masks.sum(dim=0), state.clone()
    on_device = [block.to(DEVICE) for block in blocks]
    decide = ByDepth(depth.to(DEVICE)) if settled else lambda number, _: masks[number].to(DEVICE)
    with torch.inference_mode():
        expected, _ = masked.run_blocks(exact, state.double(), lambda number, _: masks[number], grid)
        found, ran = run(on_device, state.to(DEVICE), decide, grid)
    assert torch.equal(ran.cpu(), masks)
    assert torch.equal(state, before)
    assert found.dtype == state.dtype
    at_rest = ~grid.expand(masks.any(dim=0)).expand_as(state)
    assert torch.equal(found.cpu()[at_rest], state[at_rest])
    added = (expected - state.double()).norm()
    return ((found.cpu().double() - expected).norm() / added.clamp(min=1e-9)).item()


@given(
    height=st.integers(1, 14),
    width=st.integers(1, 17),
    tile=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    batch=st.integers(1, 2),
    channels=st.sampled_from([4, 16, 24]),
    dtype=st.sampled_from(list(TOLERANCES)),
    ratio=st.sampled_from([0.2, 0.6, 1.0]),
    dense_ratio=st.sampled_from([0.7, 2.0]),
    whole=st.booleans(),
    settled=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow], database=None, derandomize=True)
def test_kernels_equal_the_masked_reference(
    height: int, width: int, tile: tuple[int, int], batch: int, channels: int, dtype: torch.dtype, ratio: float,
    dense_ratio: float, whole: bool, settled: bool, seed: int,
):  # fmt: skip
    grid = TileGrid(height, width, *tile)
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(batch, channels, height, width, generator=generator).to(dtype)
    drawn = torch.rand(1 if settled else 2, batch, grid.rows, grid.columns, generator=generator)
    # Settled depths never grow along the blocks; other masks are as they come.
    masks = drawn < torch.tensor([min(1.0, 1.3 * ratio), ratio]).view(2, 1, 1, 1)
    run = TritonBlocks(dense_ratio, whole, FEW)
    error = relative_error(run, make_blocks(channels, 2, dtype, seed), state, masks, grid, settled=settled)
    assert error < TOLERANCES[dtype]


@pytest.mark.parametrize(("channels", "dtype"), [(32, torch.float16), (64, torch.bfloat16), (64, torch.float32)])
def test_wide_blocks(channels: int, dtype: torch.dtype):
    grid = TileGrid(9, 15, 8, 8)
    state = torch.randn(1, channels, 9, 15, generator=torch.Generator().manual_seed(3)).to(dtype)
    masks = torch.tensor([[[[True, False], [True, True]]]])
    blocks = make_blocks(channels, 1, dtype)
    assert relative_error(TritonBlocks(2.0, settings=FEW), blocks, state, masks, grid, settled=True) < TOLERANCES[dtype]


def test_more_than_one_program_for_a_tile_and_programs_without_a_tile():
    grid = TileGrid(10, 19, 10, 10)
    state = torch.randn(1, 16, 10, 19, generator=torch.Generator().manual_seed(4))
    masks = torch.tensor([[[[False, True]]]])
    run = TritonBlocks(2.0, settings=LaunchSettings(block_pixels=32))
    for settled in (True, False):
        error = relative_error(run, make_blocks(16, 1, torch.float32), state, masks, grid, settled=settled)
        assert error < TOLERANCES[torch.float32]


def test_tiles_are_listed_by_depth():
    depth = torch.tensor([[[0, 3, 1], [1, 0, 3]], [[2, 0, 0], [0, 0, 1]]])
    active = active_tiles(depth, 4)
    assert active.order.tolist() == [1, 5, 6, 2, 3, 11, 0, 4, 7, 8, 9, 10]
    assert active.counts.tolist() == [6, 3, 2, 0]
    assert (active.order.dtype, active.counts.dtype) == (torch.int32, torch.int32)
    one = active_tiles(depth == 1, 1)
    assert one.order[:3].tolist() == [2, 3, 11]
    assert one.counts.tolist() == [3]


def test_dense_blocks_launch_no_kernel_and_nothing_waits_for_known_depths(monkeypatch: pytest.MonkeyPatch):
    """Of 20 tiles 20, 18 and 5 are active for three blocks: the first two run on the whole frame."""
    launched: list[int] = []
    monkeypatch.setattr(TritonBlocks, "_add", lambda *arguments: launched.append(arguments[6]))
    depth = torch.tensor([1, 1] + [2] * 13 + [3] * 5).view(1, 4, 5)
    state, grid = torch.randn(1, 4, 20, 25), TileGrid(20, 25, 5, 5)
    blocks = make_blocks(4, 4, torch.float32)
    found, masks = TritonBlocks()(blocks, state, ByDepth(depth), grid)
    assert launched == [5]
    assert masks.device.type == "cpu"
    expected, _ = masked.run_blocks(blocks[:2], state, ByDepth(depth), grid)
    torch.testing.assert_close(found, expected)
    # A depth that the GPU would have to be asked for; what is known of it is enough.
    blind = ByDepth(torch.empty(1, 4, 5, device="meta"), torch.full((1, 4, 5), 4))
    found, masks = TritonBlocks()(blocks, state, blind, grid)
    assert masks.all()
    with torch.inference_mode():
        torch.testing.assert_close(found, torch.nn.Sequential(*blocks)(state))


def arguments_of(name: str) -> tuple[Tensor | int, ...]:
    """Of one of the operators, for two of four tiles."""
    state = torch.randn(1, 9, 10, 16, device=DEVICE)
    block = make_blocks(16, 1, torch.float32)[0].to(DEVICE)
    active = active_tiles(torch.tensor([[[1, 0], [0, 1]]], device=DEVICE), 1)
    hidden = torch.randn(4, 8, 8, 16, device=DEVICE)
    lists = (*triton_blocks._weights(block.conv1), active.order, active.counts)
    first, last = (state, hidden) if name == "convolve_tiles" else (hidden, state)
    return (first, *lists, last, 0, 4, 6, 6, 128, 4, 3)


@pytest.mark.parametrize("name", ["convolve_tiles", "add_tiles"])
def test_the_operators_say_what_they_do(name: str):
    """Schema (what is mutated), fake implementation, and what torch.compile makes of it."""
    from skipvsr.inference import triton_kernels

    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(getattr(triton_kernels, name), arguments_of(name), test_utils=tests)
    arguments = list(arguments_of(name))
    with pytest.raises(AssertionError, match="for 5 tiles of 4"):
        getattr(triton_kernels, name)(*arguments[:7], 5, *arguments[8:])
    assert isinstance(arguments[1], Tensor)
    arguments[1] = arguments[1].contiguous(memory_format=torch.contiguous_format)
    with pytest.raises(AssertionError, match="weights lie channels-last"):
        getattr(triton_kernels, name)(*arguments)


def test_the_kernels_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch):
    why_no_kernels.cache_clear()
    assert why_no_kernels(DEVICE, torch.float32, 16) is None
    assert kernel_error(DEVICE, torch.float16, 16) < 2e-3
    assert warp_error(DEVICE, torch.float16, 16) < 2e-3
    assert kernel_network(SkipVSR(VSRConfig(16, 1))) is None  # it is on the CPU
    assert why_no_kernels(DEVICE, torch.float64, 16) == "the kernels do not know torch.float64"
    assert "300" in (why_no_kernels(DEVICE, torch.float32, 300) or "")
    why_no_kernels.cache_clear()
    monkeypatch.setattr(execution, "kernel_error", lambda *_: execution._relative(*[torch.full((2,), torch.nan)] * 3))
    assert "err here by inf" in (why_no_kernels(DEVICE, torch.float32, 16) or "")


def test_where_they_do_not_work_tiles_run_and_a_note_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    gpu = torch.device("cuda")
    why_no_kernels.cache_clear()
    execution._note.cache_clear()

    def no_compiler(*_: object) -> float:
        raise RuntimeError("first line\nno C compiler was found")

    monkeypatch.setattr(execution, "kernel_error", no_compiler)
    with caplog.at_level(logging.WARNING, "skipvsr"):
        assert choose_execution(gpu, torch.float16, 64) is tiled.run_blocks
        assert choose_execution(gpu, torch.float16, 64) is tiled.run_blocks
    assert [record.message for record in caplog.records] == [
        "blocks run through torch, with more work for the CPU: Triton's kernels do not run here (no C compiler was found)"
    ]
    monkeypatch.setitem(sys.modules, "triton", None)
    why_no_kernels.cache_clear()
    assert "not installed" in (why_no_kernels(gpu, torch.float16, 64) or "")
    why_no_kernels.cache_clear()
    assert choose_execution(torch.device("cpu"), torch.float32, 64) is tiled.run_blocks


def test_what_the_benchmark_found_decides(monkeypatch: pytest.MonkeyPatch):
    gpu, key = torch.device("cuda"), ("kernels", execution.kernel_key(torch.device("cuda"), torch.float16, 64))
    why_no_kernels.cache_clear()
    monkeypatch.setattr(execution, "kernel_error", lambda *_: 1e-4)
    monkeypatch.setattr(execution, "warp_error", lambda *_: 1e-4)
    assert choose_execution(gpu, torch.float16, 64) == TritonBlocks()
    settings = {"block_pixels": 64, "warps": 8, "stages": 2}
    for whole in (False, True):
        remember(*key, {"dense_ratio": 0.7, "whole": whole, "settings": settings})
        found = TritonBlocks(0.7, whole, LaunchSettings(64, 8, 2))
        assert choose_execution(gpu, torch.float16, 64) == found
        assert found == execution.remembered_kernels(gpu, torch.float16, 64)
    remember(*key, {"of": "another version"})
    assert choose_execution(gpu, torch.float16, 64) == TritonBlocks()
    why_no_kernels.cache_clear()


def test_a_network_runs_through_the_kernels_where_everything_runs(tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch):
    frames = torch.rand(2, 3, 17, 20, generator=torch.Generator().manual_seed(5))
    plain = torch.stack(list(Upscaler(tiny.to(DEVICE), tuned=False).stream(frames))).cpu()
    for run_blocks in (None, TritonBlocks(settings=LaunchSettings(512))):
        monkeypatch.setattr(
            upscaler, "kernel_network", lambda model, run_blocks=run_blocks: KernelNetwork(model, run_blocks)
        )
        through = Upscaler(tiny)
        assert isinstance(through.network, KernelNetwork | GraphedNetwork)
        assert through.blocks_by_kernels == (run_blocks is not None)
        torch.testing.assert_close(torch.stack(list(through.stream(frames))).cpu(), plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_warping_by_a_kernel_is_warping(dtype: torch.dtype):
    """Flows within the frame, to its edges, out of it, far away, and what is no number."""
    generator = torch.Generator().manual_seed(2)
    source = torch.randn(2, 12, 9, 11, generator=generator).to(dtype)
    flow = 4 * torch.randn(2, 2, 9, 11, generator=generator)
    flow[0, :, 0, :3] = torch.tensor([[0.0, -0.25, -1.5], [0.0, 0.0, 1.0]])
    flow[1, :, 8, 8:] = torch.tensor([[1e9, -1e30, 2.0], [0.0, 0.0, 0.0]])
    expected = warp(source.double(), flow.double().float()).float()
    found = warp_by_kernel(source.to(DEVICE), flow.to(DEVICE))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.dtype == dtype
    # Coordinates of the reference go through [-1, 1] and back.
    torch.testing.assert_close(found.cpu().float(), expected, atol=max(TOLERANCES[dtype], 1e-4), rtol=8e-3)
    flow[:, :, 4, 5:8] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    there = warp_by_kernel(source.to(DEVICE), flow.to(DEVICE)).cpu()
    assert (there[:, :, 4, 5:8] == 0).all()
    assert not there.isnan().any()


def test_the_operator_for_warping_says_what_it_does():
    from skipvsr.inference.triton_warp import warp_pixels

    arguments = (torch.randn(1, 4, 5, 8, device=DEVICE), torch.randn(1, 2, 4, 5, device=DEVICE))
    torch.library.opcheck(warp_pixels, arguments, test_utils=("test_schema", "test_faketensor"))
    with pytest.raises(AssertionError, match="plane after plane"):
        warp_pixels(arguments[0], arguments[1].transpose(2, 3).contiguous().transpose(2, 3))


def test_a_stream_runs_through_the_kernels(tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch):
    """Frames of 18x20 in 6 tiles with random depths: the same as through tiles."""
    frames = torch.rand(2, 3, 18, 20, generator=torch.Generator().manual_seed(5))

    def stream() -> Tensor:
        routed = Upscaler(
            tiny.to(DEVICE),
            ComputeOptions(tile_size=10),
            policy=lambda: RandomBlocks(0.5, torch.Generator().manual_seed(6)),
        )
        return torch.stack(list(routed.stream(frames))).cpu()

    expected = stream()
    monkeypatch.setattr(Upscaler, "execution", lambda *_: TritonBlocks(settings=FEW))
    torch.testing.assert_close(stream(), expected, atol=1e-4, rtol=0)


def test_they_compile_for_a_gpu_without_one():
    """For Hopper and 64 channels: its matrix instructions, wide copies into shared memory, and no register spilled."""
    script = Path(__file__).parents[1] / "scripts" / "inspect_kernels.py"
    words = [sys.executable, str(script), "--target", "cuda:90", "--channels", "64"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [kernel["kernel"] for kernel in found] == ["convolve", "add", "warp"]
    for kernel in found:
        assert kernel["spilled_bytes"] == 0
        if kernel["kernel"] == "warp":
            continue
        assert kernel["wgmma"] > 0
        assert kernel["copies"] > 0
        assert kernel["shared_bytes"] < 228 * 1024 / 2  # two programs at least on a multiprocessor
