"""The logs of a training run: a progress line, TensorBoard, and a file of JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from skipvsr.training.stage import Objective, Stage
from skipvsr.training.validate import Scores


class Log:
    """The log of one stage; silent on all processes but the main one.

    Args:
        folder: where `log.jsonl` and TensorBoard's files go.
        stage: what is trained.
        objective: says what becomes of its terms.
        start: steps done before.
        main: whether this process writes.
    """

    def __init__(self, folder: Path, stage: Stage, objective: Objective, start: int, *, main: bool) -> None:
        self._log_terms = objective.log_terms
        self._every = stage.optimisation.log_every
        self._steps = stage.optimisation.steps
        self._sums: dict[str, float] = {}
        self._counted = 0
        self._waited = 0.0
        self._began = time.monotonic()
        self._psnr = ""
        self._main = main
        if not main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder), purge_step=start or None)
        self._bar = tqdm(total=self._steps, initial=start, desc=stage.kind, unit=" steps", dynamic_ncols=True)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here is time that the network stood still."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @property
    def wait_ratio(self) -> float:
        """Ratio of the time so far that was spent waiting for data."""
        return self._waited / max(time.monotonic() - self._began, 1e-9)

    @property
    def unwritten(self) -> dict[str, Any]:
        """What the next line will be the mean of, to be kept in a checkpoint."""
        return {"sums": dict(self._sums), "counted": self._counted}

    def go_on(self, unwritten: dict[str, Any]) -> None:
        """Begin with what an earlier log had not written yet."""
        self._sums, self._counted = dict(unwritten["sums"]), unwritten["counted"]

    def step(self, step: int, terms: dict[str, Tensor], learning_rate: float) -> None:
        """Count a step; every `log_every` steps the means since the last time are written."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._counted += 1
        if self._main:
            self._bar.set_postfix_str(f"loss {float(terms['loss']):.4f}{self._psnr}", refresh=False)
            self._bar.update()
        if step % self._every == 0 or step == self._steps:
            means = self._log_terms({name: total / self._counted for name, total in self._sums.items()})
            self._sums, self._counted = {}, 0
            self._write(
                {"step": step, "learning_rate": learning_rate, **means},
                "train",
                step,
                {**means, "learning_rate": learning_rate},
            )

    def validation(self, step: int, scores: Scores) -> None:
        """Write the scores, and the images to TensorBoard."""
        if "psnr_y" in scores.means:
            self._psnr = f", PSNR {scores.means['psnr_y']:.2f} dB"
        self._write({"step": step, "validation": scores.means, "clips": scores.clips}, "validation", step, scores.means)
        if self._main:
            for name, image in scores.images.items():
                self._board.add_image(f"validation/{name}", image, step)

    def close(self) -> None:
        """Finish the line and the files."""
        if self._main:
            self._bar.close()
            self._board.close()
            self._file.close()

    def _write(self, row: dict[str, Any], group: str, step: int, scalars: dict[str, float]) -> None:
        if not self._main:
            return
        print(json.dumps(row), file=self._file, flush=True)
        for name, value in scalars.items():
            self._board.add_scalar(f"{group}/{name}", value, step)
