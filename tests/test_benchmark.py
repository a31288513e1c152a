"""The arithmetic of `skipvsr benchmark`; what it measures is nobody's to test."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from skipvsr import ComputeOptions, ConfigError, Upscaler, load_model
from skipvsr.benchmark import full, kernels, quick
from skipvsr.benchmark.contenders import Contender
from skipvsr.benchmark.full import benchmark, row
from skipvsr.benchmark.kernels import KernelTimes, crossover, measure_kernels, spread_depth
from skipvsr.benchmark.plain import PlainNetwork
from skipvsr.benchmark.quick import SIZES, moving_frames, quick_benchmark
from skipvsr.benchmark.spread import spread_depths
from skipvsr.cli.benchmark import kernel_table
from skipvsr.inference.execution import remembered_kernels
from skipvsr.inference.options import PRESETS
from skipvsr.inference.triton_blocks import LaunchSettings, TritonBlocks
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.report.waterfall import draw_waterfall
from skipvsr.routing.grid import TileGrid
from skipvsr.upscale.measure import remembered_steps
from skipvsr.upscale.speed import StepSeconds
from tests.conftest import make_network
from tests.test_cli import run


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take what pixels and budget say; encoding 10 ns an output pixel."""

    def measured(upscaler: Upscaler, frames: list[torch.Tensor], *_: object, **__: object):
        pixels = frames[0].shape[-2] * frames[0].shape[-1]
        budget = upscaler.compute.budget or 1.0
        return StepSeconds(1e-7 * pixels, 8e-7 * budget * pixels, 8e-7 * budget * pixels, 0.0), budget == PRESETS[
            "fast"
        ]

    monkeypatch.setattr(quick, "measure_steps", measured)
    monkeypatch.setattr(quick, "measure_encoding", lambda *_: 1e-8)


def test_frames_a_second_are_those_of_all_steps_and_encoding(steady: None):
    model = load_model("compact")
    parts: list[float] = []
    found = quick_benchmark(model, precision="fp32", on_progress=parts.append)
    assert [(speed.width, speed.height) for speed in found.speeds[::3]] == list(SIZES)
    assert [(speed.preset, speed.budget) for speed in found.speeds[:3]] == list(PRESETS.items())
    pixels = 320 * 180
    lookahead = 4 / 32  # of the windows of this size
    per_frame = pixels * (1e-7 + 0.6 * 8e-7 * (2 + lookahead) + 16 * 1e-8)
    assert found.speeds[1].frames_per_second == pytest.approx(1 / per_frame)
    assert parts == pytest.approx([number / 9 for number in range(1, 10)])
    assert found.busy
    assert found.machine["torch"] == torch.__version__
    # Remembered for estimates, but for what was disturbed.
    balanced, fast = (
        Upscaler(model, ComputeOptions(preset=preset, precision="fp32")) for preset in ("balanced", "fast")
    )
    steps = remembered_steps(balanced, 180, 320, 1)
    assert steps is not None
    assert steps.flow == pytest.approx(1e-7 * pixels)
    assert remembered_steps(fast, 180, 320, 1) is None


def test_the_table_has_a_row_for_each_preset(steady: None, capsys: pytest.CaptureFixture[str]):
    assert run("benchmark", "--quick", "--precision", "fp32") == 0
    title, head, *rows, note = capsys.readouterr().out.splitlines()
    assert title.startswith("compact in fp32 on ")
    assert head.split() == ["frames", "a", "second", "320x180", "854x480", "1280x720"]
    assert [row.split()[0] for row in rows] == ["fast", "balanced", "best"]
    assert "Other programs" in note
    per_frame = 1280 * 720 * (1e-7 + 8e-7 * (2 + 4 / 9) + 16 * 1e-8)
    assert rows[2].split()[-1] == f"{1 / per_frame:.3g}"
    assert run("benchmark", "--quick", "--json") == 0
    event = json.loads(capsys.readouterr().out)
    assert (event["event"], len(event["speeds"]), event["speeds"][0]["preset"]) == ("report", 9, "fast")


def test_a_model_without_a_router_has_one_preset(steady: None, capsys: pytest.CaptureFixture[str], tiny: SkipVSR):
    assert {speed.preset for speed in quick_benchmark(tiny).speeds} == {"best"}
    assert run("benchmark", "--quick", "--model", "bicubic") == 0
    assert "only one preset" in capsys.readouterr().out


def test_the_frames_move_by_a_pixel_and_have_detail():
    first, second = moving_frames(60, 90, 2)
    assert torch.equal(first[..., 1:], second[..., :-1])
    assert (first >= 0).all()
    assert (first <= 1).all()
    assert first.std() > 0.05


def test_a_preset_is_a_budget():
    assert ComputeOptions(preset="fast") == ComputeOptions(budget=0.3)
    assert ComputeOptions(preset="balanced") == ComputeOptions(budget=0.6)
    assert ComputeOptions(preset="best").skips is False
    with pytest.raises(ConfigError, match="more than one of preset, budget"):
        ComputeOptions(preset="fast", budget=0.5)
    with pytest.raises(ConfigError, match="'turbo'; choose one of fast, balanced, best"):
        ComputeOptions(preset="turbo")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "config",
    [
        VSRConfig(8, 2, "light", "light"),
        VSRConfig(8, 2, "light", "light", scale=2),
        VSRConfig(8, 1, "half", "light"),
        VSRConfig(8, 1, "spynet", "basicvsr"),
        VSRConfig(8, 1, "light", "basicvsr", scale=2),
    ],
    ids=str,
)
def test_the_baseline_is_the_same_network(config: VSRConfig):
    model, clip = make_network(config), torch.rand(1, 4, 3, 37, 50)
    with torch.inference_mode():
        torch.testing.assert_close(PlainNetwork(model)(clip), model(clip), atol=1e-4, rtol=0)


def test_a_row_says_medians_quartiles_and_the_ratio_within_rounds():
    contender = Contender(
        "half", "bf16", lambda clip: 0.5, lambda height, width, ratio: int(height * width * ratio), step=True
    )
    seconds, first = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([2.0, 8.0, 6.0, 4.0, 20.0])
    found = row(contender, seconds, first, 0.5, (100, 200), {"fp32": 1e-6, "bf16": 2e-5}, 7)
    assert found.seconds == (2.0, 3.0, 4.0)
    assert found.speed_up == 2.0  # of 2, 4, 2, 1 and 4
    assert found.gmacs == pytest.approx(1e-5)
    # 20,000 operations in 3 seconds, where 20,000 a second are possible.
    assert found.share_of_peak == pytest.approx(1 / 3)
    assert row(contender, seconds, first, 0.5, (100, 200), {}, 7).share_of_peak is None


def test_everything_runs_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(full, "peak_gflops", lambda precision, device: {"fp32": 100.0, "bf16": 200.0}[precision])
    done: list[float] = []
    found = benchmark(
        load_model("compact"), precision="bf16", width=48, height=32, frames=2, rounds=2, sizes=[(32, 32)],
        on_progress=done.append,
    )  # fmt: skip
    names = [each.name for each in found.rows if each.name != "OpenVINO, 8 bit"]
    assert names == [
        "plain PyTorch", "plain PyTorch, autocast to bf16", "one frame at a time, channels last", "in bf16",
        "60% of the blocks", "50% of the blocks", "25% of the blocks, lean parts",
        "static, 5 blocks", "static, 4 blocks", "static, 2 blocks",
    ]  # fmt: skip
    assert [each.step for each in found.rows[:8]] == [True, False, True, True, True, True, True, False]
    assert found.rows[0].speed_up == 1.0
    assert found.rows[0].gmacs > found.rows[7].gmacs > found.rows[9].gmacs
    assert [(each.width, each.height, each.frames) for each in found.growth] == [(32, 32, 2), (32, 32, 6), (32, 32, 24)]
    assert done == sorted(done)
    assert done[-1] == 1.0
    files = draw_waterfall(tmp_path / "figure.png", "compact", found)
    assert [file.suffix for file in files] == [".png", ".svg", ".json"]
    assert json.loads(files[2].read_text())["rows"][6]["name"] == "25% of the blocks, lean parts"
    words = ("--size", "48x32", "--frames", "1", "--rounds", "1", "--no-growth", "--precision", "fp32")
    assert run("benchmark", *words, "--output", tmp_path / "found.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("plain PyTorch")
    assert "1.00x" in lines[2]
    assert json.loads((tmp_path / "found.json").read_text())["rows"][0]["speed_up"] == 1.0


def test_the_papers_size_is_measured_too(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(full, "peak_gflops", lambda precision, device: 100.0)
    words = ("--size", "16x16", "--frames", "2", "--rounds", "1", "--no-growth", "--precision", "fp32", "--paper-size")
    output = tmp_path / "found.json"
    assert run("benchmark", *words, "--output", output, "--figure", tmp_path / "figure.png") == 0
    assert "64 channels, 30 blocks, random weights on " in capsys.readouterr().out
    assert (tmp_path / "figure-paper-size.png").exists()
    values = json.loads(output.read_text())
    assert values["kernels"] == []  # there is no GPU
    rows = {each["name"]: each for each in values["paper_size"]["rows"]}
    assert rows["50% of the blocks"]["active_ratio"] == pytest.approx(0.5, abs=0.02)
    assert rows["25% of the blocks"]["active_ratio"] == pytest.approx(0.25, abs=0.02)
    assert rows["static, 15 blocks"]["gmacs"] < rows["one frame at a time, channels last"]["gmacs"]


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.85, 1.0])
def test_depths_are_spread_over_the_tiles(ratio: float):
    grid, generator = TileGrid.of(180, 320, 24), torch.Generator().manual_seed(1)
    depths = spread_depths(grid, ratio, 30, generator)
    assert depths.shape == (1, grid.rows, grid.columns)
    assert depths.float().mean().item() == pytest.approx(30 * ratio, abs=0.3)
    assert (int(depths.min()) == 0) == (ratio <= 0.5)
    assert (int(depths.max()) == 30) == (ratio >= 0.5)
    again = spread_depths(grid, ratio, 30, generator)
    assert torch.equal(depths.flatten().sort()[0], again.flatten().sort()[0])
    assert ratio == 1 or not torch.equal(depths, again)


def test_from_which_ratio_everything_is_faster():
    ratios, seconds = (0.25, 0.5, 0.85, 1.0), (2.0, 4.0, 6.8, 8.0)
    assert crossover(ratios, seconds, dense=8.0) == 2.0
    assert crossover(ratios, seconds, dense=6.8) == pytest.approx(0.85)
    assert crossover(ratios, seconds, dense=3.0) == pytest.approx(0.375)
    assert crossover(ratios, seconds, dense=1.0) == 0.25
    # Times that fall are taken for noise.
    assert crossover(ratios, (2.0, 4.0, 3.9, 8.0), dense=3.95) == pytest.approx(0.49375)


def test_the_fastest_settings_of_the_kernels_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "why_no_kernels", lambda *_: None)
    cpu, slow, fast = torch.device("cpu"), LaunchSettings(128, 4, 3), LaunchSettings(64, 4, 4)
    assert remembered_kernels(cpu, torch.float16, 16) == TritonBlocks()
    # Everything through torch; half of the tiles with each of the settings, one of which fails; four ratios; one large tile.
    clock = iter([64.0, 48.0, 40.0, RuntimeError("out of shared memory"), 24.0, 40.0, 60.0, 72.0, 56.0])

    def seconds_of(step: object) -> float:
        seconds = next(clock)
        if isinstance(seconds, Exception):
            raise seconds
        return seconds

    candidates = (slow, fast, LaunchSettings(256, 8, 5))
    found = measure_kernels(cpu, "fp16", 16, 48, 96, candidates=candidates, seconds_of=seconds_of)
    assert isinstance(found, KernelTimes)
    assert (found.dense, found.whole, found.settings) == (8.0, 7.0, fast)
    assert found.tiles == {"0.25": 3.0, "0.5": 5.0, "0.85": 7.5, "1": 9.0}
    assert found.dense_ratio == pytest.approx(0.9)
    assert remembered_kernels(cpu, torch.float16, 16) == TritonBlocks(found.dense_ratio, True, fast)
    assert remembered_kernels(cpu, torch.float16, 32) == TritonBlocks()
    title, row, best = kernel_table([found]).splitlines()
    assert title.split() == ["microseconds", "a", "block", "torch", "one", "tile", "25%", "50%", "85%", "100%"]
    assert row.split()[-6:] == ["8000000.0", "7000000.0", "3000000.0", "5000000.0", "7500000.0", "9000000.0"]
    assert "64 pixels, 4 warps, 4 stages" in best
    assert "from 90% of the tiles on" in best
    clock = iter([64.0, *[RuntimeError("out of shared memory")] * 3])
    found = measure_kernels(cpu, "fp16", 16, 48, 96, candidates=candidates, seconds_of=seconds_of)
    assert found == "none of the launch settings runs on this GPU"
    monkeypatch.setattr(kernels, "why_no_kernels", lambda *_: "Triton is not installed")
    reason = measure_kernels(cpu, "fp16", 16, 48, 96)
    assert reason == "Triton is not installed"
    assert kernel_table([reason]) == "no kernels: Triton is not installed"


def test_the_ratio_of_tiles_that_is_measured_is_the_ratio_asked_for():
    grid = TileGrid.of(180, 320, 24)
    depth = spread_depth(grid, 0.25, 8)
    assert set(depth.unique().tolist()) == {0, 8}
    assert (depth > 0).float().mean().item() == pytest.approx(0.25, abs=0.005)


@pytest.mark.gpu
def test_kernels_are_measured_on_a_gpu():
    gpu = torch.device("cuda")
    found = measure_kernels(gpu, "fp16", 32, 180, 320, candidates=[LaunchSettings()])
    assert isinstance(found, KernelTimes), found
    assert 1e-7 < found.tiles["0.25"] < found.tiles["1"] < 1e-2
    assert remembered_kernels(gpu, torch.float16, 32).dense_ratio == found.dense_ratio


def test_8_bit_is_refused_in_words_that_fit(capsys: pytest.CaptureFixture[str]):
    for more in ((), ("--quick",)):
        assert run("benchmark", "--precision", "int8", *more) == 2
        assert "runs 8 bit as a row of its own" in capsys.readouterr().err


def test_wrong_sizes_are_refused(capsys: pytest.CaptureFixture[str]):
    assert run("benchmark", "--size", "320") == 2
    assert "320x180" in capsys.readouterr().err
    assert run("benchmark", "--rounds", "0") == 2
