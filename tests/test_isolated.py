"""Files of a batch in processes of their own: what happens to one costs that one."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import psutil
import pytest
from filelock import FileLock

from skipvsr import OutputOptions, StreamOptions, upscale_many, upscale_video
from skipvsr.errors import ConfigError, CrashError, OutputError
from skipvsr.upscale.batch import Outcome
from skipvsr.upscale.progress import Progress
from skipvsr.video.colour import BT2020_NCL, LIMITED, PQ, ColourSpec
from skipvsr.video.encode import EncodeOptions
from skipvsr.video.open import read_clip
from tests.media import make_video
from tests.test_cli import run

# What a file's name makes its process do when the file is opened.
TRAPS = """
import os, signal, time
from skipvsr.video import read
original = read.VideoReader.__init__
def init(self, path, *args, **kwargs):
    name = os.path.basename(path)
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("exit"):
        os._exit(7)
    if name.startswith("defect"):
        raise KeyError("no such thing")
    if name.startswith("hang"):
        signal.pause()
    original(self, path, *args, **kwargs)
read.VideoReader.__init__ = init
"""
LeftBehind: TypeAlias = Callable[[], list[psutil.Process]]
LOSSLESS = EncodeOptions(codec="ffv1", pixel_format="yuv444p")


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that do something to the process that opens them."""
    (tmp_path / "traps").mkdir()
    (tmp_path / "traps" / "sitecustomize.py").write_text(TRAPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "traps"), prepend=":")


@pytest.fixture
def left_behind() -> LeftBehind:
    """Processes that were started since and are still there; other tests have helpers of multiprocessing's."""
    before = psutil.Process().children(recursive=True)
    return lambda: [child for child in psutil.Process().children(recursive=True) if child not in before]


def messages(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.task.source.name: str(outcome.error) for outcome in outcomes if outcome.error is not None}


@pytest.mark.usefixtures("traps")
def test_a_process_that_dies_costs_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left_behind: LeftBehind
):
    names = ["crash.mkv", "defect.mkv", "exit.mkv", "killed.mkv", "whole.mkv"]
    (tmp_path / "in").mkdir()
    for name in names:
        make_video(tmp_path / "in" / name, 3)
    assert run("upscale", tmp_path / "in", tmp_path / "out", "--model", "bicubic", "--json") == 1
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    failed = {Path(event["source"]).name: event["message"] for event in events if event["event"] == "failed"}
    assert list(failed) == names[:-1]
    assert "(SIGSEGV)" in failed["crash.mkv"]
    assert "(SIGKILL), most likely because memory ran out" in failed["killed.mkv"]
    assert "(status 7)" in failed["exit.mkv"]
    assert "(KeyError: 'no such thing')" in failed["defect.mkv"]
    assert [line.count(name) for line, name in zip(err.splitlines(), names[:-1], strict=False)] == [1] * 4
    reports = [event for event in events if event["event"] == "report"]
    assert [(Path(report["source"]).name, report["frames"]) for report in reports] == [("whole.mkv", 3)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")) == ["whole.mkv"]
    assert left_behind() == []


@pytest.mark.usefixtures("traps")
def test_a_process_that_hangs_is_given_up(tmp_path: Path, left_behind: LeftBehind):
    make_video(tmp_path / "hang.mkv", 3)
    outcomes = list(upscale_many([tmp_path / "hang.mkv"], tmp_path / "out", "bicubic", stall_seconds=1))
    assert isinstance(outcomes[0].error, CrashError)
    assert f"{tmp_path / 'hang.mkv'} was given up: for 1 seconds" in str(outcomes[0].error)
    assert left_behind() == []


def test_results_are_those_of_one_process(tmp_path: Path):
    """Every frame is told, and what is written is the same to the last bit."""
    sources = [make_video(tmp_path / f"{name}.mkv", 5) for name in "ab"]
    heard: list[Progress] = []
    outcomes = list(upscale_many(sources, tmp_path / "out", on_progress=heard.append, budget=0.5, encoding=LOSSLESS))
    told = [frames for frames, _ in groupby(progress.frames_done for progress in heard)]
    assert told == [*range(6), *range(6)]
    upscale_video(sources[0], tmp_path / "here.mkv", budget=0.5, encoding=LOSSLESS)
    for outcome in outcomes:
        assert outcome.report is not None
        assert outcome.report.active_ratio < 1
        assert np.array_equal(read_clip(outcome.task.destination), read_clip(tmp_path / "here.mkv"))


def test_options_that_cannot_work_stop_at_once_and_those_of_one_file_do_not(tmp_path: Path):
    for name in ("a.mp4", "c.mp4"):
        make_video(tmp_path / name, 2)
    colour = ColourSpec(BT2020_NCL, LIMITED, BT2020_NCL, PQ)
    make_video(tmp_path / "b.mp4", 2, pixel_format="yuv420p10le", colour=colour)
    impossible: list[dict[str, Any]] = [
        {"budget": 0.5}, {"device": "abacus"}, {"encoding": EncodeOptions(codec="abacus")},
    ]  # fmt: skip
    for wrong in impossible:
        with pytest.raises(ConfigError, match=r"abacus|no blocks to skip"):
            list(upscale_many([tmp_path], tmp_path / "out", "bicubic", **wrong))
    with pytest.raises(TypeError, match="no argument 'bugdet'"):
        list(upscale_many([tmp_path], tmp_path / "out", "bicubic", bugdet=0.5))  # pyright: ignore[reportCallIssue]
    outcomes = list(upscale_many([tmp_path], tmp_path / "out", "bicubic", encoding=EncodeOptions(codec="mpeg4")))
    assert [outcome.report is not None for outcome in outcomes] == [True, False, True]
    assert "the input is HDR" in messages(outcomes)["b.mp4"]


def test_notes_of_a_file_are_notes_here(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = make_video(tmp_path / "a.mkv", 3, options={"crf": "20", "x264-params": "tff=1"})
    list(upscale_many([source], tmp_path / "out", "bicubic"))
    assert [record.levelno for record in caplog.records if "is interlaced" in record.message] == [logging.WARNING]


def resumable(folder: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"stream": StreamOptions(window=2, lookahead=1)}
    return {
        **options,
        "output": OutputOptions(encoding=LOSSLESS, segment_length=2),
        "folder": folder,
        "model": "bicubic",
    }


def test_an_interruption_reaches_the_job_and_says_what_is_kept(tmp_path: Path, left_behind: LeftBehind):
    source = make_video(tmp_path / "a.mkv", 300)

    def stop(progress: Progress) -> None:
        if progress.frames_done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        list(upscale_many([source], on_progress=stop, **resumable(tmp_path / "out")))
    assert [
        note.endswith("frames are kept: the same command goes on from there") for note in caught.value.__notes__
    ] == [True]
    assert left_behind() == []
    (outcome,) = upscale_many([source], **resumable(tmp_path / "out"))
    assert outcome.report is not None
    assert 2 <= outcome.report.resumed_at < 300


PARENT = """
import os, pathlib, signal, sys
from skipvsr import upscale_many
from tests.test_isolated import resumable
def stop(progress):
    if progress.frames_done == 8:
        os.kill(os.getpid(), signal.SIGKILL)
list(upscale_many(sys.argv[1:-1], on_progress=stop, **resumable(pathlib.Path(sys.argv[-1]))))
"""


def test_a_job_ends_with_its_parent_and_goes_on_with_the_next(tmp_path: Path):
    """The parent is killed; its job does not go on behind its back, and holds no lock."""
    sources = [make_video(tmp_path / name, 300) for name in ("a.mkv", "b.mkv")]
    arguments = [sys.executable, "-c", PARENT, *map(str, sources), str(tmp_path / "out")]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -9, done.stderr
    with FileLock(tmp_path / "out" / ".a.mkv.skipvsr" / "lock", timeout=60):
        assert not (tmp_path / "out" / "a.mkv").exists()
    outcomes = list(upscale_many(sources, **resumable(tmp_path / "out")))
    assert [outcome.report is not None and outcome.report.frames for outcome in outcomes] == [300, 300]
    assert outcomes[0].report is not None
    assert 2 <= outcomes[0].report.resumed_at < 300


def test_a_folder_that_cannot_be_made_costs_its_files(tmp_path: Path):
    for name in ("one/a.mp4", "two/b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        make_video(tmp_path / "in" / name, 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one").write_text("in the way")
    outcomes = list(upscale_many([tmp_path / "in"], tmp_path / "out", "bicubic"))
    assert isinstance(outcomes[0].error, OutputError)
    assert outcomes[1].report is not None
