"""Policies that ask a router. The routers themselves are networks (`skipvsr.models.router`) and come in as functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Decide, TrunkStep, all_blocks, by_depth, check_ratio, first_blocks
from skipvsr.terms import Direction

# Side of the cells in which the paper's router remembers the features of the previous frame.
CELL_PX = 4


class Gains(Protocol):
    """Gain of every block on every tile, (N, blocks, rows, columns), falling along the blocks: predicted, or measured."""

    def __call__(self, step: TrunkStep, /) -> Tensor: ...


class Router(Protocol):
    """The network that predicts gains: `skipvsr.models.router.GainRouter`."""

    def __call__(
        self, direction: str, frame: Tensor, state: Tensor, flow: Tensor | None, tiles: TileGrid
    ) -> Tensor: ...


class Account(Protocol):
    """Chooses the threshold of every pass of a trunk; see `skipvsr.inference.budget.BudgetAccount`."""

    def threshold(self, direction: Direction, ratio_above: Callable[[float], float] | None = None) -> float:
        """The threshold of the pass that is about to run.

        Args:
            direction: of the pass.
            ratio_above: the ratio of the pass's work that a threshold would let run; None where nobody knows.
        """
        ...

    def depth(self, direction: Direction, blocks: int) -> int | None:
        """How many of its blocks a pass that is about to run has everywhere; None: as the threshold says."""
        ...


@dataclass
class GainThreshold:
    """Blocks run where the predicted gain exceeds the threshold: a depth per tile, settled before the trunk runs.

    Args:
        gains: those that the router predicts.
        threshold: in the router's units; 0 runs everything. It may be changed while a video runs.
        account: chooses it anew for every pass.
    """

    gains: Gains
    threshold: float
    account: Account | None = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    def __call__(self, step: TrunkStep) -> Decide:
        if self.account is None:
            return by_depth((self._worth(step) > self.threshold).sum(dim=1)) if self.threshold else all_blocks(step)
        depth = self.account.depth(step.direction, step.blocks)
        if depth is not None:
            return first_blocks(step, depth)
        gains = self._worth(step).float()
        # Of all that a trunk's step does, the account alone waits for a GPU. What it fetched says the depths, too.
        known = gains.detach().cpu()
        self.threshold = self.account.threshold(step.direction, ratio_above(known, step.grid.pixels()))
        if not self.threshold:
            return all_blocks(step)
        return by_depth((gains > self.threshold).sum(dim=1), (known > self.threshold).sum(dim=1))

    def _worth(self, step: TrunkStep) -> Tensor:
        gains = self.gains(step)
        return gains if step.still is None else step.still.worth(gains)


@dataclass(frozen=True)
class GainBudget:
    """The blocks and tiles of highest predicted gain, as many as the ratio allows in each frame.

    Args:
        gains: predicted or measured.
        ratio: of the residual blocks' work, in (0, 1].
        least_backward: the backward trunk gives its blocks first, until so many are left; see `backward_first`. 0: each trunk
            spends the ratio.
    """

    gains: Gains
    ratio: float
    least_backward: int = 0

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, step: TrunkStep) -> Decide:
        ratio = self.ratio
        if self.least_backward:
            backward, ratio = backward_first(self.ratio, step.blocks, self.least_backward)
            if step.direction == "backward":
                return first_blocks(step, backward)
        return by_depth(depth_within(self.gains(step), step.grid.pixels(), ratio))


def backward_first(ratio: float, blocks: int, least: int) -> tuple[int, float]:
    """How a ratio of the work is divided where the backward trunk gives its blocks first.

    Args:
        ratio: of the work of both trunks.
        blocks: of each trunk.
        least: of the backward trunk, where the ratio of a trunk is that many.

    Returns:
        How many blocks of the backward trunk run, and the ratio of the forward trunk's.
    """
    spare = math.floor((2 * ratio - 1) * blocks + 1e-9)
    backward = min(max(spare, least if ratio * blocks >= least else 0), blocks)
    return backward, min(2 * ratio - backward / blocks, 1.0)


def ask(router: Router, step: TrunkStep) -> Tensor:
    """The gains that a router predicts for a step."""
    return router(step.direction, step.frame, step.state, step.flow, step.grid)


def depth_within(gains: Tensor, pixels: Tensor, ratio: float | Tensor) -> Tensor:
    """The depth per tile that spends at most `ratio` of the work where the gain is highest.

    Args:
        gains: (N, blocks, rows, columns), falling along the blocks.
        pixels: (rows, columns), what each tile costs.
        ratio: of the work, for each of the N frames; a tensor (N,) has one for each.

    Returns:
        (N, rows, columns) int64.
    """
    count, blocks = gains.shape[:2]
    cost = pixels.to(gains.device).expand(blocks, *pixels.shape).flatten()
    values = gains.flatten(1)
    order = values.argsort(dim=1, descending=True, stable=True)
    spent = cost[order].cumsum(dim=1)
    chosen = torch.zeros_like(values, dtype=torch.bool)
    # Without a number of Python's: that would wait for a GPU.
    most = (ratio * cost.sum().double()).float()
    chosen.scatter_(1, order, spent <= most.view(-1, 1))
    # Of equal gains a later block may have been chosen before an earlier one: what counts is how many.
    return chosen.view(count, blocks, *pixels.shape).sum(dim=1)


def ratio_above(gains: Tensor, pixels: Tensor) -> Callable[[float], float]:
    """The ratio of a pass's work with a gain above a threshold, as a function of the threshold.

    Args:
        gains: (N, blocks, rows, columns).
        pixels: (rows, columns), what each tile costs.
    """
    rising, order = gains.detach().float().flatten().cpu().sort()
    costs = pixels.expand(gains.shape).flatten()[order].double()
    below = F.pad(costs.cumsum(dim=0), (1, 0)) / costs.sum()
    # A threshold is looked for in some forty steps, each of which asks; numpy answers in a fraction of torch's time.
    values, shares = rising.numpy(), below.numpy()

    def ratio(threshold: float) -> float:
        return 1.0 - float(shares[values.searchsorted(np.float32(threshold), side="right")])

    return ratio


@dataclass
class DifferenceThreshold:
    """The paper's way: before each block, score the difference to what entered it on the previous frame (equations 5, 9).

    On the first frame of a scene everything runs. What entered the blocks of the previous frame is kept as means of small
    cells, so that memory stays bounded: 1 keeps every pixel (the paper), 4 a sixteenth.

    Args:
        score: direction and pooled difference (N, C, rows, columns) -> (N, rows, columns) in (0, 1).
        threshold: alpha; a block runs where the score exceeds it.
        cell_px: side of a cell.
        account: chooses the threshold anew for every pass in which it counts.
        align: given the flow in cells, makes what brings a feature of the previous frame onto this one; None compares it as
            it lies (`raw`, the paper's words).
    """

    score: Callable[[str, Tensor], Tensor]
    threshold: float
    cell_px: int = CELL_PX
    align: Callable[[Tensor], Callable[[Tensor], Tensor]] | None = None
    account: Account | None = None
    _before: dict[Direction, dict[int, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    def __call__(self, step: TrunkStep) -> Decide:
        if step.flow is None:
            self._before[step.direction] = {}
        before = self._before.setdefault(step.direction, {})
        align = None if step.flow is None or self.align is None else self.align(self._cells(step.flow) / self.cell_px)
        if self.account is not None and before:
            self.threshold = self.account.threshold(step.direction)

        def decide(block: int, state: Tensor) -> Tensor:
            now, previous = self._cells(state), before.get(block)
            before[block] = now.clone() if self.cell_px == 1 else now
            if previous is None:
                return step.everywhere(True)
            if align is not None:
                previous = align(previous)
            difference = step.grid.pool((now.float() - previous.float()).abs(), self.cell_px)
            return self.score(step.direction, difference) > self.threshold

        return decide

    def memory(self) -> dict[str, Tensor]:
        """What is known of the last frame of the forward trunk, by block: what the next window needs."""
        return {str(block): state for block, state in self._before.get("forward", {}).items()}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Go on from what `memory` gave."""
        self._before["forward"] = {int(block): state for block, state in memory.items()}

    def _cells(self, values: Tensor) -> Tensor:
        if self.cell_px == 1:
            return values
        return F.avg_pool2d(values, self.cell_px, ceil_mode=True, count_include_pad=False)


def check_threshold(threshold: float) -> None:
    """Raise ConfigError unless the threshold is 0 or more."""
    if not threshold >= 0:
        raise ConfigError(f"the threshold is {threshold}; it must be 0 (run everything) or more")
