"""The command line: what it prints, what it exits with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.cli.main import main
from skipvsr.models.vsr import VSRConfig
from skipvsr.video.read import probe
from tests.conftest import make_network
from tests.media import make_video, times
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
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # Progress comes at the start, and again once a second.
    assert {event["event"] for event in events[:-1]} == {"progress"}
    assert events[0]["frames_total"] == 3
    assert events[-1]["event"] == "done"
    assert events[-1]["frames"] == 3
    assert events[-1]["output_size"] == [192, 128]
    assert run("upscale", source, tmp_path / "out.mp4", "--model", model, "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["event"] == "error"
    assert json.loads(out)["exit_code"] == 1
    assert err.count("\n") == 1


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
    assert "compact" in capsys.readouterr().out
    assert run("models", "--json") == 0
    compact = json.loads(capsys.readouterr().out)["compact"]
    assert compact["parameters"] == 455_522
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


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert {"upscale", "train", "convert", "models"} <= set(out.split())
    assert run("nonsense") == 2
