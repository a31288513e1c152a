"""Training of the mask generator: the scale of its input, its temperature, thresholds, and the targets of its scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from skipvsr.models.router import MaskGenerator
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.training.paper import feature_distance, score_target, target_of
from skipvsr.training.paper_method import PaperMethod
from skipvsr.training.paper_pass import FullPass, Scores, mask_generator


@torch.no_grad()
def fit_generator(student: SkipVSR, taught: FullPass, method: PaperMethod, tile_px: int) -> None:
    """Fit what the mask generator keeps beside its weights: scale of the differences, and temperature of equation 7.

    Args:
        student: its generator is changed.
        taught: with all features.
        method: how the equations are read.
        tile_px: most pixels a side of a tile.
    """
    generator, blocks = mask_generator(student), student.config.blocks
    generator.warped.fill_(float(method.warped))
    generator.cell_px.fill_(float(method.cell_px))
    for at, direction in enumerate(("backward", "forward")):
        found = [seen for place, seen in taught.differences.items() if place[0] == direction]
        seen = torch.cat([each.float().transpose(0, 1).flatten(1) for each in found], dim=1)
        generator.difference_mean[at] = seen.mean(dim=1)
        generator.difference_scale[at] = seen.std(dim=1).clamp(min=1e-8)
    grid = TileGrid.of(taught.lr.shape[-2], taught.lr.shape[-1], tile_px)
    distances = [
        feature_distance(features[index], features[target_of(index, blocks, method.every)], grid)
        for features in taught.features.values()
        for index in range(blocks)
    ]
    generator.temperature.copy_(torch.stack(distances).mean())


@torch.no_grad()
def follow_temperature(generator: MaskGenerator, distances: Scores, momentum: float) -> None:
    """Move the temperature towards the mean distance of a batch, on all processes alike."""
    found = torch.stack(list(distances.values())).float().mean()  # autocast may have made them in half precision
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(found)
        found = found / distributed.get_world_size()
    generator.temperature.lerp_(found, momentum)


@torch.no_grad()
def scores_of(generator: MaskGenerator, seen: FullPass) -> Tensor:
    """The scores of all differences of a pass: (blocks and frames that are scored, B, tiles)."""
    found = [generator(place[0], difference).flatten(1) for place, difference in seen.differences.items()]
    return torch.stack(found)


def draw_thresholds(scores: Tensor, seeds: Sequence[int], method: PaperMethod) -> Tensor:
    """A threshold for each clip, from its seed: -1 (every block), or a quantile of its scores.

    Args:
        scores: of the student with every block running (`scores_of`).
        seeds: of the clips.
        method: says how many clips run everything, and up to which quantile the others go.

    Returns:
        (B, 1, 1).
    """
    drawn = []
    for clip, seed in enumerate(seeds):
        random = torch.Generator().manual_seed(seed)
        full = torch.rand((), generator=random).item() < method.full_ratio
        skipped = method.max_skipped * torch.rand((), generator=random).item()
        drawn.append(-1.0 if full else scores[:, clip].quantile(skipped).item())
    return torch.tensor(drawn, device=scores.device).view(-1, 1, 1)


def score_targets(distances: Scores, generator: MaskGenerator, method: PaperMethod) -> Scores:
    """What each score should have been, in [0, 1]. Squared decibels have no temperature."""
    of_features = method.supervision in ("feature", "feature-interval")
    temperature = generator.temperature if of_features else torch.ones_like(generator.temperature)
    return {place: score_target(found, temperature, literal=method.literal) for place, found in distances.items()}
