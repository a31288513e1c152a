"""What a new user tries first, and what is said where it cannot work."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from skipvsr.inference import device
from skipvsr.training.config import read_config
from skipvsr.video.images import write_image
from skipvsr.video.open import probe
from tests.media import make_video, picture
from tests.test_cli import run

ROOT = Path(__file__).parents[1]


def test_an_odd_height_becomes_even_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = make_video(tmp_path / "in.mp4", 2)
    words = ("upscale", source, tmp_path / "out.mkv", "--model", "bicubic", "--quiet")
    assert run(*words[:-1], "--height", 81) == 0
    assert "note: the height is 80 and not 81" in capsys.readouterr().err
    info = probe(tmp_path / "out.mkv")
    assert (info.width, info.height) == (120, 80)
    # Asked for exactly, or in a pixel format of one's own, it is not touched.
    assert run(*words, "--overwrite", "--size", "121x81") == 2
    assert "needs an even width, not 121" in capsys.readouterr().err
    assert run(*words, "--overwrite", "--height", 81, "--pixel-format", "yuv444p") == 0
    assert probe(tmp_path / "out.mkv").height == 81
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "0.png", picture(0))
    assert run("upscale", tmp_path / "images", tmp_path / "larger", "--model", "bicubic", "--height", 81) == 0
    assert probe(tmp_path / "larger").height == 81
    assert "note" not in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = ("upscale", make_video(tmp_path / "in.mp4", 2), tmp_path / "out.mp4", "--device")
    monkeypatch.setattr(device.torch.version, "cuda", None)
    monkeypatch.setattr(device.torch.version, "hip", None)
    assert run(*words, "cuda") == 2
    err = capsys.readouterr().err
    assert f"this torch ({torch.__version__}) is built without CUDA" in err
    assert "pytorch.org/get-started" in err
    monkeypatch.setattr(device.torch.version, "cuda", "13.0")
    assert run(*words, "cuda:1") == 2
    assert "nvidia-smi" in capsys.readouterr().err
    assert run(*words, "gpu") == 2
    assert "choose cpu, or cuda" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_data_check_names_the_folder_with_the_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "val").mkdir()
    (tmp_path / "train" / "clips").mkdir(parents=True)
    make_video(tmp_path / "val" / "a.mp4", 2)
    assert run("data", "check", tmp_path) == 1
    assert f"there are clips in {tmp_path / 'val'}: give that folder" in capsys.readouterr().out
    make_video(tmp_path / "train" / "clips" / "b.mp4", 2)
    assert run("evaluate", tmp_path, "--model", "bicubic") == 1
    assert f"clips in {tmp_path / 'val'}, {tmp_path / 'train' / 'clips'}: give one of these" in capsys.readouterr().err
    assert run("data", "check", tmp_path / "train" / "clips") == 0


def test_paths_of_a_configuration_start_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = read_config(ROOT / "configs" / "smoke.toml")
    assert Path(config.data.train[0].root) == ROOT / "assets"
    assert Path(config.validation.clips[0].root) == ROOT / "assets"
    monkeypatch.chdir(ROOT)
    config = read_config("configs/compact/compact.toml", ["validation.clips.0.root=elsewhere"])
    assert config.data.train[0].root == "../shared/data/train/clips"
    assert config.data.stills == "../shared/data/train/stills"
    assert config.validation.clips[0].root == "elsewhere"  # typed, so from where it was typed


def test_a_start_is_a_file_beside_the_configuration_or_a_name(tmp_path: Path):
    text = (ROOT / "configs" / "smoke.toml").read_text()
    (tmp_path / "spynet.pth").write_bytes(b"weights")
    both = text.replace('kind = "flow"', 'kind = "flow"\ninit = "spynet.pth"')
    both = both.replace('kind = "backbone"', 'kind = "backbone"\ninit = "compact"')
    (tmp_path / "own.toml").write_text(both)
    stages = read_config(tmp_path / "own.toml").stages
    assert [stage.init for stage in stages[:2]] == [str(tmp_path / "spynet.pth"), "compact"]


def test_training_without_data_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "smoke.toml", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    assert run("train", "configs/smoke.toml", "--cpu") == 1
    assert re.search(r"assets: no such folder", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_make_takes_torch_from_another_index():
    def commands(*words: str) -> list[str]:
        done = subprocess.run(
            ["make", "-n", "-B", ".venv/.ready", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return [line for line in done.stdout.splitlines() if "pip install" in line]

    first, *rest = commands("TORCH_INDEX=https://example.org/small")
    assert "--index-url https://example.org/small" in first
    assert re.search(r" torch==\d+\.\d+\.\d+$", first)
    assert len(rest) == 2
    assert "requirements.lock" in rest[0]
    assert commands() == rest
