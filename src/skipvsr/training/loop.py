"""The training loop: read it from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.errors import ConfigError, TrainingError
from skipvsr.inference.machine import describe_device
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import TrainingConfig
from skipvsr.training.data import StageData, check_data
from skipvsr.training.log import Log
from skipvsr.training.schedule import hold_frozen, make_average, make_optimiser, set_learning_rates
from skipvsr.training.stage import AnyBatch, Stage
from skipvsr.training.state import LAST, StageState, check_run, note_finished, note_run, read_finished
from skipvsr.training.stop import Stop
from skipvsr.training.validate import Scores, Validator

BEST = "best"


@dataclass(frozen=True)
class StageReport:
    """How a stage ended.

    Args:
        kind: of the stage.
        steps: done, with those of runs that were resumed.
        best: folder of the model with the best validation score.
        best_score: the higher the better.
        score_unit: what the score is, in words.
        wait_ratio: ratio of the time that was spent waiting for data.
        cache: what is kept in memory.
        seconds: that steps and validations took, over all runs.
        machine: that finished it, in a few words.
    """

    kind: str
    steps: int
    best: Path
    best_score: float
    score_unit: str
    wait_ratio: float
    cache: str
    seconds: float
    machine: str


def train(
    config: TrainingConfig,
    out: str | Path,
    *,
    resume: bool = False,
    cpu: bool = False,
    time_limit: float | None = None,
    began: float | None = None,
) -> list[StageReport]:
    """Run all stages of a configuration, each starting from the best model of the one before.

    While it runs in the main thread, it takes signals (training/stop.py says which), and finishes a step and saves first.

    Args:
        config: the run.
        out: folder of the run: one folder a stage in it, with `last.pt` to go on from, `best/` (a model folder), the
            TensorBoard log and `log.jsonl`, and with `finished.json` once the stage is done.
        resume: go on with the run that is in `out`; on CPU the losses are those of a run that never stopped.
        cpu: do not use a GPU that is there.
        time_limit: seconds after which it stops, with time left for a checkpoint; at least one step is done.
        began: the time (`time.monotonic()`) from which the limit counts; None: now.

    Raises:
        ConfigError: `out` holds a run and `resume` is off, or holds another run than this; fp16 without a GPU; minutes with
            several processes.
        DataError: clips are missing or broken.
        PausedError: it stopped at the time limit, or was asked to by SIGTERM; the checkpoint is written.
        TrainingError: the loss is not a number any more, or a checkpoint is damaged.
    """
    accelerator = make_accelerator(config, cpu=cpu)
    if accelerator.num_processes > 1 and any(stage.optimisation.minutes for stage in config.stages):
        raise ConfigError("a stage has minutes, which several processes cannot agree on; give it steps alone")
    with Stop(accelerator, time_limit, began) as stop:
        check_run(Path(out), config, resume=resume)
        check_data(config)  # before anything is written
        accelerator.wait_for_everyone()  # all have looked before one writes
        if accelerator.is_main_process:
            note_run(Path(out), config)
        accelerator.wait_for_everyone()
        torch.manual_seed(config.seed)
        network = SkipVSR(config.network.to_vsr())
        reports: list[StageReport] = []
        for index, stage in enumerate(config.stages):
            report = run_stage(config, stage, network, Path(out) / f"{index}-{stage.kind}", accelerator, stop)
            reports.append(report)
            network = load_model(report.best)
        return reports


@dataclass(frozen=True)
class _Running:
    """A stage while it runs."""

    config: TrainingConfig
    stage: Stage
    folder: Path
    accelerator: Accelerator
    stop: Stop
    state: StageState
    model: torch.nn.Module
    validator: Validator
    log: Log

    @property
    def next_piece(self) -> Literal["step", "validation", "nothing"]:
        """What comes now."""
        state = self.state
        if state.validated < state.step and (state.step % self.config.validation.every == 0 or self.ended):
            return "validation"
        return "nothing" if self.ended else "step"

    @property
    def ended(self) -> bool:
        """Whether all steps are done."""
        return self.stage.optimisation.ended(self.state.step, self.state.seconds)


def run_stage(
    config: TrainingConfig, stage: Stage, before: SkipVSR, folder: Path, accelerator: Accelerator, stop: Stop
) -> StageReport:
    """Train one stage to its end, from its last checkpoint where there is one; `before` is what the stages before left."""
    settings = stage.optimisation
    finished = read_finished(folder)
    if finished is not None:
        return StageReport(best=folder / BEST, **finished)
    network = stage.start(before)
    network.to(accelerator.device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - the stubs forget it
    objective = stage.objective(network)
    average = make_average(network, settings.ema) if settings.ema else None
    model, optimiser = accelerator.prepare(objective, make_optimiser(network, stage))
    state = StageState(network, average, optimiser, accelerator.scaler)
    resumed = state.load(folder)

    data = StageData(config, stage, accelerator.process_index, accelerator.num_processes, accelerator.device)
    if not resumed:
        objective.fit(data.first().floats(accelerator.device))
    log = Log(folder, stage, objective, state.step, main=accelerator.is_main_process)
    log.go_on(state.unwritten)
    run = _Running(config, stage, folder, accelerator, stop, state, model, Validator(config, objective), log)
    model.train()
    with ThreadPoolExecutor(config.data.threads, "batches") as executor:
        batches = data.batches(state.step, settings.steps, executor)
        try:
            while (piece := run.next_piece) != "nothing":
                if stop.before(piece):
                    save_state(run)
                    stop.end(f"step {state.step:,} of {settings.steps:,} of stage {folder.name}")
                began = stop.now()
                if piece == "step":
                    take_step(run, batches)
                else:
                    validate(run)
                state.seconds += stop.now() - began
                if run.next_piece != "validation" and (state.step % settings.checkpoint_every == 0 or run.ended):
                    save_state(run)
        finally:
            log.close()
    report = StageReport(
        stage.kind,
        state.step,
        folder / BEST,
        state.best_score,
        stage.score_unit,
        log.wait_ratio,
        data.sampler.describe(),
        state.seconds,
        describe_device(accelerator.device, accelerator.num_processes),
    )
    if accelerator.is_main_process:
        note_finished(folder, {name: value for name, value in asdict(report).items() if name != "best"})
    return report


def take_step(run: _Running, batches: Iterator[list[AnyBatch]]) -> None:
    """One step of the optimiser, on all processes."""
    state, settings = run.state, run.stage.optimisation
    with run.stop.timed("step"):
        learning_rate = set_learning_rates(state.optimiser, state.step, run.stage, state.seconds)
        with run.log.waiting():
            parts = next(batches)
        state.optimiser.zero_grad(set_to_none=True)
        terms = backward(run.model, parts, run.accelerator, state.step, run.folder)
        hold_frozen(state.optimiser, state.step)
        if settings.clip_norm:
            run.accelerator.clip_grad_norm_(run.model.parameters(), settings.clip_norm)
        state.optimiser.step()
        if state.average is not None:
            state.average.update_parameters(state.network)
        state.step += 1
        run.log.step(state.step, terms, learning_rate)


def validate(run: _Running) -> None:
    """Score the weights that are saved, and keep them where they are the best so far."""
    state = run.state
    if run.stop.surprised_by("validation"):
        save_state(run)
    with run.stop.timed("validation"):
        scores = run.validator.run(state.saved_network, run.accelerator)
        run.log.validation(state.step, scores)
        if scores.score > state.best_score:
            state.best_score = scores.score
            save_best(run, scores)
        state.validated = state.step


def backward(
    model: torch.nn.Module, parts: list[AnyBatch], accelerator: Accelerator, step: int, folder: Path
) -> dict[str, Tensor]:
    """Gradients of the mean loss over the parts of a step, on all processes; returns the mean of each term.

    Raises:
        TrainingError: the loss of a part is not a number.
    """
    totals: dict[str, Tensor] = {}
    for index, part in enumerate(parts):
        last = index + 1 == len(parts)
        # Gradients travel between processes once a step, with the last part.
        with nullcontext() if last else accelerator.no_sync(model):
            terms = model(part.floats(accelerator.device))
            # Before the gradients: torch's grid_sample crashes on the gradient of a coordinate that is not a number.
            check_finite(terms["loss"].item(), step, part, folder)
            accelerator.backward(terms["loss"] / len(parts))
        for name, value in terms.items():
            ratio = value.detach() / len(parts)
            totals[name] = totals[name] + ratio if name in totals else ratio
    return {name: _mean_over_processes(value, accelerator) for name, value in totals.items()}


def check_finite(loss: float, step: int, part: AnyBatch, folder: Path) -> None:
    """Raise TrainingError where the loss is not a number, naming the step, the clips and the last good checkpoint."""
    if math.isfinite(loss):
        return
    names = ", ".join(part.names)
    checkpoint = folder / LAST
    good = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
    raise TrainingError(f"the loss is {loss} at step {step}, on {names}; {good}; try a lower learning_rate")


def make_accelerator(config: TrainingConfig, *, cpu: bool) -> Accelerator:
    """Devices, processes and precision of a run. Raises ConfigError where fp16 has no GPU."""
    if config.precision == "fp16" and (cpu or not torch.cuda.is_available()):
        raise ConfigError("precision is 'fp16', which needs a GPU; choose fp32 or bf16")
    AcceleratorState._reset_state()  # one process may train twice, in another precision
    return Accelerator(cpu=cpu, mixed_precision="no" if config.precision == "fp32" else config.precision)


def save_best(run: _Running, scores: Scores) -> None:
    """Write the model that was just validated as a model folder."""
    if not run.accelerator.is_main_process:
        return
    network = run.state.saved_network
    provenance = {
        "run": run.config.name,
        "stage": run.stage.kind,
        "iterations": run.state.step,
        "validation": scores.means,
        "settings": asdict(run.config),
    }
    weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    save_folder(Checkpoint(network.config, weights, provenance), run.folder / BEST, overwrite=True)


def save_state(run: _Running) -> None:
    """Write the checkpoint to go on from, on the main process; the others wait for it."""
    with run.stop.timed("checkpoint"):
        run.state.unwritten = run.log.unwritten
        if run.accelerator.is_main_process:
            run.state.save(run.folder)
        run.accelerator.wait_for_everyone()


def _mean_over_processes(value: Tensor, accelerator: Accelerator) -> Tensor:
    reduced = accelerator.reduce(value, reduction="mean")
    assert isinstance(reduced, Tensor)
    return reduced
