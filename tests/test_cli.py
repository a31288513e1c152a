"""The command line: what it prints, what it exits with."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.cli.main import main
from skipvsr.models.config import VSRConfig
from skipvsr.video.open import probe
from tests.conftest import make_network
from tests.media import make_video, picture, times
from tests.reference_basicvsr import random_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model folder."""
    network = make_network(VSRConfig(4, 1, "light", "light"))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_folder(Checkpoint(network.config, dict(network.state_dict())), folder)
    return str(folder)


def run(*arguments: object) -> int:
    """The exit status of a command line."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_upscale_shows_how_it_goes(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    source = make_video(tmp_path / "in.mp4", 5)
    assert run("upscale", source, tmp_path / "out.mp4", "--model", model) == 0
    out, err = capsys.readouterr()
    assert "5 frames in 1 scene, 48x32 -> 192x128" in out
    assert "5/5" in err
    assert "MiB" in err
    assert "frames/s" in err
    assert probe(tmp_path / "out.mp4").frame_count == 5


def test_quiet_is_quiet(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    source = make_video(tmp_path / "in.mp4", 3)
    assert run("upscale", source, tmp_path / "out.mp4", "--model", model, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_json_is_one_object_a_line(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    source = make_video(tmp_path / "in.mp4", 3)
    assert run("upscale", source, tmp_path / "out.mp4", "--model", model, "--json") == 0
    *progress, report = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # One line at the start and then one a second, so how many there are depends on the machine.
    assert {event["event"] for event in progress} == {"progress"}
    assert {event["frames_total"] for event in progress} == {3}
    assert report["event"] == "report"
    assert report["frames"] == 3
    assert report["output_size"] == [192, 128]
    assert run("upscale", source, tmp_path / "out.mp4", "--model", model, "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["event"] == "error"
    assert json.loads(out)["exit_code"] == 1
    assert err.count("\n") == 1


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the commands need: two clips, a model with a router, a foreign checkpoint and a training configuration."""
    root = tmp_path_factory.mktemp("files")
    (root / "clips").mkdir()
    for name in ("a", "b"):
        make_video(root / "clips" / f"{name}.mp4", [picture(3 * index, 128, 96) for index in range(4)])
    network = make_network(VSRConfig(4, 2, "light", "light", "gain"))
    save_folder(Checkpoint(network.config, dict(network.state_dict())), root / "model")
    torch.save({"params": random_weights(4, 1)}, root / "net.pth")
    clips = f'[{{ dataset = "folder", root = "{root}/clips" }}]'
    (root / "train.toml").write_text(
        f"""name = "one-step"
data = {{ train = {clips}, degradation = "bi" }}
network = {{ channels = 4, blocks = 1, flow = "light", reconstruction = "light" }}
validation = {{ clips = {clips}, frames = 2, every = 1 }}
stages = [{{ kind = "flow", optimisation = {{ steps = 1, batch = 1, crop = 16, learning_rate = 1e-3 }} }}]
"""
    )
    return {"out": root / "out", **{path.stem: path for path in root.iterdir()}}


# For each command: its words, and what its report must hold.
REPORTS = {
    "upscale": ("upscale {clips}/a.mp4 {out}.mp4 --model bicubic", {"frames": 4, "output_size": [512, 384]}),
    "compare": ("compare {clips}/a.mp4 {clips}/b.mp4 {out}.png", {"frames": 1}),
    "evaluate": ("evaluate {clips} --model bicubic --no-ssim --frames 2", {"model": "bicubic", "dataset": "folder"}),
    "train": ("train {train} --out {out}-run --cpu", {}),
    "calibrate": ("calibrate {model} {clips} --tile-size 8 --frames 2 --max-clips 1", {"tile_px": 8}),
    "reproduce": ("reproduce fig1 --preset smoke --data {clips} --out {out}-paper", {}),
    "data": ("data check {clips}", {"dataset": "folder", "errors": []}),
    "convert": ("convert {net} {out}-model", {}),
    "models": ("models", {}),
}


@pytest.mark.parametrize("name", REPORTS)
def test_json_means_the_same_in_every_command(name: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    words, expected = REPORTS[name]
    assert run(*words.format(**files).split(), "--json") == 0
    *progress, report = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["event"] for event in progress} <= {"progress", "notice"}
    assert report["event"] == "report"
    assert {key: report[key] for key in expected} == expected


def test_reports_hold_the_numbers(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ("evaluate", files["clips"], "--model", "bicubic", "--no-ssim", "--frames", 2)
    assert run(*words, "--json", "--output", tmp_path / "all.json") == 0
    *progress, report = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["clip"] for event in progress] == ["a", "b"]
    kept = json.loads((tmp_path / "all.json").read_text())["rows"][0]
    assert report["rows"][0]["setting"] == "full"
    assert report["rows"][0]["psnr_y"] == kept["psnr_y"] > 20
    assert report["rows"][0]["clips"] == [clip["clip"] for clip in kept["clips"]] == ["a", "b"]
    assert run("calibrate", files["model"], files["clips"], "--max-clips", 1, "--frames", 2, "--json") == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["thresholds"] == json.loads((files["model"] / "config.json").read_text())["calibration"]["thresholds"]
    assert run("calibrate", files["model"], files["clips"], "--max-clips", 0) == 2
    assert "--max-clips" in capsys.readouterr().err


def test_size_and_encoding_options(tmp_path: Path, model: str):
    source = make_video(tmp_path / "in.mp4", 2)
    options = ("--model", model, "--quiet", "--overwrite")
    out = tmp_path / "out.mkv"
    assert run("upscale", source, out, *options, "--height", 96) == 0
    assert (probe(out).width, probe(out).height) == (144, 96)
    assert (
        run("upscale", source, out, *options, "--size", "100x80", "--codec", "ffv1", "--pixel-format", "yuv444p") == 0
    )
    assert (probe(out).width, probe(out).height, probe(out).pixel_format) == (100, 80, "yuv444p")
    assert (
        run("upscale", source, out, *options, "--window", 1, "--lookahead", 0, "--no-scene-detection", "--crf", 30) == 0
    )
    assert len(times(out)) == 2


def test_user_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    source = make_video(tmp_path / "in.mp4", 2)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    cases = [
        (("upscale", tmp_path / "missing.mp4", tmp_path / "out.mp4", "--model", model), 1, "does not exist"),
        (("upscale", text, tmp_path / "out.mp4", "--model", model), 1, "text.mp4"),
        (("upscale", source, tmp_path / "out.mp4", "--model", "compat"), 1, "compact"),
        (("upscale", source, source, "--model", model), 1, "is the input"),
        (("upscale", source, tmp_path / "no" / "out.mp4", "--model", model), 1, "make it first"),
        (("upscale", source, tmp_path / "out.xyz", "--model", model), 2, "container"),
        (("upscale", source, tmp_path / "out.mp4", "--model", model, "--codec", "h999"), 2, "libx264"),
        (("upscale", source, tmp_path / "out.mp4", "--model", model, "--height", 4), 2, "from 16"),
        (("upscale", source, tmp_path / "out.mp4", "--model", model, "--height", 64, "--size", "64x64"), 2, "one of"),
        (("upscale", source, tmp_path / "out.mp4", "--model", model, "--window", 0), 2, "at least 1"),
        (("convert", tmp_path / "missing.pth", tmp_path / "model"), 1, "does not exist"),
        (("train", tmp_path / "missing.toml"), 2, "TOML"),
    ]
    for arguments, code, match in cases:
        assert run(*arguments) == code, arguments
        out, err = capsys.readouterr()
        assert match in err
        assert err.startswith("skipvsr: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err + out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "text.mp4"]


def test_debug_shows_the_traceback(tmp_path: Path, model: str):
    from skipvsr.errors import InputError

    with pytest.raises(InputError):
        main(["upscale", str(tmp_path / "missing.mp4"), str(tmp_path / "out.mp4"), "--model", model, "--debug"])


def test_convert_then_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"params": random_weights(4, 1)}, tmp_path / "net.pth")
    assert run("convert", tmp_path / "net.pth", tmp_path / "model") == 0
    source = make_video(tmp_path / "in.mp4", 2)
    assert run("upscale", source, tmp_path / "out.mp4", "--model", tmp_path / "model", "--quiet") == 0
    assert probe(tmp_path / "out.mp4").width == 192
    assert run("convert", tmp_path / "net.pth", tmp_path / "model") == 1
    assert "--overwrite" in capsys.readouterr().err


def test_models_are_listed(capsys: pytest.CaptureFixture[str]):
    assert run("models") == 0
    out = capsys.readouterr().out
    assert "\ncompact\n" in out
    assert re.search(r"^  parameters +455,522$", out, re.M)
    assert re.search(r"^  GMAC per 180x320 frame +21\.11$", out, re.M)
    assert re.search(r"^  lean iterations +500; 2,000$", out, re.M)
    assert run("models", "--json") == 0
    compact = json.loads(capsys.readouterr().out)["models"]["compact"]
    assert compact["parameters"] == 534_538
    assert compact["gmacs_per_180x320_frame"] == pytest.approx(21.11, abs=0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_and_say_so(tmp_path: Path, model: str, number: signal.Signals, code: int):
    source = make_video(tmp_path / "in.mp4", 400)
    command = [
        sys.executable,
        "-m",
        "skipvsr",
        "upscale",
        str(source),
        str(tmp_path / "out.mp4"),
        "--model",
        model,
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "progress"
    for _ in range(4):  # whoever is impatient does not stop the cleaning up
        process.send_signal(number)
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.splitlines()[-1].startswith("skipvsr: interrupted")
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["event"] == "error"
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
