"""What a job is said to take, and what is remembered of the machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from skipvsr import ConfigError, InputError, Upscaler, estimate
from skipvsr.inference import remembered
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.remembered import recall, remember
from skipvsr.models.vsr import SkipVSR
from skipvsr.terms import Direction
from skipvsr.upscale import estimate as module
from skipvsr.upscale.measure import measure_steps
from skipvsr.upscale.options import OutputOptions
from skipvsr.upscale.plan import disk_bytes
from skipvsr.upscale.size import OutputSize
from skipvsr.upscale.speed import StepSeconds, counted_steps
from tests.media import make_video
from tests.test_cli import run


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Every step takes what its budget says, nothing is encoded; the budgets that were measured."""
    asked: list[float | None] = []

    def measured(upscaler: Upscaler, *_: object, **__: object) -> tuple[StepSeconds, bool]:
        asked.append(upscaler.compute.budget)
        budget = upscaler.compute.budget or 1.0
        return StepSeconds(flow=0.1, backward=0.4 * budget, forward=0.1 + 0.4 * budget, encode=0.0), False

    monkeypatch.setattr(module, "measure_steps", measured)
    monkeypatch.setattr(module, "measure_encoding", lambda *_: 0.2 / (192 * 128))
    return asked


def test_an_estimate_adds_up(tmp_path: Path, steady: list, tiny: SkipVSR):
    source = make_video(tmp_path / "in.mp4", 50)
    found = estimate(source, tmp_path / "out.mp4", tiny, window=8, lookahead=2)
    # Flow, backward steps over the lookahead too, forward steps, encoding.
    assert found.seconds_per_frame == pytest.approx(0.1 + 0.4 * 10 / 8 + 0.5 + 0.2)
    assert found.seconds == pytest.approx(50 * found.seconds_per_frame)
    assert found.frames_per_second == pytest.approx(1 / found.seconds_per_frame)
    assert found.output_size == (192, 128)
    assert found.file_bytes == disk_bytes(50, 128, 192, tmp_path / "out.mp4")
    assert found.disk_bytes == 2 * disk_bytes(50, 128, 192, tmp_path / "out.mp4")
    assert found.disk_available is not None
    assert found.most_frames_per_second is None
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_measurement_is_remembered_for_this_model_size_and_setting(tmp_path: Path, steady: list, tiny: SkipVSR):
    source, out = make_video(tmp_path / "in.mp4", 5), tmp_path / "out.mp4"
    first = estimate(source, out, tiny)
    again = estimate(source, out, tiny)
    assert (first.remembered, again.remembered, len(steady)) == (False, True, 1)
    assert again.seconds_per_frame == first.seconds_per_frame
    other = torch.zeros(40, 56, 3, dtype=torch.uint8).numpy()
    larger = make_video(tmp_path / "larger.mp4", [other] * 5)
    assert not estimate(larger, out, tiny).remembered
    assert not estimate(source, out, tiny, tile_size=16).remembered
    with torch.no_grad():
        next(tiny.parameters()).add_(1)
    assert not estimate(source, out, tiny).remembered


def test_what_a_busy_machine_says_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: SkipVSR):
    steps = StepSeconds(1.0, 1.0, 1.0, 0.0)
    monkeypatch.setattr(module, "measure_steps", lambda *_, **__: (steps, True))
    source = make_video(tmp_path / "in.mp4", 5)
    for _ in range(2):
        found = estimate(source, tmp_path / "out.mp4", tiny)
        assert (found.remembered, found.busy) == (False, True)


def test_a_target_that_cannot_be_reached_says_what_can(
    tmp_path: Path, steady: list, capsys: pytest.CaptureFixture[str]
):
    source = make_video(tmp_path / "in.mp4", 40)
    fastest = 1 / (0.1 + 0.02 * (1 + 4 / 32) + 0.12 + 0.2)
    words = ("upscale", source, tmp_path / "out.mp4", "--dry-run", "--target-fps")
    assert run(*words, 5) == 0
    out = capsys.readouterr().out
    assert f"5 frames/s cannot be reached here: {fastest:.2g} is the most for this model and size" in out
    assert steady == [1.0, 0.05]
    assert run(*words, 1) == 0
    out = capsys.readouterr().out
    assert "cannot be reached" not in out
    assert "about 0:40 at 1 frames/s" in out
    # More than all blocks need is not spent.
    found = estimate(source, tmp_path / "out.mp4", target_fps=0.1)
    assert found.frames_per_second == pytest.approx(1 / (0.1 + 0.4 * (1 + 4 / 32) + 0.5 + 0.2))


def test_the_dry_run_prints_time_size_and_disk(tmp_path: Path, steady: list, capsys: pytest.CaptureFixture[str]):
    source = make_video(tmp_path / "in.mp4", 40, audio_codec="aac", audio_seconds=1.0)
    words = ("upscale", source, tmp_path / "out.mp4", "--dry-run")
    assert run(*words) == 0
    line = capsys.readouterr().out
    pattern = (
        r"40 frames, 48x32 -> 192x128; with compact(?:-video)? \(x4; h264 at .*\); "
        r"about 0:50 at 0.8 frames/s \(1.25 s a frame\); about 0.112 MiB, while it is made "
        r"0.225 MiB of disk \(.* free\); .* of memory \(.* available\); with 1 sound stream"
    )
    assert re.search(pattern, line), line
    assert run(*words, "--json") == 0
    events = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["estimate", "report"]
    assert (events[0]["frames"], events[0]["output_size"], events[0]["remembered"]) == (40, [192, 128], True)


def test_large_frames_are_measured_on_a_part_of_them(monkeypatch: pytest.MonkeyPatch, tiny: SkipVSR):
    seen: list[tuple[int, int]] = []
    propagate = SkipVSR.propagate

    def watched(self: SkipVSR, direction: Direction, frame: torch.Tensor, *rest: Any) -> torch.Tensor:
        if direction == "forward":
            seen.append((frame.shape[-2], frame.shape[-1]))
        return propagate(self, direction, frame, *rest)

    monkeypatch.setattr(SkipVSR, "propagate", watched)
    upscaler = Upscaler(tiny, ComputeOptions(), StreamOptions())
    frames = [torch.rand(3, 1080, 1920) for _ in range(4)]
    steps = []
    found, _ = measure_steps(upscaler, frames, 1, seconds=0.0, on_step=lambda: steps.append(1))
    assert seen == [(48, 84)] * 4
    assert len(steps) == 12
    # A part stands for the whole by its counted work: five hundred times as much.
    whole, part = counted_steps(upscaler, 1080, 1920, 1), counted_steps(upscaler, 48, 84, 1)
    assert 450 < whole.forward / part.forward < 550
    assert found.measured
    assert min(found.flow, found.backward, found.forward) > 0
    seen.clear()
    measure_steps(upscaler, [torch.rand(3, 40, 50)], 1)  # small enough at once; a single frame is repeated
    assert seen == [(40, 50)] * 4


def test_estimates_refuse_what_the_job_would_refuse(tmp_path: Path, tiny: SkipVSR):
    source = make_video(tmp_path / "in.mp4", 3)
    with pytest.raises(InputError):
        estimate(tmp_path / "missing.mp4", tmp_path / "out.mp4", tiny)
    with pytest.raises(ConfigError, match="no router"):
        estimate(source, tmp_path / "out.mp4", tiny, budget=0.5)
    with pytest.raises(TypeError, match="no argument 'colour'"):
        estimate(source, tmp_path / "out.mp4", tiny, colour="red")  # pyright: ignore[reportCallIssue]
    found = estimate(source, tmp_path / "out.mp4", tiny, output=OutputOptions(size=OutputSize(height=64)))
    assert found.output_size == (96, 64)


def test_memory_belongs_to_a_machine_and_survives_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SKIPVSR_CACHE", str(tmp_path / "deep" / "cache"))
    key = {"model": "a", "size": [1, 2]}
    assert recall("speed", key) is None
    remember("speed", key, [1.0, 2.0])
    assert recall("speed", {"size": [1, 2], "model": "a"}) == [1.0, 2.0]
    assert recall("speed", {**key, "model": "b"}) is None
    assert recall("encode", key) is None
    elsewhere = {**remembered.describe_machine(), "processor": "another"}
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "describe_machine", lambda: elsewhere)
        assert recall("speed", key) is None
    (tmp_path / "deep" / "cache" / "speed.json").write_text("{ half of")
    assert recall("speed", key) is None
    remember("speed", key, [3.0])
    assert recall("speed", key) == [3.0]
    monkeypatch.setenv("SKIPVSR_CACHE", "/proc/nowhere")
    remember("speed", key, [4.0])  # cannot be written: measured again next time
    assert recall("speed", key) is None
