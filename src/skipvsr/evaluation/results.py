"""Results on disk: every number per clip and frame, and an evaluation that goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skipvsr.data.clips import Clip
from skipvsr.data.low import Pairs
from skipvsr.errors import ConfigError
from skipvsr.evaluation.evaluate import ClipScore, Measures, Row, evaluate_clip
from skipvsr.evaluation.machine import describe_machine
from skipvsr.evaluation.settings import Setting
from skipvsr.models.vsr import SkipVSR
from skipvsr.video.faults import writing


class Evaluation:
    """A model on a set of clips, and what is known of it so far.

    Args:
        name: of the model, for the file.
        model: put where it should run; None: MATLAB's bicubic.
        dataset: the name of the set, for the file.
        clips: the set.
        pairs: where small frames come from.
        measures: how pictures are compared; None: as the field does.
        path: JSON file that is written after each clip, and resumed from; None: nothing is kept.
        overwrite: start over.
        command: what is being run, for the file.

    Raises:
        ConfigError: the file is of another model, dataset or measure, or no result at all.
    """

    def __init__(
        self, name: str, model: SkipVSR | None, dataset: str, clips: Sequence[Clip], pairs: Pairs, *,
        measures: Measures | None = None, path: Path | None = None, overwrite: bool = False, command: str = "",
    ) -> None:  # fmt: skip
        self._model, self._clips, self._pairs = model, clips, pairs
        self._measures = measures or Measures()
        self._path, self._command = path, command
        self._head = {
            "model": name,
            "weights": None if model is None else fingerprint(model),
            "dataset": dataset,
            "degradation": "its own" if pairs.own else pairs.degradation,
            "measures": vars(self._measures),
        }
        self._rows: dict[Setting, Row] = {}
        self._done = {} if path is None or overwrite or not path.exists() else self._read(path)

    def row(self, setting: Setting, on_clip: Callable[[str], object] | None = None) -> Row:
        """The clips at a setting, measured where they have not been; `on_clip` is called before each with its name."""
        scores = []
        for clip in self._clips:
            if on_clip is not None:
                on_clip(clip.name)
            key = (setting.policy, setting.value, setting.tiling, clip.name)
            fresh = key not in self._done
            if fresh:
                self._done[key] = evaluate_clip(self._model, clip, self._pairs, setting, self._measures)
            scores.append(self._done[key])
            self._rows[setting] = Row.of(setting, scores)
            if fresh:
                self._write()
        self._write()
        return self._rows[setting]

    def _read(self, path: Path) -> dict[tuple[Any, ...], ClipScore]:
        try:
            before = json.loads(path.read_text())
            if {key: before[key] for key in self._head} != json.loads(json.dumps(self._head)):
                raise ConfigError(
                    f"{path} is of another model, dataset or measure; choose another file, or give --overwrite"
                )
            done = {}
            for row in before["rows"]:
                scores = [ClipScore(**clip) for clip in row["clips"]]
                setting = Setting(row["policy"], row["value"], row["tiling"])
                # Rows that are not asked for this time stay in the file.
                self._rows[setting] = Row.of(setting, scores)
                done |= {(row["policy"], row["value"], row["tiling"], score.clip): score for score in scores}
            return done
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} is no result of an evaluation ({error}); give --overwrite to replace it"
            ) from error

    def _write(self) -> None:
        if self._path is None:
            return
        rows = [row.to_dict() for row in self._rows.values()]
        values = {**self._head, "rows": rows, "machine": describe_machine(), "command": self._command}
        write_text(self._path, json.dumps(values, indent=1) + "\n")


def fingerprint(model: SkipVSR) -> str:
    """Of all weights and buffers and of the calibration: what a resumed evaluation must have in common."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(repr(model.calibration).encode())
    return digest.hexdigest()[:16]


def write_text(path: Path, text: str) -> None:
    """A file that appears whole or not at all. Raises OutputError."""
    work = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            work.write_text(text)
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)
