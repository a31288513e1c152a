"""Bicubic interpolation in the place of a network: of either scale, and plain about what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from skipvsr.checkpoints.load import load_any_model, load_model
from skipvsr.checkpoints.native import fingerprint
from skipvsr.errors import ConfigError, ModelError
from skipvsr.evaluation.cost import stream_cost
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.resize import bicubic_upsample
from skipvsr.routing.trace import RoutingTrace
from skipvsr.upscale.frames import upscale_frames
from tests.media import make_video
from tests.test_cli import run

FRAMES = [torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


@pytest.mark.parametrize("scale", [2, 4])
def test_each_frame_is_enlarged_for_itself(scale: int):
    upscaler = Upscaler(Bicubic(scale))
    for frame, result in zip(FRAMES, upscaler.stream(FRAMES), strict=True):
        assert torch.equal(result, bicubic_upsample(frame, scale))
    assert stream_cost(upscaler, 20, 24).total == 0


def test_by_its_name_it_has_the_scale_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert load_any_model("bicubic").scale == 4
    assert load_any_model("bicubic", scale=2).scale == 2
    with pytest.raises(ConfigError, match="the model compact enlarges 4 times, and x2 was asked for"):
        load_any_model("compact", scale=2)
    with pytest.raises(ModelError, match="bicubic has no weights"):
        load_model("bicubic")
    source = make_video(tmp_path / "in.mkv", 2)
    assert run("upscale", source, tmp_path / "out.mkv", "--model", "bicubic", "--scale", 2, "--json") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["output_size"] == [2 * side for side in report["input_size"]]


def test_jobs_of_different_scales_do_not_mix():
    assert fingerprint(Bicubic(2)) != fingerprint(Bicubic(4))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--overlay", "overlay.mkv"), "which blocks ran, and bicubic has none"),
        (("--trace", "trace.npz"), "which blocks ran, and bicubic has none"),
        (("--budget", 0.5), "bicubic has no blocks to skip"),
        (("--threshold", 0.5), "bicubic has no blocks to skip"),
        (("--target-fps", 5), "bicubic has no blocks to skip"),
        (("--tiling", "patch"), "bicubic has no tiles"),
    ],
)
def test_what_only_a_network_can_do_is_refused_before_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple, said: str
):
    source = make_video(tmp_path / "in.mkv", 2)
    monkeypatch.chdir(tmp_path)
    assert run("upscale", source, "out.mkv", "--model", "bicubic", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_python_is_told_at_once():
    with pytest.raises(ConfigError, match="bicubic has none"):
        upscale_frames(FRAMES, "bicubic", trace=RoutingTrace())
    with pytest.raises(ConfigError, match="bicubic has none"):
        Upscaler(Bicubic()).stream(FRAMES, RoutingTrace())


def test_evaluation_does_not_take_a_budget_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "clips").mkdir()
    make_video(tmp_path / "clips" / "a.mkv", 2)
    assert run("evaluate", tmp_path / "clips", "--model", "bicubic", "--budget", 0.5) == 2
    assert "bicubic has no blocks to skip" in capsys.readouterr().err
