"""The training loop: read it from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from skipvsr.checkpoints.load import load_model
from skipvsr.errors import TrainingError
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import FlowStage, Stage, TrainingConfig
from skipvsr.training.data import TrainingData
from skipvsr.training.log import Log
from skipvsr.training.objectives import make_objective
from skipvsr.training.schedule import hold_flow, make_average, make_optimiser, set_rates
from skipvsr.training.state import RunState, load_state, save_state, start_folder
from skipvsr.training.validate import Validator


@dataclass(frozen=True)
class StageReport:
    """How a stage ended: its last and best score (higher is better), and where its models are."""

    kind: str
    steps: int
    score: float
    best_score: float
    best: Path
    last: Path
    wait_share: float


def train(config: TrainingConfig, out: Path, *, resume: bool = False, cpu: bool = False) -> list[StageReport]:
    """Run all stages of a configuration, each from what the one before left.

    Args:
        config: the run.
        out: folder of the run; one folder a stage in it, with `last.pt` (to continue from), `best/` and `last/` (models)
            and the TensorBoard log.
        resume: continue the run that is in `out`; on CPU the losses go on bit for bit.
        cpu: do not use a GPU that is there.

    Raises:
        ConfigError: `out` holds a run and `resume` is off, or holds another run than this.
        DataError: training or validation clips are missing or broken.
        TrainingError: the loss is no number any more.
    """
    accelerator = Accelerator(cpu=cpu, mixed_precision="no" if config.precision == "fp32" else config.precision)
    start_folder(out, config, resume=resume, main=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    torch.manual_seed(config.seed)
    network = SkipVSR(config.network.to_vsr())
    reports = []
    for index, stage in enumerate(config.stages):
        if stage.init:
            network = initial_network(config, stage)
        report = run_stage(config, index, network, out / f"{index}-{stage.kind}", accelerator)
        reports.append(report)
        network = load_model(report.best)
    return reports


def run_stage(
    config: TrainingConfig, index: int, network: SkipVSR, folder: Path, accelerator: Accelerator
) -> StageReport:
    """Train one stage to its end, from its last checkpoint where there is one."""
    stage = config.stages[index]
    settings = stage.optimisation
    network.to(memory_format=torch.channels_last)
    objective = make_objective(network, stage)
    average = make_average(network, settings.ema) if settings.ema else None
    optimiser = make_optimiser(network, stage)
    model, optimiser = accelerator.prepare(objective, optimiser)
    if average is not None:
        average.to(accelerator.device)
    state = RunState(network, average, optimiser)
    start = load_state(folder / "last.pt", state, accelerator.device)

    data = TrainingData(config, stage, accelerator.process_index, accelerator.num_processes)
    validator = Validator(config, stage)
    log = Log(folder, stage, start, main=accelerator.is_main_process)
    saved = average.module if average is not None else network
    step = start
    try:
        with ThreadPoolExecutor(1, "batches") as executor:
            batches = data.batches(start, settings.steps, executor)
            for step in range(start, settings.steps):
                rate = set_rates(optimiser, step, stage)
                with log.waiting():
                    parts, names = next(batches)
                optimiser.zero_grad(set_to_none=True)
                terms = backward_all(model, parts, accelerator)
                check_finite(terms, step, names, folder)
                hold_flow(optimiser, step, stage)
                if settings.clip_norm:
                    accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
                optimiser.step()
                if average is not None:
                    average.update_parameters(network)
                log.step(step + 1, terms, rate)

                last = step + 1 == settings.steps
                if (step + 1) % config.validation.every == 0 or last:
                    scores = validator.run(saved, accelerator)
                    log.validation(step + 1, scores, saved, validator)
                    state.note(scores.score)
                    if accelerator.is_main_process and state.is_best:
                        save_model_folder(...)
                if (step + 1) % settings.checkpoint_every == 0 or last:
                    save_state(...)
    except KeyboardInterrupt:
        ...
