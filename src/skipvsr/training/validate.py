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
from skipvsr.evaluation.metrics import psnr, psnr_y, quantize
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.flow import warp
from skipvsr.models.router import GainRouter
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.learned import GainBudget
from skipvsr.training.config import Stage, TrainingConfig
from skipvsr.training.data import gather_clips
from skipvsr.training.losses import stays_inside

BUDGETS = (0.5, 0.25)


@dataclass(frozen=True)
class Scores:
    """What validation found.

    Args:
        score: what is to be maximised: mean luma PSNR, for the skip and router stages over the budgets too; for the flow
            stage the negative warping error in levels of 255.
        means: each measure, clips averaged equally.
        clips: each measure of each clip.
        pictures: a frame of the first clip for the log, (3, H, W) in [0, 1].
    """

    score: float
    means: dict[str, float]
    clips: dict[str, dict[str, float]]
    pictures: dict[str, Tensor]


class Validator:
    """Runs a network over whole validation clips; several processes share them."""

    def __init__(self, config: TrainingConfig, stage: Stage) -> None:
        self._clips = gather_clips(config.validation.clips)
        self._frames = config.validation.frames
        self._scale = config.network.scale
        self._degradations: list[Degradation] = config.validation.degradations or [config.data.degradation]
        self._flow = stage.kind == "flow"
        ours = stage.kind == "router" or (stage.kind == "skip" and stage.router == "gain")
        self._budgets = BUDGETS if ours else ()
        self._tile_px = stage.tile_px if stage.kind == "skip" or stage.kind == "router" else 0

    @torch.inference_mode()
    def run(self, network: SkipVSR, accelerator: Accelerator) -> Scores:
        """Score the network on all clips."""
        training = network.training
        network.eval()
        rows: list[tuple[str, dict[str, float]]] = []
        pictures: dict[str, Tensor] = {}
        several = len(self._degradations) > 1
        tasks = list(product(self._clips, self._degradations))
        for clip, degradation in tasks[accelerator.process_index :: accelerator.num_processes]:
            pair = lr_gt_clip(clip, degradation, self._frames, scale=self._scale)
            name = f"{clip.name} {degradation}" if several else clip.name
            lr, gt = (part.to(accelerator.device) for part in pair)
            if self._flow:
                rows.append((name, {"warping_error": warping_error(network, lr)}))
                continue
            output = network(lr[None])[0]
            measures = {
                "psnr_y": psnr_y(output, gt).mean().item(),
                "psnr_rgb": psnr(quantize(output), gt, 1.0).mean().item(),
            }
            for budget in self._budgets:
                measures[f"psnr_y_{budget}"] = psnr_y(self._routed(network, lr, budget), gt).mean().item()
            rows.append((name, measures))
            if not pictures:
                middle = len(output) // 2
                pictures = {"output": output[middle].clamp(0, 1).cpu(), "ground_truth": gt[middle].cpu()}
        network.train(training)
        clips = dict(gather_object(rows))
        names = next(iter(clips.values()))
        means = {name: sum(values[name] for values in clips.values()) / len(clips) for name in names}
        kept = [value for name, value in means.items() if name.startswith("psnr_y")]
        score = -means["warping_error"] if self._flow else sum(kept) / len(kept)
        if several:
            means |= {f"psnr_y {kind}": _mean_of(clips, kind) for kind in self._degradations}
        return Scores(score, means, clips, pictures)

    def _routed(self, network: SkipVSR, lr: Tensor, budget: float) -> Tensor:
        assert isinstance(network.router, GainRouter)
        return network(lr[None], RoutedTrunks(GainBudget(network.router, budget), self._tile_px))[0]


def _mean_of(clips: dict[str, dict[str, float]], degradation: str) -> float:
    """Mean luma PSNR of the clips under one degradation."""
    values = [row["psnr_y"] for name, row in clips.items() if name.endswith(f" {degradation}")]
    return sum(values) / len(values)


def warping_error(network: SkipVSR, lr: Tensor) -> float:
    """How far warped neighbours are from each frame of (T, 3, H, W): mean absolute difference in levels of 255."""
    flow = network.estimate_flow(lr[:-1], lr[1:])
    inside = stays_inside(flow)
    difference = (warp(lr[1:], flow, padding="border") - lr[:-1]).abs().mean(dim=1, keepdim=True)
    return 255 * ((difference * inside).sum() / inside.sum().clamp(min=1)).item()
