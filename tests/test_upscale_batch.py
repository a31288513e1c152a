"""Many files at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from skipvsr import upscale_video
from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.upscale.batch import is_batch, plan, upscale_many
from skipvsr.upscale.plan import disk_bytes, memory_bytes, warn_of_shortage
from skipvsr.video.images import write_image
from skipvsr.video.open import probe
from skipvsr.video.write import EncodeOptions
from tests.media import make_video, picture
from tests.test_cli import run


def tree(root: Path) -> Path:
    """Two videos, a folder of images, and what is no input."""
    (root / "b" / "shots").mkdir(parents=True)
    (root / ".cache").mkdir()
    make_video(root / "one.mp4", 2)
    make_video(root / "b" / "two.avi", 3, codec="mpeg4", options={"qscale": "3"})
    make_video(root / ".cache" / "hidden.mp4", 2)
    (root / "b" / "notes.txt").write_text("no video")
    for index in range(2):
        write_image(root / "b" / "shots" / f"{index}.png", picture(index))
    return root


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_tree_keeps_its_structure(tmp_path: Path):
    outcomes = list(upscale_many([tree(tmp_path / "in")], tmp_path / "out", "bicubic"))
    assert [outcome.report.frames for outcome in outcomes if outcome.report] == [2, 3, 2]
    assert contents(tmp_path / "out") == ["b/shots/0.png", "b/shots/1.png", "b/two.mkv", "one.mp4"]
    assert probe(tmp_path / "out" / "b" / "two.mkv").width == 192


def test_what_is_done_is_skipped_and_what_fails_stops_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tree(tmp_path / "in")
    (root / "broken.mp4").write_bytes(b"no video at all")
    (root / "one.mp4").replace(root / "z.mp4")
    arguments = ("upscale", root, tmp_path / "out", "--model", "bicubic")
    assert run(*arguments, "--quiet") == 1
    out, err = capsys.readouterr()
    assert out == ""
    failure, summary = err.splitlines()
    assert failure.startswith(f"skipvsr: {root / 'broken.mp4'} cannot be read")
    assert failure.count("broken.mp4") == 1
    assert summary == "skipvsr: 1 of 4 files failed"
    assert contents(tmp_path / "out") == ["b/shots/0.png", "b/shots/1.png", "b/two.mkv", "z.mp4"]
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in contents(tmp_path / "out")}
    (root / "broken.mp4").unlink()
    make_video(root / "broken.mp4", 2)
    assert run(*arguments, "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "skipped",
        "skipped",
        "report",
        "skipped",
    ]
    assert {event["source"] for event in events if event["event"] == "report"} == {str(root / "broken.mp4")}
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}
    assert after == before


def test_a_video_that_ends_early_gives_status_3(tmp_path: Path):
    source = make_video(tmp_path / "a.mkv", 60, codec="mpeg4", options={"qscale": "1"})
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    make_video(tmp_path / "b.mp4", 2)
    assert run("upscale", source, tmp_path / "b.mp4", tmp_path / "out", "--model", "bicubic", "--quiet") == 3
    assert contents(tmp_path / "out") == ["a.mkv", "b.mp4"]


def test_the_output_may_lie_in_the_input(tmp_path: Path):
    root = tree(tmp_path / "in")
    for _ in range(2):
        assert run("upscale", root, root / "out", "--model", "bicubic", "--quiet") == 0
    assert contents(root / "out") == ["b/shots/0.png", "b/shots/1.png", "b/two.mkv", "one.mp4"]


def test_several_inputs_have_a_place_each(tmp_path: Path):
    root = tree(tmp_path / "in")
    make_video(tmp_path / "two.mkv", 1)
    tasks = plan([tmp_path / "two.mkv", root, root / "b" / "shots"], tmp_path / "out")
    names = [str(task.destination.relative_to(tmp_path / "out")) for task in tasks]
    assert names == ["two.mkv", "in/b/shots", "in/b/two.mkv", "in/one.mp4", "shots"]


def test_what_cannot_be_planned_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tree(tmp_path / "in")
    with pytest.raises(ConfigError, match="would both become"):
        plan([root / "one.mp4", tmp_path / "in" / ".cache" / ".." / "one.mp4"], tmp_path / "out")
    make_video(root / "b" / "two.mkv", 1)
    with pytest.raises(ConfigError, match=r"two.avi and .*two.mkv would both become"):
        plan([root], tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        plan([root / "missing.mp4", root], tmp_path / "out")
    with pytest.raises(OutputError, match="is a file"):
        plan([root], root / "one.mp4")
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no videos"):
        plan([tmp_path / "empty"], tmp_path / "out")
    assert run("upscale", root, tmp_path / "out", "--model", "bicubic", "--trace", tmp_path / "t.npz") == 2
    assert "one input" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_links_out_of_the_tree_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = tree(tmp_path / "in")
    make_video(tmp_path / "secret.mp4", 1)
    (tmp_path / "elsewhere").mkdir()
    make_video(tmp_path / "elsewhere" / "more.mp4", 1)
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "again.mp4").symlink_to(root / "one.mp4")
    names = [task.destination.name for task in plan([root], tmp_path / "out")]
    assert names == ["again.mp4", "shots", "two.mkv", "one.mp4"]
    assert "leads out of" in caplog.text


def test_one_input_is_no_batch(tmp_path: Path):
    root = tree(tmp_path / "in")
    assert not is_batch([root / "one.mp4"])
    assert not is_batch([root / "b" / "shots"])
    assert is_batch([root])
    assert is_batch([root / "one.mp4", root / "b"])


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tree(tmp_path / "in")
    (root / "broken.mp4").write_bytes(b"no video at all")
    assert run("upscale", root, tmp_path / "out", "--model", "bicubic", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[4].startswith("4 files, about ")
    assert "cannot be read" in lines[2]
    assert f"{root / 'one.mp4'} -> {tmp_path / 'out' / 'one.mp4'}: 2 frames, 48x32 -> 192x128" in lines[3]
    assert all("s a frame" in line for line in (lines[0], lines[1], lines[3]))
    assert not (tmp_path / "out").exists()
    source = make_video(tmp_path / "a.mp4", 3)
    assert run("upscale", source, tmp_path / "b.mp4", "--dry-run", "--height", 64) == 0
    assert "48x32 -> 96x64" in capsys.readouterr().out
    assert not (tmp_path / "b.mp4").exists()


def test_the_memory_of_a_large_frame_is_foreseen():
    from skipvsr.checkpoints.load import read_checkpoint
    from skipvsr.inference.windows import Windows

    config = read_checkpoint("compact").config
    # Measured: 7.84 GB with 1920x1080 frames and windows of 4 (docs/routing.md).
    assert memory_bytes(config, 1080, 1920, Windows(4, 4)) == pytest.approx(7.84e9, rel=0.3)
    assert memory_bytes(config, 180, 320, Windows(32, 4)) < 1.5e9


def test_the_disk_of_an_output_is_foreseen(tmp_path: Path):
    """Of noise, for which no codec can do anything, and of a smooth picture."""
    noise = list(np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8))
    source = make_video(tmp_path / "in.mp4", noise)
    upscale_video(source, tmp_path / "out.mkv", "bicubic", encoding=EncodeOptions(codec="ffv1", pixel_format="yuv444p"))
    foreseen = disk_bytes(6, 192, 256, tmp_path / "out.mkv", EncodeOptions(codec="ffv1"))
    assert 0.3 < (tmp_path / "out.mkv").stat().st_size / foreseen < 2
    assert disk_bytes(6, 192, 256, tmp_path / "out.mp4") < foreseen / 10
    assert disk_bytes(6, 192, 256, tmp_path / "out") == foreseen


def test_too_little_memory_or_disk_is_said_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    source = make_video(tmp_path / "in.mp4", 3)
    usage = shutil.disk_usage(tmp_path)
    upscale_video(source, tmp_path / "enough.mp4", "bicubic")
    assert not caplog.messages
    monkeypatch.setattr("skipvsr.upscale.plan.shutil.disk_usage", lambda folder: usage._replace(free=20_000))
    memory = psutil.virtual_memory()._replace(available=1 << 28)
    monkeypatch.setattr("skipvsr.upscale.plan.psutil", SimpleNamespace(virtual_memory=lambda: memory))
    warn_of_shortage(1 << 29, 15_000, tmp_path)
    assert caplog.messages[0].startswith("this takes about 0.5 GiB of memory, and 0.2 GiB are available")
    assert caplog.messages[1].startswith("this takes about 0.0 GiB of disk while it is made")
    caplog.clear()
    warn_of_shortage(1 << 27, 9_000, tmp_path)
    assert not caplog.messages
