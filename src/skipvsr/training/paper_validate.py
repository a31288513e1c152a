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
from skipvsr.models.vsr import SkipVSR
from skipvsr.terms import Direction
from skipvsr.training.paper_generator import score_targets
from skipvsr.training.paper_method import PaperMethod
from skipvsr.training.paper_pass import (
    Scores,
    StudentPass,
    follow,
    mask_generator,
    run_full,
    target_distances,
    target_features,
)

# Frames of a clip, and patches at a time, so that all features of the patches fit where a training batch does.
FRAMES, PATCHES = 15, 8
OVERLAP_PX = 2
# Ratios of the scores below the thresholds that are tried.
QUANTILES = (0.35, 0.65)
_MOMENTS = ("score_error", "target_mean", "target_square")


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
        "psnr_y_half", luma PSNR in dB with half of the blocks; with every block running, "score_spread", the standard deviation
        of all scores, and the `moments` of which `with_r_squared` makes R-squared.
    """
    lr, gt = lr[:FRAMES], gt[:FRAMES]
    grid = PatchGrid(lr.shape[-2], lr.shape[-1], tile_px, tile_px - OVERLAP_PX)
    scale = gt.shape[-1] // lr.shape[-1]
    large = PatchGrid(*(scale * side for side in (*lr.shape[-2:], tile_px, tile_px - OVERLAP_PX)))
    small_patches, large_patches = grid.cut(lr), large.cut(gt)
    patches = small_patches.view(len(lr), grid.patches, *small_patches.shape[1:]).transpose(0, 1)
    truths = large_patches.view(len(gt), grid.patches, *large_patches.shape[1:]).transpose(0, 1)
    parts = [slice(start, start + PATCHES) for start in range(0, grid.patches, PATCHES)]

    generator, targets_kept = mask_generator(network), target_features(network, method)
    taught = [run_full(teacher, patches[part], method, tile_px, kept=targets_kept) for part in parts]

    def run(threshold: float) -> list[StudentPass]:
        everywhere = torch.full((1, 1, 1), threshold, device=lr.device)
        return [follow(network, each, everywhere, method, tile_px) for each in taught]

    scores, targets = _Joined(), _Joined()
    for part, each, made in zip(parts, taught, run(-1.0), strict=True):
        distances = target_distances(network, made, each, truths[part], method, tile_px)
        scores.add(made.scores)
        targets.add(score_targets(distances, generator, method))
    numbers = {name: value.item() for name, value in moments(scores.values, targets.values).items()}
    everything = torch.cat([score.flatten() for score in scores.values.values()])
    numbers["score_spread"] = everything.std().item()
    results: list[tuple[float, float]] = []
    for quantile in QUANTILES:
        made = run(everything.quantile(quantile).item())
        merged = grid.merge(torch.cat([each.result for each in made]).transpose(0, 1).flatten(0, 1), scale)
        ratio = float(np.average([each.ran for each in made], weights=[len(each.lr) for each in taught]))
        results.append((ratio, psnr_y(merged, gt).mean().item()))
    ratios, scores_db = zip(*sorted(results), strict=True)
    return numbers | {"psnr_y_half": float(np.interp(0.5, ratios, scores_db))}


def moments(scores: Scores, targets: Scores) -> dict[str, Tensor]:
    """By direction, over all scores: mean squared error, mean of the targets, and mean of their squares."""
    found = {}
    for direction in get_args(Direction):
        places = [place for place in scores if place[0] == direction]
        score, target = (torch.stack([values[place].detach() for place in places]) for values in (scores, targets))
        measures = ((score - target).square().mean(), target.mean(), target.square().mean())
        found |= {f"{name}_{direction}": value for name, value in zip(_MOMENTS, measures, strict=True)}
    return found


def with_r_squared(means: dict[str, float]) -> dict[str, float]:
    """Means over batches or clips, with R-squared of the scores by direction in the place of its moments.

    R-squared is 1 - (mean squared error) / (variance of the targets): 1 where scores are their targets, 0 where they are no
    better than the mean target, below 0 where they are worse.
    """
    kept = {name: value for name, value in means.items() if not name.startswith(_MOMENTS)}
    for direction in get_args(Direction):
        error, target, square = (means[f"{name}_{direction}"] for name in _MOMENTS)
        kept[f"r2_{direction}"] = 1 - error / max(square - target**2, 1e-12)
    return kept


class _Joined:
    """Scores of several parts of the patches, joined."""

    def __init__(self) -> None:
        self.values: Scores = {}

    def add(self, part: Scores) -> None:
        for place, score in part.items():
            self.values[place] = torch.cat((self.values[place], score)) if place in self.values else score
