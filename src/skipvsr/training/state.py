"""The state of a training run on disk, and resuming from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch.optim.swa_utils import AveragedModel

from skipvsr.errors import ConfigError, TrainingError
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import TrainingConfig
from skipvsr.video.files import whole_file, write_whole

RUN = "run.json"
LAST = "last.pt"
FINISHED = "finished.json"
_OF_THE_MACHINE = ("cache_bytes", "cache_on_gpu", "threads")


@dataclass
class StageState:
    """Everything that a stage changes as it goes.

    Args:
        network, average, optimiser: what is trained, its averaged weights, and Adam.
        scaler: scales losses where fp16 needs it.
        step: steps done.
        best_score: of the validations so far.
        validated: the step of the last one.
        seconds: that steps and validations took.
        unwritten: what the log has not written yet.
    """

    network: SkipVSR
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    step: int = 0
    best_score: float = float("-inf")
    validated: int = 0
    seconds: float = 0.0
    unwritten: dict[str, Any] = field(default_factory=lambda: {"sums": {}, "counted": 0})

    @property
    def saved_network(self) -> SkipVSR:
        """The weights that are validated and saved: the averaged ones where there are any."""
        if self.average is None:
            return self.network
        assert isinstance(self.average.module, SkipVSR)
        return self.average.module

    def save(self, folder: Path) -> None:
        """Write `last.pt`: whole, or the one before stays."""
        content = {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "step": self.step,
            "best_score": self.best_score,
            "validated": self.validated,
            "seconds": self.seconds,
            "unwritten": self.unwritten,
        }
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / LAST) as file:
            torch.save(content, file)

    def load(self, folder: Path) -> bool:
        """Go on from `last.pt`; False where there is none. Raises TrainingError where it is damaged."""
        path = folder / LAST
        if not path.exists():
            return False
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)  # what loads it moves it
            self.network.load_state_dict(content["network"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
            self.optimiser.load_state_dict(content["optimiser"])
            if self.scaler is not None and content["scaler"] is not None:
                self.scaler.load_state_dict(content["scaler"])
            self.step, self.best_score = content["step"], content["best_score"]
            self.validated = content.get(
                "validated", self.step
            )  # not in older checkpoints, which came after validation
            self.seconds = content.get("seconds", 0.0)
            self.unwritten = content.get("unwritten", self.unwritten)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
            raise TrainingError(
                f"{path} cannot be continued from ({error}); remove it to start the stage again"
            ) from error
        return True


def check_run(out: Path, config: TrainingConfig, *, resume: bool) -> None:
    """Check that a run may go on, or begin, in this folder.

    Raises:
        ConfigError: the folder holds a run and `resume` is off, or holds a run with other settings.
    """
    path = out / RUN
    if not path.exists():
        return
    if not resume:
        raise ConfigError(f"{out} holds a run already; go on with --resume, or choose another --out")
    before, settings = _decisive(_noted(path)), _decisive(_settings(config))
    if before != settings:
        key = _first_difference(before, settings)
        raise ConfigError(
            f"{out} was started with another {key}; a run is resumed with the settings it was started with"
        )


def note_run(out: Path, config: TrainingConfig) -> None:
    """Store the configuration of the run in its folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RUN).write_text(json.dumps(_settings(config), indent=2) + "\n")


def note_finished(folder: Path, facts: dict[str, Any]) -> None:
    """Leave a file that says how the stage in this folder ended."""
    write_whole(folder / FINISHED, json.dumps(facts, indent=2) + "\n")


def read_finished(folder: Path) -> dict[str, Any] | None:
    """What `note_finished` left; None where the stage is not done. Raises TrainingError where it is damaged."""
    path = folder / FINISHED
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove it to go on from {LAST}") from error


def _settings(config: TrainingConfig) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config)))


def _noted(path: Path) -> dict[str, Any]:
    """What `note_run` wrote; settings that came into being since then have their defaults, as they had in effect."""
    text = path.read_text(encoding="utf-8")
    try:
        return _settings(TypeAdapter(TrainingConfig).validate_json(text))
    except ValidationError:  # a setting that is no more: it differs, and the comparison names it
        return json.loads(text)


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that change what is trained; another machine may have more memory and more cores."""
    return settings | {"data": {key: value for key, value in settings["data"].items() if key not in _OF_THE_MACHINE}}


def _first_difference(before: Any, after: Any, key: str = "") -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                return _first_difference(before.get(name), after.get(name), f"{key}.{name}".lstrip("."))
    if isinstance(before, list) and isinstance(after, list):
        for index, (old, new) in enumerate(zip(before, after, strict=False)):
            if old != new:
                return _first_difference(old, new, f"{key}.{index}")
    return f"{key} ({before!r}, now {after!r})"
