"""The paper's own training of its router: equations 7 to 16, section 3.

Features are numbered by the blocks behind them: h_0 enters the first block, h_M leaves the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.data.crops import Batch
from skipvsr.inference import masked
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.blocks import SCALE, ResidualBlock
from skipvsr.models.flow import warp
from skipvsr.models.router import MaskGenerator
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import CELL_PX, DifferenceThreshold
from skipvsr.routing.policies import Decide, Policy, TrunkStep, all_blocks
from skipvsr.routing.trace import Direction
from skipvsr.training.config import PaperMethod

Mapping = Literal["sum", "square-sum", "square-max"]


@dataclass
class Recorder:
    """Remembers the features of every trunk step: a policy around another, and an executor.

    Args:
        policy: decides.
    """

    policy: Policy = all_blocks
    steps: list[tuple[Direction, list[Tensor]]] = field(default_factory=list)

    def __call__(self, step: TrunkStep) -> Decide:
        self.steps.append((step.direction, []))
        decide = self.policy(step)

        def remembered(block: int, state: Tensor) -> Tensor:
            self.steps[-1][1].append(state)
            return decide(block, state)

        return remembered

    def execute(
        self, blocks: Sequence[ResidualBlock], state: Tensor, decide: Decide, grid: TileGrid
    ) -> tuple[Tensor, Tensor]:
        """`masked.run_blocks`, remembering what leaves the last block too."""
        leaving, masks = masked.run_blocks(blocks, state, decide, grid)
        self.steps[-1][1].append(leaving)
        return leaving, masks


def target_of(feature: int, blocks: int, every: int) -> int:
    """The target layer of h_feature: the next multiple of `every` beyond it, and the last block at the latest.

    Example: 30 blocks, every 6: h_0 ... h_5 have target 6, h_6 ... h_11 have 12.
    """
    return min((feature // every + 1) * every, blocks)


def target_layers(blocks: int, every: int) -> list[int]:
    """All target layers of a trunk, rising: for 30 blocks every 6, [6, 12, 18, 24, 30]."""
    return sorted({target_of(feature, blocks, every) for feature in range(blocks)})


def feature_distance(student: Tensor, teacher: Tensor, grid: TileGrid) -> Tensor:
    """Root mean square difference over channels and the pixels of each tile: (N, C, H, W) twice -> (N, rows, columns)."""
    squares = (student - teacher).square().mean(dim=1, keepdim=True)
    return grid.pool(squares)[:, 0].clamp(min=1e-12).sqrt()


def score_target(distance: Tensor, temperature: Tensor, *, literal: bool) -> Tensor:
    """What the mask generator is to say (equation 7): tanh(distance / temperature), or 1 minus that if `literal`."""
    gain = torch.tanh(distance / temperature.clamp(min=1e-12))
    return 1 - gain if literal else gain


def tile_psnr(result: Tensor, gt: Tensor, grid: TileGrid) -> Tensor:
    """PSNR in dB of each LR tile's HR pixels: (N, 3, 4H, 4W) twice -> (N, rows, columns)."""
    error = F.avg_pool2d((result - gt).square().mean(dim=1, keepdim=True), SCALE)
    return -10 * torch.log10(grid.pool(error)[:, 0].clamp(min=1e-10))


def mask_loss(score: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of score and target (equation 8)."""
    return (score - target.detach()).square().mean()


def spatial_map(feature: Tensor, mapping: Mapping) -> Tensor:
    """A feature (N, C, H, W) as a plane (N, H, W), by one of the three of equation 10.

    Args:
        mapping: "sum" of magnitudes, "square-sum", or "square-max", over the channels.
    """
    if mapping == "sum":
        return feature.abs().sum(dim=1)
    squares = feature.square()
    return squares.sum(dim=1) if mapping == "square-sum" else squares.amax(dim=1)


def error_loss(
    student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], layers: Sequence[int], mapping: Mapping
) -> Tensor:
    """Squared difference of the mapped features at the target layers, student to teacher (equation 11).

    Args:
        student, teacher: the features h_0 ... h_M of each trunk step, (N, C, H, W) each, in the same order.
        layers: which of them are compared.
        mapping: of equation 10.

    Returns:
        Mean over steps, layers, clips and pixels: the paper's sum over pixels would depend on the crop.
    """
    found = [
        (spatial_map(mine[layer], mapping) - spatial_map(theirs[layer], mapping)).square().mean()
        for mine, theirs in zip(student, teacher, strict=True)
        for layer in layers
    ]
    return torch.stack(found).mean()


class TeacherTargets:
    """One step of the paper's training: the teacher's pass, the student's, and what the student is to learn from them.

    Args:
        teacher: the frozen backbone.
        batch: crops in [0, 1], with their seeds.
        method: the choices.
        tile_px: most pixels a side of a tile.
    """

    def __init__(self, teacher: SkipVSR, batch: Batch, method: PaperMethod, tile_px: int) -> None:
        self._batch, self._method, self._tile_px = batch, method, tile_px
        self._grid = TileGrid.of(batch.lr.shape[-2], batch.lr.shape[-1], tile_px)
        self._theirs, self._mine = Recorder(), Recorder()
        self._scores: dict[tuple[int, int], Tensor] = {}
        self._teacher = teacher
        with torch.no_grad():
            self._flows = teacher.clip_flows(batch.lr)
            routed = RoutedTrunks(self._theirs, tile_px, self._theirs.execute)
            self._taught = teacher(batch.lr, routed, self._flows)

    @property
    def _blocks(self) -> int:
        return self._teacher.config.blocks

    def teacher_distance(self) -> Tensor:
        """Mean distance of the teacher's own features to their targets: what the temperature is fitted to."""
        found = [
            feature_distance(features[index], features[target_of(index, self._blocks, self._method.every)], self._grid)
            for _, features in self._theirs.steps
            for index in range(self._blocks)
        ]
        return torch.stack(found).mean()

    def run(self, student: SkipVSR) -> Tensor:
        """The student's pass, each clip at a threshold drawn from its seed: (B, T, 3, 4H, 4W)."""
        router = student.router
        assert isinstance(router, MaskGenerator)
        thresholds = self._draw_thresholds().to(self._batch.lr.device)

        def above(direction: str, difference: Tensor) -> Tensor:
            score = router(direction, difference.detach())
            self._scores[len(self._mine.steps) - 1, len(self._mine.steps[-1][1]) - 1] = score
            return (score > thresholds).to(score.dtype)

        align = warp if self._method.warped else None
        self._mine.policy = DifferenceThreshold(above, 0.5, cell_px=CELL_PX, align=align)
        flows = student.clip_flows(self._batch.lr) if next(student.flow.parameters()).requires_grad else self._flows
        return student(self._batch.lr, RoutedTrunks(self._mine, self._tile_px, self._mine.execute), flows)

    def mask_loss(self, student: SkipVSR, result: Tensor) -> Tensor:
        """Equation 8, over all blocks, frames and tiles that were scored (the first frame of a clip is not)."""
        router = student.router
        assert isinstance(router, MaskGenerator)
        with torch.no_grad():
            targets = self._targets(student, result, router.temperature)
        return torch.stack([mask_loss(score, targets[key]) for key, score in self._scores.items()]).mean()

    def error_loss(self) -> Tensor:
        """Equation 11."""
        layers = target_layers(self._blocks, self._method.every)
        mine, theirs = ([features for _, features in recorder.steps] for recorder in (self._mine, self._theirs))
        return error_loss(mine, theirs, layers, self._method.mapping)

    def _draw_thresholds(self) -> Tensor:
        drawn = []
        for seed in self._batch.seeds:
            random = torch.Generator().manual_seed(seed)
            full = torch.rand((), generator=random).item() < self._method.full_ratio
            drawn.append(0.0 if full else self._method.max_threshold * torch.rand((), generator=random).item())
        return torch.tensor(drawn).view(-1, 1, 1)

    def _targets(self, student: SkipVSR, result: Tensor, temperature: Tensor) -> dict[tuple[int, int], Tensor]:
        """What each score should have been, (N, rows, columns) by (step, block)."""
        return {(step, block): self._target(student, result, temperature, step, block) for step, block in self._scores}

    def _target(self, student: SkipVSR, result: Tensor, temperature: Tensor, step: int, block: int) -> Tensor:
        literal, supervision = self._method.literal, self._method.supervision
        mine, theirs = self._mine.steps[step][1], self._theirs.steps[step][1]
        target = target_of(block, self._blocks, self._method.every)
        if supervision == "feature-interval":
            return score_target(feature_distance(mine[block], theirs[target], self._grid), temperature, literal=literal)
        if supervision == "feature":
            return score_target(feature_distance(mine[-1], theirs[-1], self._grid), temperature, literal=literal)
        frame = self._frame_of(step)
        gt = self._batch.gt[:, frame]
        if supervision == "psnr":
            pictures = result[:, frame], self._taught[:, frame]
        else:
            pictures = self._picture(student, step, mine[block]), self._picture(self._teacher, step, theirs[target])
        difference = tile_psnr(pictures[0], gt, self._grid) - tile_psnr(pictures[1], gt, self._grid)
        # Squared decibels, as equations 14 and 15 have it.
        return score_target(difference.square(), torch.ones_like(temperature), literal=literal)

    def _frame_of(self, step: int) -> int:
        length = self._batch.lr.shape[1]
        return length - 1 - step if step < length else step - length

    def _picture(self, network: SkipVSR, step: int, feature: Tensor) -> Tensor:
        """What the reconstruction makes of a feature, with the teacher's final state of the other direction."""
        length, frame = self._batch.lr.shape[1], self._frame_of(step)
        other = 2 * length - 1 - step
        state = self._theirs.steps[other][1][-1]
        backward, forward = (feature, state) if step < length else (state, feature)
        return network.reconstruct(self._batch.lr[:, frame], backward, forward)
