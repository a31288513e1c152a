"""Comparable times of several models: measured alternately, so that other load on the machine affects all of them equally."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.evaluation.oracle import OracleGains
from skipvsr.evaluation.settings import Setting
from skipvsr.inference.options import StreamOptions
from skipvsr.models.any_model import AnyModel

ROUNDS = 5


@torch.inference_mode()
def seconds_side_by_side(
    runs: Sequence[tuple[AnyModel, Setting]], clips: Sequence[Tensor], rounds: int = ROUNDS
) -> list[float]:
    """Seconds a frame of each model at a setting: every round takes all of them in turn, and the median round counts.

    Args:
        runs: models, put where they should run, each at a setting.
        clips: LR frames (T, 3, h, w) of each, one window long.
        rounds: beside a first one that prepares convolutions and does not count.

    Raises:
        ConfigError: a model cannot follow its setting; the oracle cannot be timed.
    """
    found = np.zeros((rounds + 1, len(runs)))
    for number in range(rounds + 1):
        for index, (model, setting) in enumerate(runs):
            found[number, index] = sum(_seconds(model, setting, clip) for clip in clips)
    return (np.median(found[1:], axis=0) / sum(len(clip) for clip in clips)).tolist()


def _seconds(model: AnyModel, setting: Setting, clip: Tensor) -> float:
    device = next(model.parameters()).device
    one_window = StreamOptions(window=len(clip), lookahead=0, scene_detection=False, repeat_detection=False)
    upscaler = setting.upscaler(model, one_window, _no_oracle)
    started = time.perf_counter()
    for _ in upscaler.stream(clip):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _no_oracle() -> OracleGains:
    raise ConfigError("the oracle knows the ground truth, and its time means nothing")
