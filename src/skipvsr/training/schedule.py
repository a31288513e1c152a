"""Learning rates and averaged weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import Optimisation, Stage


def learning_rate_at(step: int, settings: Optimisation) -> float:
    """Learning learning_rate of the step (from 0): a linear rise over `warmup` steps, then a cosine down to the final one."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    ratio = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.final_learning_rate + 0.5 * (settings.learning_rate - settings.final_learning_rate) * (
        1 + math.cos(math.pi * min(ratio, 1.0))
    )


def make_optimiser(network: SkipVSR, stage: Stage) -> torch.optim.Adam:
    """Adam over what the stage trains; the groups "flow" and "rest" have their own ratio of the learning_rate."""
    flow = [parameter for parameter in network.flow.parameters() if parameter.requires_grad]
    flow_ids = {id(parameter) for parameter in flow}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in flow_ids]
    groups = [
        {"params": flow, "name": "flow", "ratio": 1.0 if stage.kind == "flow" else stage.flow_learning_rate_scale}
    ]
    if stage.kind != "flow":
        groups.append({"params": rest, "name": "rest", "ratio": 1.0})
    groups = [group for group in groups if group["params"]]
    return torch.optim.Adam(groups, lr=stage.optimisation.learning_rate, betas=stage.optimisation.betas, eps=1e-8)


def set_learning_rates(optimiser: torch.optim.Optimizer, step: int, stage: Stage) -> float:
    """Set the learning_rate of every group for the step, and return that of the rest of the network."""
    learning_rate = learning_rate_at(step, stage.optimisation)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["ratio"]
    return learning_rate


def hold_flow(optimiser: torch.optim.Optimizer, step: int, stage: Stage) -> None:
    """Drop the flow network's gradients while it is not to learn yet; Adam passes over parameters without one."""
    if stage.kind == "flow" or step >= stage.flow_frozen_steps:
        return
    for group in optimiser.param_groups:
        if group["name"] == "flow":
            for parameter in group["params"]:
                parameter.grad = None


def make_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights; the first update copies them."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
