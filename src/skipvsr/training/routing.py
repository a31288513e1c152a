"""How our router learns: the depths it tries, and the loss of the gains that it predicts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.models.router import GainRouter
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import Gains, ask, backward_first, depth_within
from skipvsr.routing.policies import Decide, TrunkStep, by_depth, depth_by_shift, gradient_energy, rank_shift
from skipvsr.terms import Direction

GAIN_UNIT = 1e-4


@dataclass(frozen=True)
class _Drawn:
    """What is drawn once for a direction of a batch of N clips, on the device of its frames.

    depth: (N, rows, columns) int64, of some tiles, -1 of the others. budget: (N,) float64. shift: (N, 1), what `rank_shift`
    gives for it. by_gradient: (N, 1, 1) bool, whether the rank of the gradient spends it. pixels: (rows, columns), of a tile.
    """

    depth: Tensor
    budget: Tensor
    shift: Tensor
    by_gradient: Tensor
    pixels: Tensor


@dataclass
class ExploringPolicy:
    """Depths to learn from: each clip at a random budget, mostly as the router would spend it, with random tiles thrown in.

    With `least_backward` a budget is divided as the dial divides it (`backward_first`): the backward trunk has the same depth
    everywhere, and tiles differ in the forward trunk alone.

    What it asked and decided is kept in `asked`, for `gain_loss`.

    Args:
        router: of the network; its gradient stays within it.
        seeds: one for each clip; all that is drawn follows from them.
        min_budget, max_budget: budgets are drawn evenly between them.
        explore: ratio of tiles whose depth is drawn at random, for the whole clip.
        by_gradient: ratio of clips that spend their budget by the rank of the luma gradient instead.
        least_backward: blocks that a budget leaves the backward trunk; 0: each trunk spends the budget.
    """

    router: GainRouter
    seeds: tuple[int, ...]
    min_budget: float
    least_backward: int = 0
    max_budget: float = 1.0
    explore: float = 0.25
    by_gradient: float = 0.3
    asked: list[tuple[Direction, Tensor, Tensor]] = field(default_factory=list, init=False)
    _drawn: dict[Direction, _Drawn] = field(default_factory=dict, init=False)

    def __call__(self, step: TrunkStep) -> Decide:
        gains = ask(self.router, _detached(step))
        if step.direction not in self._drawn:
            self._drawn[step.direction] = self._draw(step)
        drawn = self._drawn[step.direction]
        by_rank = depth_by_shift(gradient_energy(step.frame, step.grid), drawn.shift, step.blocks)
        by_gain = depth_within(gains.detach(), drawn.pixels, drawn.budget)
        depth = torch.where(drawn.by_gradient, by_rank, by_gain)
        depth = torch.where(drawn.depth >= 0, drawn.depth, depth)
        self.asked.append((step.direction, gains, depth))
        return by_depth(depth)

    def _draw(self, step: TrunkStep) -> _Drawn:
        shape = (step.grid.rows, step.grid.columns)
        depths, budgets, shifts, by_gradient = [], [], [], []
        for seed in self.seeds:
            random = torch.Generator().manual_seed(seed)
            budget = self.min_budget + (self.max_budget - self.min_budget) * torch.rand((), generator=random).item()
            everywhere = None
            if self.least_backward:
                backward, budget = backward_first(budget, step.blocks, self.least_backward)
                everywhere = backward if step.direction == "backward" else None
            budgets.append(budget)
            by_gradient.append(torch.rand((), generator=random).item() < self.by_gradient)
            shifts.append(rank_shift(step.grid.tiles, budgets[-1], step.blocks))
            random = torch.Generator().manual_seed(seed + (step.direction == "forward") * 2**31 + 2**32)
            depth = torch.randint(0, step.blocks + 1, shape, generator=random)
            depth = torch.where(torch.rand(shape, generator=random) < self.explore, depth, -1)
            depths.append(depth if everywhere is None else torch.full_like(depth, everywhere))
        return _Drawn(
            torch.stack(depths).to(step.frame.device),
            torch.tensor(budgets, dtype=torch.float64, device=step.frame.device),
            torch.tensor(shifts, device=step.frame.device)[:, None],
            torch.tensor(by_gradient, device=step.frame.device).view(-1, 1, 1),
            step.grid.pixels().to(step.frame.device),
        )


@dataclass
class TaughtPolicy:
    """Decides as the policy does, and has the oracle say at every step what the gains really are.

    Args:
        policy: explores; its router is the pupil.
        oracle: of the batch.
    """

    policy: ExploringPolicy
    oracle: Gains
    _true: list[Tensor] = field(default_factory=list, init=False)

    def __call__(self, step: TrunkStep) -> Decide:
        self._true.append(self.oracle(step) / GAIN_UNIT)
        with torch.enable_grad():
            return self.policy(step)

    def loss(self) -> Tensor:
        """Mean over steps, tiles and blocks of (gain - truth)^2 / (gain + 0.1), in units of 1e-4; see `gain_loss`."""
        gains = torch.stack([gains for _, gains, _ in self.policy.asked])
        return ((gains - torch.stack(self._true)).square() / (gains.detach() + 0.1)).mean()


def gain_loss(policy: ExploringPolicy, full: Tensor, small: Tensor, gt: Tensor, grid: TileGrid) -> Tensor:
    """How far the gains that the router predicted for the skipped blocks are from what skipping them cost.

    Args:
        policy: after a pass over the clip in which it decided.
        full, small: (B, T, 3, s * H, s * W), results of all blocks and of those that the policy chose.
        gt: the ground truth.
        grid: the tiles of the LR frame.

    Returns:
        Mean over tiles and frames of (promised - cost)^2 / (promised + 0.1), both in units of 1e-4 of squared error. Its
        minimum is the expected cost, whatever the weight; the weight keeps a few dramatic tiles from ruling.
    """
    cost = (excess(small, gt, grid) - excess(full, gt, grid)) / GAIN_UNIT
    length = full.shape[1]
    passes = {"backward": [], "forward": []}
    for direction, gains, depth in policy.asked:
        skipped = torch.arange(gains.shape[1], device=gains.device).view(1, -1, 1, 1) >= depth[:, None]
        passes[direction].append((gains * skipped).sum(dim=1))
    assert len(passes["backward"]) == len(passes["forward"]) == length
    promised = torch.stack(passes["backward"][::-1], dim=1) + torch.stack(passes["forward"], dim=1)
    return ((promised - cost.detach()).square() / (promised.detach() + 0.1)).mean()


def excess(result: Tensor, gt: Tensor, grid: TileGrid) -> Tensor:
    """Mean squared error of each LR tile's HR pixels: (B, T, 3, s * H, s * W) twice -> (B, T, rows, columns)."""
    error = (result.detach() - gt).square().mean(dim=2).flatten(0, 1)[:, None]
    tiles = grid.pool(F.avg_pool2d(error, gt.shape[-1] // grid.width))
    return tiles.view(*result.shape[:2], *tiles.shape[-2:])


def _detached(step: TrunkStep) -> TrunkStep:
    """The step without gradients: the router's loss does not reach the backbone."""
    flow = None if step.flow is None else step.flow.detach()
    return replace(step, state=step.state.detach(), flow=flow)
