"""Learning rates and averaged weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from skipvsr.models.vsr import SkipVSR
from skipvsr.training.settings import Optimisation
from skipvsr.training.stage import Stage


def learning_rate_at(step: int, settings: Optimisation, seconds: float = 0.0) -> float:
    """The learning rate at a step (from 0): a linear rise over `warmup` steps, then a cosine down to the final one.

    Args:
        step, settings: of the stage.
        seconds: that the steps before took, which count where the stage has `minutes`.
    """
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    ratio = max((step - settings.warmup) / max(settings.steps - settings.warmup, 1), settings.time_ratio(seconds))
    return settings.final_learning_rate + 0.5 * (settings.learning_rate - settings.final_learning_rate) * (
        1 + math.cos(math.pi * min(ratio, 1.0))
    )


def make_optimiser(network: SkipVSR, stage: Stage) -> torch.optim.Adam:
    """Adam over what the stage trains, in its groups."""
    groups = [group for group in (part.for_adam() for part in stage.groups(network)) if group["params"]]
    return torch.optim.Adam(groups, lr=stage.optimisation.learning_rate, betas=stage.optimisation.betas, eps=1e-8)


def set_learning_rates(optimiser: torch.optim.Optimizer, step: int, stage: Stage, seconds: float = 0.0) -> float:
    """Set the learning rate of every group for the step, and return the stage's own; see `learning_rate_at`."""
    learning_rate = learning_rate_at(step, stage.optimisation, seconds)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["scale"]
    return learning_rate


def hold_frozen(optimiser: torch.optim.Optimizer, step: int) -> None:
    """Drop the gradients of groups that are not to learn yet; Adam passes over parameters without one."""
    for group in optimiser.param_groups:
        if step < group["frozen_steps"]:
            for parameter in group["params"]:
                parameter.grad = None


def make_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights; the first update copies them."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
