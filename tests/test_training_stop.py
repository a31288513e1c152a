"""Runs that stop before their end, at a time limit or by a signal, and go on: nothing is lost, and the result is the same."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from skipvsr.checkpoints.load import load_model
from skipvsr.cli.main import main
from skipvsr.cli.train import _duration
from skipvsr.errors import ConfigError, PausedError
from skipvsr.training import loop
from skipvsr.training.config import TrainingConfig
from skipvsr.training.loop import train
from skipvsr.training.state import StageState
from skipvsr.training.stop import Stop
from skipvsr.training.validate import Validator
from tests.test_training import ROOT, clips_folder, losses, only, smoke

STEP, VALIDATION, CHECKPOINT = 1.0, 5.0, 2.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips_folder(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Ctrl-C works, also where the tests are a shell's job in the background, which begins with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Clock:
    """Time that passes only where a step, a validation or a checkpoint says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(loop, "Stop", partial(Stop, clock=lambda: self.now))
        for owner, name, seconds in (
            (loop, "backward", STEP),
            (Validator, "run", VALIDATION),
            (StageState, "save", CHECKPOINT),
        ):
            monkeypatch.setattr(owner, name, self._slow(getattr(owner, name), seconds))

    def _slow(self, function: Any, seconds: float) -> Any:
        def slow(*args: Any) -> Any:
            self.now += seconds
            return function(*args)

        return slow


def backbone(data: Path, *overrides: str) -> TrainingConfig:
    """Six steps of the backbone, validated after the fourth and the last."""
    return only(smoke(data, "stages.1.optimisation.log_every=3", *overrides), "backbone")


def saved_step(folder: Path) -> int:
    return torch.load(folder / "last.pt", weights_only=True)["step"]


def test_it_stops_in_time_and_goes_on_as_if_it_had_not(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    config = backbone(data)
    whole = train(config, tmp_path / "whole", cpu=True)

    clock = Clock(monkeypatch)
    # Four steps, a checkpoint before a validation of unknown length, the validation, one step: 12 s; a checkpoint still fits
    # into 14, a step and a checkpoint do not.
    with pytest.raises(PausedError, match="time limit of 14 s; step 5 of 6 of stage 0-backbone is saved"):
        train(config, tmp_path / "parts", cpu=True, time_limit=14)
    assert clock.now == 100 + 14
    folder = tmp_path / "parts" / "0-backbone"
    assert saved_step(folder) == 5
    assert not (folder / "finished.json").exists()
    parts = train(config, tmp_path / "parts", resume=True, cpu=True)

    # The line of step 6 is the mean of steps 4 to 6, with those before the stop.
    assert losses(folder) == losses(tmp_path / "whole" / "0-backbone")
    assert len(losses(folder)) == 2
    assert parts[0].best_score == whole[0].best_score
    # Both runs: six steps and two validations, each with a checkpoint before it.
    assert parts[0].seconds == 6 * STEP + 2 * (VALIDATION + CHECKPOINT) - CHECKPOINT
    assert f"{torch.get_num_threads()} thread" in parts[0].machine
    for name, tensor in load_model(whole[0].best).state_dict().items():
        assert torch.equal(tensor, load_model(parts[0].best).state_dict()[name]), name


def test_a_validation_that_would_take_too_long_is_made_by_the_next_run(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    config = backbone(data, "validation.every=2")
    clock = Clock(monkeypatch)
    # Validation of step 2 ends at 9 s, step 4 at 11 s; another 5 s and a checkpoint are not left.
    with pytest.raises(PausedError, match="step 4 of 6"):
        train(config, tmp_path / "run", cpu=True, time_limit=15)
    assert clock.now == 100 + 13
    train(config, tmp_path / "run", resume=True, cpu=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "0-backbone" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation" in row] == [2, 4, 6]


def test_pieces_of_any_length_come_to_the_end(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    """All stages, in pieces so short that each does one thing only; what is finished needs no checkpoint any more."""
    config = smoke(data, *(f"stages.{index}.optimisation.steps=2" for index in range(4)))
    whole = train(config, tmp_path / "whole", cpu=True)
    Clock(monkeypatch)
    pieces, reports = 0, []
    while not reports:
        try:
            reports = train(config, tmp_path / "parts", resume=True, cpu=True, time_limit=0.5)
        except PausedError:
            pieces += 1
        for finished in (tmp_path / "parts").glob("*/finished.json"):
            finished.with_name("last.pt").unlink(missing_ok=True)
    assert pieces == 4 * 3 - 1  # two steps and a validation each
    assert [report.kind for report in reports] == ["flow", "backbone", "skip", "router"]
    assert [report.best_score for report in reports] == [report.best_score for report in whole]
    for stage in ("0-flow", "1-backbone", "2-skip", "3-router"):
        assert losses(tmp_path / "parts" / stage) == losses(tmp_path / "whole" / stage)


def test_a_stage_that_ends_in_time_is_followed_by_the_next(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    Clock(monkeypatch)
    # The flow stage: 4 steps, a checkpoint, a validation and a checkpoint: 13 s.
    with pytest.raises(PausedError, match="step 3 of 6 of stage 1-backbone"):
        train(smoke(data), tmp_path / "run", cpu=True, time_limit=18)
    assert (tmp_path / "run" / "0-flow" / "finished.json").exists()


def send(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Have the process get signals in its third step."""
    steps, backward = iter(range(1, 100)), loop.backward

    def interrupted(*args: Any) -> Any:
        if next(steps) == 3:
            for number in numbers:
                signal.raise_signal(number)
        return backward(*args)

    monkeypatch.setattr(loop, "backward", interrupted)


def alone(request: pytest.FixtureRequest) -> bool:
    """Run the test in a process of its own, and say whether this one is that process.

    Twice, in some dozens, a run of all tests ended here with a segmentation fault in C that printed nothing; alone never.
    """
    if "SKIPVSR_TEST_ALONE" in os.environ:
        return True
    words = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-s", "-p", "no:cacheprovider", request.node.nodeid]
    environment = {**os.environ, "SKIPVSR_TEST_ALONE": "1"}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return False


def test_sigterm_is_like_the_limit(
    request: pytest.FixtureRequest, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    if not alone(request):
        return
    before = signal.getsignal(signal.SIGTERM)
    send(monkeypatch, signal.SIGTERM, signal.SIGTERM)  # a cluster may send it again
    with pytest.raises(PausedError, match=r"stopped by SIGTERM; step 3 of 6 .* go on with .* --resume") as caught:
        train(backbone(data), tmp_path / "run", cpu=True)
    assert caught.value.exit_code == 75
    assert saved_step(tmp_path / "run" / "0-backbone") == 3
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_finishes_the_step_and_again_stops_at_once(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        send(patched, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as caught:
            train(backbone(data), tmp_path / "once", cpu=True)
    assert "step 3 of 6" in caught.value.__notes__[0]
    assert saved_step(tmp_path / "once" / "0-backbone") == 3
    send(monkeypatch, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(backbone(data), tmp_path / "twice", cpu=True)
    assert not (tmp_path / "twice" / "0-backbone" / "last.pt").exists()


def test_a_limit_must_be_positive(tmp_path: Path, data: Path):
    with pytest.raises(ConfigError, match="more than 0"):
        train(backbone(data), tmp_path / "run", cpu=True, time_limit=0)
    assert not (tmp_path / "run").exists()


class Two:
    """One of two processes, the other of which says `other`."""

    num_processes = 2
    device = torch.device("cpu")

    def __init__(self, other: float) -> None:
        self.other = other

    def reduce(self, mine: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return mine + self.other


def test_all_processes_stop_where_one_does():
    assert Stop(cast(Any, Two(1.0))).before("step")
    assert not Stop(cast(Any, Two(0.0))).before("step")
    with pytest.raises(PausedError, match="by another process; step 3 is saved"):
        Stop(cast(Any, Two(1.0))).end("step 3")


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step(tmp_path: Path, data: Path):
    """Under torchrun, whose own exit status is 1; each finds the other's checkpoint."""
    sets = [f"data.train.0.root={data}", f"validation.clips.0.root={data}", "validation.frames=2"]
    sets += [f"stages.{index}.optimisation.steps=1" for index in range(4)]
    arguments = [str(ROOT / "configs" / "smoke.toml"), "--cpu", *(word for key in sets for word in ("--set", key))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "skipvsr",
               "train", *arguments, "--out", str(tmp_path), "--resume"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    for limit, status in (("0.001s", 1), ("9h", 0)):
        done = subprocess.run(
            [*command, "--time-limit", limit],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stderr[-3000:]
        if status:
            assert done.stderr.count("skipvsr: stopped by") == 2
            assert saved_step(tmp_path / "0-flow") == 1
            assert not (tmp_path / "0-flow" / "best").exists()
    assert json.loads((tmp_path / "3-router" / "finished.json").read_text())["steps"] == 1
    rows = [json.loads(line) for line in (tmp_path / "0-flow" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 1]  # its loss, from the first run, and its validation, from the second


def test_scripts_know_by_the_exit_status(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]):
    words = [
        "train",
        str(ROOT / "configs" / "smoke.toml"),
        "--cpu",
        "--out",
        str(tmp_path / "run"),
        "--resume",
        "--json",
    ]
    for override in (f"data.train.0.root={data}", f"validation.clips.0.root={data}", "validation.frames=2"):
        words += ["--set", override]
    for index in range(4):
        words += ["--set", f"stages.{index}.optimisation.steps=1"]
    codes = []
    for limit in ("1e-3", "0.001s", "1h"):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--time-limit", limit])
        codes.append(ended.value.code)
        last = json.loads(capsys.readouterr().out.splitlines()[-1]) if ended.value.code != 2 else {}
        if ended.value.code == 75:
            assert last["event"] == "error"
            assert last["exit_code"] == 75
            assert "step 1 of 1 of stage 0-flow is saved; go on with the same command and --resume" in last["message"]
    assert codes == [2, 75, 0]
    assert last["event"] == "report"
    assert [stage["kind"] for stage in last["stages"]] == ["flow", "backbone", "skip", "router"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("8m", 480), ("1h30m", 5400), ("1h0m2.5s", 3602.5), ("45", 45)]
)
def test_durations(text: str, seconds: float):
    assert _duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "8 m", "-3s", "8d", "1:30", "nan"])
def test_what_is_no_duration(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="as in 90s, 8m or 1h30m"):
        _duration(text)
