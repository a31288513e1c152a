"""scripts/train_on_gpu.py: a run goes to another machine and comes home in parts, and is the run that never travelled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import load_script
from tests.test_training import ROOT, clips_folder, losses

file_parts = load_script("file_parts")
gpu = load_script("train_on_gpu")
SCRIPT = ROOT / "scripts" / "train_on_gpu.py"
FILES = {"a": b"0123456789", "b/c": b"", "b/d": b"x" * 25, "e": b"end"}


def packed(folder: Path, part_bytes: int, *, in_folders: bool = False) -> Path:
    """Some files in parts."""
    for name, content in FILES.items():
        (folder / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "from" / name).write_bytes(content)
    file_parts.write_parts(
        list(gpu.files_in(folder / "from")), folder / "parts", part_bytes, {"k": 1}, in_folders=in_folders
    )
    return folder / "parts"


@pytest.mark.parametrize("part_bytes", [1, 7, 38, 1000])
@pytest.mark.parametrize("in_folders", [False, True])
def test_what_is_cut_comes_together(tmp_path: Path, part_bytes: int, in_folders: bool):
    parts = packed(tmp_path, part_bytes, in_folders=in_folders)
    folders = sorted(parts.iterdir()) if in_folders else [parts]
    sizes = [path.stat().st_size for path in parts.rglob("part*") if path.is_file()]
    assert max(sizes) <= part_bytes
    assert len(sizes) == -(-38 // part_bytes)
    assert file_parts.read_parts(folders, tmp_path / "to") == []
    assert {name: (tmp_path / "to" / name).read_bytes() for name in FILES} == FILES


def test_what_is_whole_is_saved_where_a_part_is_missing(tmp_path: Path):
    parts = packed(tmp_path, 7)
    (parts / "part002").unlink()  # bytes 14 to 20, of b/d
    assert file_parts.read_parts([parts], tmp_path / "to") == ["b/d"]
    assert {path.name for path in (tmp_path / "to").rglob("*") if path.is_file()} == {"a", "c", "e"}
    assert (tmp_path / "to" / "e").read_bytes() == b"end"


def test_damage_and_mixtures_are_noticed(tmp_path: Path):
    parts = packed(tmp_path / "one", 7)
    damaged = (parts / "part000").read_bytes()
    (parts / "part000").write_bytes(b"X" + damaged[1:])
    with pytest.raises(ValueError, match="a is not what was packed"):
        file_parts.read_parts([parts], tmp_path / "to")
    (parts / "part000").write_bytes(damaged[:-1])  # cut short
    assert file_parts.read_parts([parts], tmp_path / "to2") == ["a"]
    with pytest.raises(ValueError, match="different rounds"):
        file_parts.read_parts([parts, packed(tmp_path / "two", 8)], tmp_path / "to3")
    with pytest.raises(ValueError, match=r"no index\.json"):
        file_parts.read_parts([tmp_path], tmp_path / "to4")


def test_nothing_is_written_elsewhere(tmp_path: Path):
    (tmp_path / "evil").write_bytes(b"x")
    file_parts.write_parts([("../evil2", tmp_path / "evil")], tmp_path / "parts", 10, {})
    with pytest.raises(ValueError, match="outside"):
        file_parts.read_parts([tmp_path / "parts"], tmp_path / "to")
    assert not (tmp_path / "evil2").exists()


def call(where: Path, *words: str, status: int = 0) -> str:
    """The script, as it is called at home or there."""
    environment = {**os.environ, "PYTHONPATH": str(where / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr[-2000:]
    return done.stdout


def checkout(folder: Path, clips: Path | None = None) -> Path:
    """A copy of the repository as far as it is needed, with clips beside it or without."""
    (folder / "repository").mkdir(parents=True)
    (folder / "repository" / "src").symlink_to(ROOT / "src")
    text = (ROOT / "configs" / "smoke.toml").read_text()
    for old, new in (("../assets", "../../clips"), ("frames = 8", "frames = 2")):
        assert old in text
        text = text.replace(old, new)
    first_two = text[: text.index('[[stages]]\nkind = "skip"')]
    assert "steps = 20" in first_two
    (folder / "repository" / "configs").mkdir()
    config = first_two.replace("steps = 20", "steps = 1").replace("steps = 40", "steps = 2")
    (folder / "repository" / "configs" / "tiny.toml").write_text(config.replace("log_every = 10", "log_every = 1"))
    if clips is not None:
        shutil.copytree(clips, folder / "clips")
    return folder / "repository"


@pytest.mark.slow
def test_a_run_that_travels_is_the_run_that_stayed(tmp_path: Path):
    """Three rounds, each on a machine with nothing: the second stops in the second stage, the third finishes."""
    home = checkout(tmp_path / "home", clips_folder(tmp_path / "clips"))
    words = ["train", "configs/tiny.toml", "--cpu"]
    subprocess.run([sys.executable, "-m", "skipvsr", *words, "--out", "runs/whole"], cwd=home, check=True,
                   env={**os.environ, "PYTHONPATH": str(home / "src"), "OMP_NUM_THREADS": "1"},
                   capture_output=True)  # fmt: skip

    for number, (limit, status) in enumerate([("1e-9", 75), ("1e-9", 75), ("60", 0)]):
        pack = ["pack", "configs/tiny.toml", "--run", "runs/tiny", "--to", "runs/carry", "--part-mib", "0.05"]
        said = call(home, *pack, "--wheels")
        there = checkout(tmp_path / f"there{number}")
        parts = sorted((home / "runs" / "carry").iterdir())
        assert len(parts) > 1
        assert str(parts[-1].relative_to(home)) in said
        go = ["go", "runs/carry", "--out", "out0", "--part-mib", "0.1", "--files", "3"]
        shutil.copytree(parts[0], there / "runs" / "carry" / parts[0].name)
        with_one = there / "runs" / "carry"
        call(there, *go, status=1)  # the others did not come yet
        assert not (with_one / "work").exists()
        for part in parts[1:]:
            shutil.copytree(part, with_one / part.name)
        said = call(there, *go, "--time-limit", limit, "--train", "--cpu", status=status)
        came = [there / "out0"]
        while "that is all" not in said:
            assert len(list(came[-1].iterdir())) == 3
            came.append(there / f"out{len(came)}")
            said = call(there, "more", "runs/carry", "--out", came[-1].name, "--files", "3")
        assert max(path.stat().st_size for folder in came for path in folder.iterdir()) <= 0.1 * 2**20
        assert len(came) > 1
        if number == 1:
            call(
                home, "join", str(came[0]), "--run", "runs/tiny", status=1
            )  # parts are missing: the run stays as it was
        call(home, "join", *map(str, came), "--run", "runs/tiny")
        shutil.rmtree(there.parent)

    assert (home / "runs" / "tiny.before" / "1-backbone" / "last.pt").exists()
    for stage in ("0-flow", "1-backbone"):
        travelled, stayed = (home / "runs" / name / stage for name in ("tiny", "whole"))
        assert losses(travelled) == losses(stayed)
        assert (travelled / "best" / "model.safetensors").read_bytes() == (
            stayed / "best" / "model.safetensors"
        ).read_bytes()
    assert not (home / "runs" / "tiny" / "0-flow" / "last.pt").exists()  # finished, and not carried
