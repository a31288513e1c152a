"""Validation, always with the weights that are saved."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from skipvsr.data.degradations import Degradation
from skipvsr.data.pairs import lr_gt_clip
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import TrainingConfig
from skipvsr.training.data import gather_clips
from skipvsr.training.stage import Objective


@dataclass(frozen=True)
class Scores:
    """What validation found.

    Args:
        score: what is to be maximised; the stage's objective says what it is.
        means: each measure, clips averaged equally.
        clips: each measure of each clip.
        images: a frame of the first clip for the log, (3, H, W) in [0, 1].
    """

    score: float
    means: dict[str, float]
    clips: dict[str, dict[str, float]]
    images: dict[str, Tensor]


class Validator:
    """Runs a network over whole validation clips; several processes share them.

    Args:
        config: the run.
        objective: of the stage; says what is measured.
    """

    def __init__(self, config: TrainingConfig, objective: Objective) -> None:
        self._clips = gather_clips(config.validation.clips)
        self._frames = config.validation.frames
        self._scale = config.network.scale
        self._degradations: list[Degradation] = config.validation.degradations or [config.data.degradation]
        self._objective = objective

    @torch.inference_mode()
    def run(self, network: SkipVSR, accelerator: Accelerator) -> Scores:
        """Score the network on all clips."""
        training = network.training
        network.eval()
        rows: list[tuple[str, dict[str, float]]] = []
        images: dict[str, Tensor] = {}
        several = len(self._degradations) > 1
        tasks = list(product(self._clips, self._degradations))
        for clip, degradation in tasks[accelerator.process_index :: accelerator.num_processes]:
            pair = lr_gt_clip(clip, degradation, self._frames, scale=self._scale)
            lr, gt = (part.to(accelerator.device) for part in pair)
            found = self._objective.measure(network, lr, gt)
            rows.append((f"{clip.name} {degradation}" if several else clip.name, found.numbers))
            if found.image is not None and not images:
                images = {"output": found.image, "ground_truth": gt[len(gt) // 2].cpu()}
        network.train(training)
        clips = dict(gather_object(rows))
        names = next(iter(clips.values()))
        means = {name: sum(values[name] for values in clips.values()) / len(clips) for name in names}
        score, measures = self._objective.summarise(means)
        if several and "psnr_y" in names:
            measures |= {f"psnr_y {kind}": _mean_of(clips, kind) for kind in self._degradations}
        return Scores(score, measures, clips, images)


def _mean_of(clips: dict[str, dict[str, float]], degradation: str) -> float:
    """Mean luma PSNR of the clips under one degradation."""
    values = [row["psnr_y"] for name, row in clips.items() if name.endswith(f" {degradation}")]
    return sum(values) / len(values)
