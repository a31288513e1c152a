"""Steps through graphs: when they are recorded, that results are the step's, and what happens where recording fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import skipvsr
from skipvsr import ComputeOptions, StreamOptions, Upscaler
from skipvsr.inference import graphs, upscaler
from skipvsr.inference.graphs import StepGraphs
from skipvsr.inference.kernel_network import KernelNetwork
from skipvsr.inference.policies import predicted_gains
from skipvsr.inference.routed import RunBlocks
from skipvsr.inference.triton_blocks import LaunchSettings, Plan, TritonBlocks
from skipvsr.models.blocks import ResidualBlock
from skipvsr.models.config import VSRConfig
from skipvsr.models.flow import Warp
from skipvsr.models.router import MaskGenerator
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import DifferenceThreshold
from skipvsr.routing.policies import ByDepth, TrunkStep


class Recorder:
    """Records as a GPU would: what is started later does the same again, on the same tensors."""

    def __init__(self) -> None:
        self.recorded = self.started = 0

    def __call__(self, step: Callable[[], object]) -> Callable[[], object]:
        self.recorded += 1
        step()

        def replay() -> None:
            self.started += 1
            step()

        return replay


def double(values: Tensor) -> Tensor:
    return 2 * values


def images(*values: float, height: int = 2) -> list[Tensor]:
    return [torch.full((1, 1, height, 2), float(value)) for value in values]


def test_a_step_is_recorded_when_it_comes_again_and_started_from_then_on():
    recorder = Recorder()
    steps = StepGraphs(recorder, record_at=3)
    results = [steps.run("double", double, image) for image in images(1, 2, 3, 4, 5)]
    assert [result[0, 0, 0, 0].item() for result in results] == [2, 4, 6, 8, 10]  # none was overwritten by the next
    # Once to be compared, and twice in earnest.
    assert (recorder.recorded, recorder.started) == (1, 3)


def test_another_shape_or_name_is_another_graph():
    recorder = Recorder()
    steps = StepGraphs(recorder, most=3, record_at=2)
    for _ in range(3):
        assert steps.run("double", double, *images(5))[0, 0, 0, 0] == 10
        assert steps.run("double", double, *images(5, height=3)).shape == (1, 1, 3, 2)
        assert steps.run("triple", lambda image: 3 * image, *images(5))[0, 0, 0, 0] == 15
        assert steps.run("one too many", double, *images(6))[0, 0, 0, 0] == 12
    assert recorder.recorded == 3
    large = torch.zeros(1, 1, 1, graphs.MOST_PIXELS + 1)
    for _ in range(3):
        StepGraphs(recorder, record_at=1).run("large", double, large)
    assert recorder.recorded == 3


def test_graphs_share_their_tensors():
    """Two steps in turn, on tensors of the same shapes: neither sees what the other left."""
    steps = StepGraphs(Recorder(), record_at=1)
    one, two = images(1, 10)
    for number in range(1, 5):
        assert steps.run("sum", torch.add, number * one, number * two)[0, 0, 0, 0] == 11 * number
        assert steps.run("difference", torch.sub, number * two, number * one)[0, 0, 0, 0] == 9 * number
        assert steps.run("double", double, number * two)[0, 0, 0, 0] == 20 * number
    assert len(steps._graphs) == 3
    assert len(steps._tensors) == 3  # two inputs and a result


@pytest.mark.parametrize("fault", ["raises", "wrong", "nan"])
def test_where_recording_fails_steps_go_on_and_a_note_says_so(fault: str, caplog: pytest.LogCaptureFixture):
    def record(step: Callable[[], object]) -> Callable[[], object]:
        if fault == "raises":
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        def replay() -> None:
            result = step()
            assert isinstance(result, Tensor)
            result.mul_(1.01)

        return replay if fault == "wrong" else lambda: None  # which leaves nothing there

    steps = StepGraphs(record, record_at=2)
    with caplog.at_level(logging.WARNING, "skipvsr"):
        for name in ("double", "double", "other", "other", "double"):
            assert steps.run(name, double, *images(7))[0, 0, 0, 0] == 14
    reasons = {"raises": "not permitted", "wrong": "differs from what it was recorded from by 0.01", "nan": "by nan"}
    assert len(caplog.records) == 1
    assert reasons[fault] in caplog.records[0].message


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Every upscaler runs its steps through graphs of this."""
    recorder = Recorder()
    monkeypatch.setattr(upscaler, "make_graphs", lambda device: StepGraphs(recorder, record_at=2))
    return recorder


def moving(count: int) -> Tensor:
    canvas = torch.nn.functional.interpolate(
        torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(3)), size=(40, 48 + count), mode="bicubic"
    )[0].clamp(0, 1)
    return torch.stack([canvas[:, :, number : number + 48] for number in range(count)])


def test_a_stream_through_graphs_is_the_same(tiny: SkipVSR, recorder: Recorder):
    frames, stream = moving(8), StreamOptions(window=3, lookahead=2)
    plain = torch.stack(list(Upscaler(tiny, stream=stream, tuned=False).stream(frames)))
    assert recorder.recorded == 0
    through = Upscaler(tiny, stream=stream)
    assert torch.equal(torch.stack(list(through.stream(frames))), plain)
    # Flow, both directions, the first step of the backward one, and reconstruction; the first forward step came once.
    assert recorder.recorded == 5
    assert torch.equal(torch.stack(list(through.stream(frames))), plain)
    assert recorder.recorded == 6
    assert recorder.started > 60


def test_a_routers_gains_come_through_graphs(recorder: Recorder):
    model, frames = skipvsr.load_model("compact"), moving(6)
    compute = ComputeOptions(budget=0.5)
    plain = torch.stack(list(Upscaler(model, compute, tuned=False).stream(frames)))
    assert torch.equal(torch.stack(list(Upscaler(model, compute).stream(frames))), plain)
    assert recorder.recorded >= 3


def test_a_plan_says_what_runs_where():
    counts = [20, 20, 18, 5, 0, 0]
    plan = Plan.of(counts, 20, 0.85, whole=False)
    assert plan == Plan(full=2, whole=0, dense=3, last=4, launched=(20, 20, 18, 5))
    assert Plan.of(counts, 20, 0.85, whole=True) == Plan(2, 2, 3, 4, (20, 20, 18, 5))
    assert Plan.of(counts, 20, 2.0, whole=False) == Plan(2, 2, 2, 4, (20, 20, 18, 5))
    assert plan.rounded(6, 20) == Plan(2, 0, 3, 4, (20,) * 4)
    # Of 30 blocks: multiples of three. Fewer run on the whole frame, more are launched for.
    rounded = Plan(full=8, whole=8, dense=11, last=17, launched=tuple(range(17))).rounded(30, 99)
    assert rounded == Plan(6, 6, 9, 18, (99,) * 18)
    everything = Plan(30, 0, 30, 30, (99,) * 30)
    assert everything.rounded(30, 99) == everything
    assert Plan(28, 28, 30, 30, (99,) * 30).rounded(30, 99) == Plan(27, 27, 30, 30, (99,) * 30)


def test_settled_depths_run_through_graphs(monkeypatch: pytest.MonkeyPatch):
    """In Triton's interpreter: depths that change from step to step within the same graph."""
    pytest.importorskip("triton")
    from tests.test_triton_blocks import DEVICE, make_blocks

    recorder = Recorder()
    blocks = [block.to(DEVICE) for block in make_blocks(4, 2, torch.float32)]
    grid, state = TileGrid(5, 10, 5, 5), torch.randn(1, 4, 5, 10, device=DEVICE)
    run: RunBlocks = TritonBlocks(2.0, False, LaunchSettings(64), StepGraphs(recorder, record_at=2))
    plain: RunBlocks = TritonBlocks(2.0, settings=LaunchSettings(64))
    depths = [torch.tensor(depth, device=DEVICE).view(1, 1, 2) for depth in ([1, 0], [0, 1], [0, 1], [0, 0])]
    with torch.inference_mode():
        for depth in depths:
            found, masks = run(blocks, state, ByDepth(depth), grid)
            assert torch.equal(masks.cpu(), torch.stack([depth > 0, depth > 1]).cpu())
            assert torch.equal(found, plain(blocks, state, ByDepth(depth), grid)[0])
    assert (recorder.recorded, recorder.started) == (1, 2)


class NothingFromTheCPU(TorchDispatchMode):
    """Fails where an operator takes a tensor on the CPU: on a GPU, it would be brought there, and waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and value.device.type == "cpu":
                pytest.fail(f"{func} takes a tensor of shape {tuple(value.shape)} on the CPU")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def nothing_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """A context in which nothing comes from the CPU, also none of the tensors that are made of numbers of Python."""

    @contextmanager
    def context() -> Iterator[None]:
        def refuse(*_: object, **__: object) -> Tensor:
            pytest.fail("a tensor is made of numbers of Python, which would be brought to the GPU")

        with monkeypatch.context() as patch, NothingFromTheCPU(), torch.inference_mode():
            patch.setattr(torch, "tensor", refuse)
            patch.setattr(Tensor, "new_tensor", refuse)
            yield

    return context


@pytest.mark.parametrize(
    "config",
    [
        VSRConfig(8, 2, "light", "light", "gain"),
        VSRConfig(8, 2, "spynet", "basicvsr", "gain"),
        VSRConfig(8, 2, "light", "basicvsr", "none", scale=2),
    ],
    ids=str,
)
def test_steps_neither_wait_for_a_gpu_nor_bring_anything_there(config: VSRConfig, nothing_from_the_cpu):
    """With torch's "meta" device in the place of a GPU: it has no numbers, so that looking at one fails."""
    network = SkipVSR(config).eval().to("meta")
    frame, state, flow = (torch.empty(1, channels, 50, 70, device="meta") for channels in (3, 8, 2))
    step = TrunkStep("forward", frame, state, flow, TileGrid.of(50, 70, 24), 2)

    def run() -> list[Tensor]:
        found = [
            network.estimate_flow(frame, frame),
            network.propagate("backward", frame, None, None),
            network.propagate("forward", frame, state, flow),
            network.reconstruct(frame, state, state),
        ]
        gains = predicted_gains(network)
        return found if gains is None else [*found, gains(step), gains(replace(step, flow=None))]

    run()  # what is kept on the device may be brought there the first time
    with nothing_from_the_cpu():
        assert all(each.device.type == "meta" for each in run())


def test_blocks_on_active_tiles_neither_wait_nor_bring_anything(nothing_from_the_cpu):
    """Settled depths, once a plan is made; and the paper's policy, block by block, from one frame to the next."""
    pytest.importorskip("triton")
    blocks = [ResidualBlock(8).to("meta") for _ in range(4)]
    grid = TileGrid(50, 70, 24, 24)
    frame, state, flow = (torch.empty(1, channels, 50, 70, device="meta") for channels in (3, 8, 2))
    depth = torch.empty(1, 3, 3, device="meta", dtype=torch.int64)
    generator = MaskGenerator(8).to("meta")
    policy = DifferenceThreshold(generator, 0.5, 1, Warp)
    run = TritonBlocks()
    first = TrunkStep("forward", frame, state, None, grid, 4)

    network = KernelNetwork(SkipVSR(VSRConfig(8, 2, "light", "light")).to("meta"), run)

    def step() -> None:
        assert network.propagate("forward", frame, state, flow).shape == state.shape
        run._follow(Plan(1, 1, 2, 3, (9, 9, 5)), blocks, grid, state, depth)
        run._follow(Plan(1, 0, 2, 3, (9, 9, 5)), blocks, grid, state, depth)
        run(blocks, state, policy(first), grid)
        _, masks = run(blocks, state, policy(replace(first, flow=flow)), grid)
        assert masks.device.type == "meta"

    step()
    with nothing_from_the_cpu():
        step()


@pytest.mark.gpu
@pytest.mark.parametrize("budget", [None, 0.5])
def test_graphs_on_a_gpu_give_what_the_steps_give(budget: float | None, caplog: pytest.LogCaptureFixture):
    model = skipvsr.load_model("compact", device="cuda")
    compute = ComputeOptions(budget=budget, precision="fp16")
    frames = moving(40)
    plain = torch.stack(list(Upscaler(model, compute, tuned=False).stream(frames))).cpu()
    with caplog.at_level(logging.WARNING, "skipvsr"):
        through = Upscaler(model, compute)
        results = [torch.stack(list(through.stream(frames))).cpu() for _ in range(3)]
    assert not caplog.records  # neither graphs nor kernels were given up
    assert through.graphs is not None
    assert len(through.graphs._graphs) >= 4
    assert torch.equal(results[1], results[2])
    # Where roundings differ, a tile may run a block more or less.
    for found in results[:2]:
        assert (found - plain).square().mean() < 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("channels", [24, 32, 64])
def test_the_kernels_on_a_gpu_at_full_size(channels: int, dtype: torch.dtype):
    """Frames of 180x320, and of an odd size, in tiles of 24 pixels: depths of all kinds, through graphs and without."""
    from tests.test_triton_blocks import TOLERANCES, make_blocks, relative_error

    for height, width in ((180, 320), (101, 77)):
        grid = TileGrid.of(height, width, 24)
        generator = torch.Generator().manual_seed(height)
        state = torch.randn(2, channels, height, width, generator=generator).to(dtype)
        masks = torch.rand(1, 2, grid.rows, grid.columns, generator=generator) < torch.tensor([0.7, 0.4]).view(
            2, 1, 1, 1
        )
        blocks = make_blocks(channels, 2, dtype)
        for settled in (True, False):
            error = relative_error(TritonBlocks(2.0), blocks, state, masks, grid, settled=settled)
            assert error < TOLERANCES[dtype]
