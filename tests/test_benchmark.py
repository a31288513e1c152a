"""The arithmetic of `skipvsr benchmark`; what it measures is nobody's to test."""

from __future__ import annotations

import json

import pytest
import torch

from skipvsr import ComputeOptions, ConfigError, Upscaler, load_model
from skipvsr.benchmark import quick
from skipvsr.benchmark.quick import SIZES, moving_frames, quick_benchmark
from skipvsr.inference.options import PRESETS
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale.measure import remembered_steps
from skipvsr.upscale.speed import StepSeconds
from tests.test_cli import run


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take what pixels and budget say; encoding 10 ns an output pixel."""

    def measured(upscaler: Upscaler, frames: list[torch.Tensor], *_: object, **__: object):
        pixels = frames[0].shape[-2] * frames[0].shape[-1]
        budget = upscaler.compute.budget or 1.0
        return StepSeconds(1e-7 * pixels, 8e-7 * budget * pixels, 8e-7 * budget * pixels, 0.0), budget == 0.25

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
    per_frame = pixels * (1e-7 + 0.5 * 8e-7 * (2 + lookahead) + 16 * 1e-8)
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
    assert run("benchmark") == 2
    assert "give --quick" in capsys.readouterr().err


def test_the_frames_move_by_a_pixel_and_have_detail():
    first, second = moving_frames(60, 90, 2)
    assert torch.equal(first[..., 1:], second[..., :-1])
    assert (first >= 0).all()
    assert (first <= 1).all()
    assert first.std() > 0.05


def test_a_preset_is_a_budget():
    assert ComputeOptions(preset="fast") == ComputeOptions(budget=0.25)
    assert ComputeOptions(preset="balanced") == ComputeOptions(budget=0.5)
    assert ComputeOptions(preset="best").skips is False
    with pytest.raises(ConfigError, match="more than one of preset, budget"):
        ComputeOptions(preset="fast", budget=0.5)
    with pytest.raises(ConfigError, match="'turbo'; choose one of fast, balanced, best"):
        ComputeOptions(preset="turbo")  # pyright: ignore[reportArgumentType]
