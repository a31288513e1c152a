"""How good a mask generator is: how well its scores predict their targets, and what is left with half of the blocks.

It is measured as the paper tests: on isolated patches, with one tile each.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from skipvsr.evaluation.metrics import psnr_y
from skipvsr.inference.patched import PatchGrid
from skipvsr.models.blocks import SCALE
from skipvsr.models.vsr import Direction, SkipVSR
from skipvsr.training.paper_method import PaperMethod
from skipvsr.training.paper_pass import Scores, StudentPass, TeacherPass, follow, score_targets, scores_of, teach

# Frames of a clip, and patches at a time, so that all features of the patches fit where a training batch does.
FRAMES, PATCHES = 15, 8
OVERLAP_PX = 2
# Ratios of the scores below the thresholds that are tried.
QUANTILES = (0.35, 0.65)
_MOMENTS = ("error", "target", "square")


def measure_generator(
    network: SkipVSR, teacher: SkipVSR, lr: Tensor, gt: Tensor, method: PaperMethod, tile_px: int
) -> dict[str, float]:
    """Measures of a generator on a clip.

    Args:
        network: with its generator.
        teacher: the frozen backbone.
        lr, gt: (T, 3, H, W) and (T, 3, 4H, 4W) in [0, 1].
        method: how the equations are read.
        tile_px: side of the patches.

    Returns:
        "psnr_y_half", luma PSNR in dB with half of the blocks; and by direction, over all scores with every block running, the
        moments that `summarise_generator` makes R-squared of, and the standard deviation of the scores.
    """
    lr, gt = lr[:FRAMES], gt[:FRAMES]
    grid = PatchGrid(lr.shape[-2], lr.shape[-1], tile_px, tile_px - OVERLAP_PX)
    large = PatchGrid(*(SCALE * side for side in (*lr.shape[-2:], tile_px, tile_px - OVERLAP_PX)))
    small_patches, large_patches = grid.cut(lr), large.cut(gt)
    patches = small_patches.view(len(lr), grid.patches, *small_patches.shape[1:]).transpose(0, 1)
    truths = large_patches.view(len(gt), grid.patches, *large_patches.shape[1:]).transpose(0, 1)
    parts = [slice(start, start + PATCHES) for start in range(0, grid.patches, PATCHES)]

    def run(taught: TeacherPass, threshold: float) -> StudentPass:
        return follow(network, taught, torch.full((1, 1, 1), threshold, device=lr.device), method, tile_px)

    sums = {direction: _Sums() for direction in get_args(Direction)}
    scores: list[Tensor] = []
    for part in parts:
        taught = teach(teacher, patches[part], method, tile_px)
        made = run(taught, -1.0)
        targets = score_targets(network, made, taught, truths[part], method, tile_px)
        for place, score in made.scores.items():
            sums[place[0]].add(score, targets[place])
        scores.append(scores_of(network, taught).flatten())
    results: list[tuple[float, float]] = []
    for quantile in QUANTILES:
        threshold = torch.cat(scores).quantile(quantile).item()
        made_parts = [run(teach(teacher, patches[part], method, tile_px), threshold) for part in parts]
        merged = grid.merge(torch.cat([made.result for made in made_parts]).transpose(0, 1).flatten(0, 1))
        sizes = [len(patches[part]) for part in parts]
        ratio = float(np.average([made.ran for made in made_parts], weights=sizes))
        results.append((ratio, psnr_y(merged, gt).mean().item()))
    ratios, scores_db = zip(*sorted(results), strict=True)
    numbers = {"psnr_y_half": float(np.interp(0.5, ratios, scores_db))}
    for direction, found in sums.items():
        numbers |= {f"{name}_{direction}": value for name, value in found.numbers().items()}
    return numbers


def summarise_generator(means: dict[str, float]) -> dict[str, float]:
    """Means over clips, with R-squared (`r_squared`) of the scores by direction in the place of its moments."""
    kept = {name: value for name, value in means.items() if not name.startswith(_MOMENTS)}
    for direction in get_args(Direction):
        error, target, square = (means[f"{name}_{direction}"] for name in _MOMENTS)
        kept[f"r2_{direction}"] = 1 - error / max(square - target**2, 1e-12)
    return kept


@torch.no_grad()
def r_squared(scores: Scores, targets: Scores) -> dict[str, Tensor]:
    """How well scores predict their targets, by direction: "r2_backward", "r2_forward".

    1 - (mean squared error) / (variance of the targets): 1 where scores are their targets, 0 where they are no better than the
    mean target, below 0 where they are worse.
    """
    found = {}
    for direction in get_args(Direction):
        places = [place for place in scores if place[0] == direction]
        score, target = (torch.stack([values[place] for place in places]) for values in (scores, targets))
        variance = target.var(correction=0).clamp(min=1e-12)
        found[f"r2_{direction}"] = 1 - (score - target).square().mean() / variance
    return found


class _Sums:
    """Moments of scores and targets."""

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, score: Tensor, target: Tensor) -> None:
        self._scores.append(score.flatten())
        self._targets.append(target.flatten())

    def numbers(self) -> dict[str, float]:
        score, target = torch.cat(self._scores).double(), torch.cat(self._targets).double()
        return {
            "error": (score - target).square().mean().item(),
            "target": target.mean().item(),
            "square": target.square().mean().item(),
            "score_spread": score.std().item(),
        }
