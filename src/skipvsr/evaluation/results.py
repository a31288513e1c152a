"""Evaluations on disk: every number of every clip and frame; an interrupted evaluation continues where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipvsr.checkpoints.native import fingerprint
from skipvsr.data.clips import Clip
from skipvsr.data.pairs import Pairs
from skipvsr.errors import ConfigError
from skipvsr.evaluation.evaluate import evaluate_clip
from skipvsr.evaluation.measures import Measures
from skipvsr.evaluation.scores import ClipScore, Row
from skipvsr.evaluation.settings import Setting
from skipvsr.inference.machine import describe_machine
from skipvsr.models.any_model import AnyModel
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.blocks import SCALE
from skipvsr.video.files import write_whole

# Of parts whose names in JSON are no words.
PART_NAMES = {"trunk_inputs": "trunk inputs", "overlap": "overlap of patches", "extra": "beyond tiles' borders"}


@dataclass(frozen=True)
class ProcessGroup:
    """Processes that work side by side.

    Args:
        index: of this one, from 0.
        size: how many there are.
        gather: joins the lists of all of them, in their order, for each.
    """

    index: int = 0
    size: int = 1
    gather: Callable[[list[Any]], list[Any]] = list

    @classmethod
    def of_launcher(cls, *, cpu: bool) -> ProcessGroup:
        """Those that `accelerate launch` or `torchrun` started; this one alone without either.

        Raises:
            ConfigError: there are several, and accelerate is not installed.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        try:
            from accelerate import PartialState
            from accelerate.utils import gather_object
        except ModuleNotFoundError as error:
            raise ConfigError("several processes need accelerate; install skipvsr[train]") from error
        state = PartialState(cpu=cpu)
        return cls(state.process_index, state.num_processes, gather_object)


class Evaluation:
    """Evaluates a model on a set of clips, setting by setting; keeps the scores in a file and continues from it.

    Args:
        name: of the model, for the file.
        model: put where it should run.
        dataset: the name of the set, for the file.
        clips: the set.
        pairs: where small frames come from.
        measures: how images are compared; None: as the field does.
        path: JSON file that is written after each clip, and resumed from; None: nothing is kept.
        overwrite: start over.
        command: what is being run, for the file.
        group: the processes that share the clips; None: this one alone. Each needs all arguments; the first writes the file.

    Raises:
        ConfigError: the file is of another model, dataset or measure, or no result at all.
    """

    def __init__(
        self, name: str, model: AnyModel, dataset: str, clips: Sequence[Clip], pairs: Pairs, *,
        measures: Measures | None = None, path: Path | None = None, overwrite: bool = False, command: str = "",
        group: ProcessGroup | None = None,
    ) -> None:  # fmt: skip
        self._model, self._clips, self._pairs = model, clips, pairs
        self._measures = measures or Measures()
        self._path, self._command, self._group = path, command, group or ProcessGroup()
        self._head = {
            "model": name,
            "weights": None if isinstance(model, Bicubic) else fingerprint(model),
            "dataset": dataset,
            "degradation": "its own" if pairs.own else pairs.degradation,
            **({} if pairs.scale == SCALE else {"scale": pairs.scale}),
            "measures": vars(self._measures),
        }
        self._rows: dict[Setting, Row] = {}
        self._done = {} if path is None or overwrite or not path.exists() else self._read(path)

    def row(self, setting: Setting, on_clip: Callable[[str], object] | None = None) -> Row:
        """The clips at a setting, measured where they have not been; `on_clip` is called before each with its name."""
        for clips in self._rounds():
            mine = clips[self._group.index] if self._group.index < len(clips) else None
            found: list[tuple[str, ClipScore]] = []
            if mine is not None:
                if on_clip is not None:
                    on_clip(mine.name)
                if (setting, mine.name) not in self._done:
                    score = evaluate_clip(self._model, mine, self._pairs, setting, self._measures)
                    found.append((mine.name, score))
            found = self._group.gather(found)
            self._done |= {(setting, name): score for name, score in found}
            scores = [self._done[setting, clip.name] for clip in self._clips if (setting, clip.name) in self._done]
            self._rows[setting] = Row.of(setting, scores, self._measures.window)
            if found:
                self._write()
        self._write()
        return self._rows[setting]

    def knows(self, setting: Setting) -> bool:
        """Whether all clips have been measured at a setting."""
        return all((setting, clip.name) in self._done for clip in self._clips)

    def _rounds(self) -> list[list[Clip]]:
        """The clips, as many at a time as there are processes."""
        return [
            list(self._clips[start : start + self._group.size])
            for start in range(0, len(self._clips), self._group.size)
        ]

    def _read(self, path: Path) -> dict[tuple[Setting, str], ClipScore]:
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
                self._rows[setting] = Row.of(setting, scores, self._measures.window)
                done |= {(setting, score.clip): score for score in scores}
            return done
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} is no result of an evaluation ({error}); give --overwrite to replace it"
            ) from error

    def _write(self) -> None:
        if self._path is None or self._group.index:
            return
        rows = [row.to_dict() for row in self._rows.values()]
        values = {**self._head, "rows": rows, "machine": describe_machine(), "command": self._command}
        write_whole(self._path, json.dumps(values, indent=1) + "\n")


def parts_table(row: Row) -> list[tuple[str, ...]]:
    """What each part costs and takes, a frame: a header, a line a part, and a line for everything."""
    whole = sum(row.gmacs.values()) or 1.0
    lines: list[tuple[str, ...]] = [("part", "GMAC", "GMAC %", "s mean", "s median", "s p90")]
    for part in dict.fromkeys((*row.gmacs, *row.seconds)):
        gmacs, seconds = row.gmacs.get(part), row.seconds.get(part)
        cost = ("", "") if gmacs is None else (f"{gmacs:.3f}", f"{gmacs / whole:.1%}")
        times = ("", "", "") if seconds is None else tuple(f"{seconds[kind]:.4f}" for kind in ("mean", "median", "p90"))
        lines.append((PART_NAMES.get(part, part), *cost, *times))
    total = (f"{sum(row.gmacs.values()):.3f}", "100.0%", f"{row.seconds_per_frame:.4f}", "", "")
    return [*lines, ("everything", *total)]


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A header and lines as a Markdown table."""
    lines = [table[0], ("---",) * len(table[0]), *table[1:]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
