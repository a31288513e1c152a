"""The training loop: read it from top to bottom."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.errors import ConfigError, TrainingError
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import TrainingConfig
from skipvsr.training.data import StageData, check_data
from skipvsr.training.log import Log
from skipvsr.training.schedule import hold_frozen, make_average, make_optimiser, set_learning_rates
from skipvsr.training.stage import AnyBatch, Stage
from skipvsr.training.state import LAST, StageState, check_run, note_run
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
    """

    kind: str
    steps: int
    best: Path
    best_score: float
    score_unit: str
    wait_ratio: float
    cache: str


def train(config: TrainingConfig, out: str | Path, *, resume: bool = False, cpu: bool = False) -> list[StageReport]:
    """Run all stages of a configuration, each starting from the best model of the one before.

    Args:
        config: the run.
        out: folder of the run: one folder a stage in it, with `last.pt` to go on from, `best/` (a model folder), the
            TensorBoard log and `log.jsonl`.
        resume: go on with the run that is in `out`; on CPU the losses are those of a run that never stopped.
        cpu: do not use a GPU that is there.

    Raises:
        ConfigError: `out` holds a run and `resume` is off, or holds another run than this; fp16 without a GPU.
        DataError: clips are missing or broken.
        TrainingError: the loss is not a number any more, or a checkpoint is damaged.
    """
    accelerator = make_accelerator(config, cpu=cpu)
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
        network = stage.start(network)
        report = run_stage(config, stage, network, Path(out) / f"{index}-{stage.kind}", accelerator)
        reports.append(report)
        network = load_model(report.best)
    return reports


def run_stage(
    config: TrainingConfig, stage: Stage, network: SkipVSR, folder: Path, accelerator: Accelerator
) -> StageReport:
    """Train one stage to its end, from its last checkpoint where there is one."""
    settings = stage.optimisation
    network.to(accelerator.device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - the stubs forget it
    objective = stage.objective(network)
    average = make_average(network, settings.ema) if settings.ema else None
    model, optimiser = accelerator.prepare(objective, make_optimiser(network, stage))
    state = StageState(network, average, optimiser, accelerator.scaler)
    resumed = state.load(folder, accelerator.device)

    data = StageData(config, stage, accelerator.process_index, accelerator.num_processes)
    if not resumed:
        objective.fit(data.first().floats(accelerator.device))
    validator = Validator(config, objective)
    log = Log(folder, stage, objective, state.step, main=accelerator.is_main_process)
    model.train()
    with ThreadPoolExecutor(1, "batches") as executor:
        batches = data.batches(state.step, settings.steps, executor)
        try:
            while state.step < settings.steps:
                learning_rate = set_learning_rates(optimiser, state.step, stage)
                with log.waiting():
                    parts = next(batches)
                optimiser.zero_grad(set_to_none=True)
                terms = backward(model, parts, accelerator, state.step, folder)
                hold_frozen(optimiser, state.step)
                if settings.clip_norm:
                    accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
                optimiser.step()
                if state.average is not None:
                    state.average.update_parameters(network)
                state.step += 1
                log.step(state.step, terms, learning_rate)

                last = state.step == settings.steps
                if state.step % config.validation.every == 0 or last:
                    scores = validator.run(state.saved_network, accelerator)
                    log.validation(state.step, scores)
                    if scores.score > state.best_score:
                        state.best_score = scores.score
                        save_best(config, stage, state, scores, folder, accelerator)
                if state.step % settings.checkpoint_every == 0 or last:
                    save_state(state, folder, accelerator)
        except KeyboardInterrupt:
            save_state(state, folder, accelerator)
            raise
        finally:
            log.close()
    return StageReport(
        stage.kind,
        state.step,
        folder / BEST,
        state.best_score,
        stage.score_unit,
        log.wait_ratio,
        data.sampler.describe(),
    )


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


def save_best(
    config: TrainingConfig, stage: Stage, state: StageState, scores: Scores, folder: Path, accelerator: Accelerator
) -> None:
    """Write the model that was just validated as a model folder."""
    if not accelerator.is_main_process:
        return
    network = state.saved_network
    provenance = {
        "run": config.name,
        "stage": stage.kind,
        "iterations": state.step,
        "validation": scores.means,
        "settings": asdict(config),
    }
    weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    save_folder(Checkpoint(network.config, weights, provenance), folder / BEST, overwrite=True)


def save_state(state: StageState, folder: Path, accelerator: Accelerator) -> None:
    """Write the checkpoint to go on from, on the main process; the others wait for it."""
    if accelerator.is_main_process:
        state.save(folder)
    accelerator.wait_for_everyone()


def _mean_over_processes(value: Tensor, accelerator: Accelerator) -> Tensor:
    reduced = accelerator.reduce(value, reduction="mean")
    assert isinstance(reduced, Tensor)
    return reduced
