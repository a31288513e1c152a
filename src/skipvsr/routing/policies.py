"""Which blocks run on which tiles.

A policy is called once before a trunk runs, with what is known then, and returns `decide`, which is called before each block
with the state that would enter it and says on which tiles the block runs. Policies that settle everything at once return a
depth per tile: block m runs on a tile where m < depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.rest import Stillness
from skipvsr.terms import LUMA_WEIGHTS, Direction

Decide = Callable[[int, Tensor], Tensor]
Fixed = Literal["uniform", "shallow", "deep"]


@dataclass(frozen=True)
class TrunkStep:
    """A trunk about to run on a frame.

    Args:
        direction: which trunk.
        frame: (N, 3, H, W), RGB in [0, 1].
        state: (N, C, H, W), what enters the first block.
        flow: (N, 2, H, W) in pixels, to the frame before in this direction; None on the first frame of a scene.
        grid: the tiles.
        blocks: residual blocks of the trunk.
        number: of the frame, from 0; -1 where it was not said.
        still: which tiles are at rest; None: none, or nobody looked. Whoever runs the trunk keeps their state, whatever runs.
    """

    direction: Direction
    frame: Tensor
    state: Tensor
    flow: Tensor | None
    grid: TileGrid
    blocks: int
    number: int = -1
    still: Stillness | None = None

    def everywhere(self, value: bool) -> Tensor:
        """(N, rows, columns) of one value."""
        shape = (self.frame.shape[0], self.grid.rows, self.grid.columns)
        return torch.full(shape, value, device=self.frame.device)


class Policy(Protocol):
    """Decides for one trunk step."""

    def __call__(self, step: TrunkStep) -> Decide: ...


@runtime_checkable
class RememberingPolicy(Policy, Protocol):
    """A policy that compares a frame with the one before, so that going on from somewhere needs what it remembers."""

    def memory(self) -> dict[str, Tensor]:
        """What it knows of the last frame of the forward trunk."""
        ...

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Go on from what `memory` gave."""
        ...


@dataclass(frozen=True)
class ByDepth:
    """A `Decide` that was settled before the trunk runs: block m runs where m < depth.

    Who runs blocks on a GPU can prepare all of them at once.

    Args:
        depth: (N, rows, columns) int, where the trunk runs.
        known: the same on the CPU, where it is known there already; it spares waiting for a GPU.
    """

    depth: Tensor
    known: Tensor | None = None

    def __call__(self, block: int, state: Tensor) -> Tensor:
        return self.depth > block

    def on_cpu(self) -> Tensor:
        """The depth on the CPU; a GPU is waited for where it is not known there."""
        return self.depth.cpu() if self.known is None else self.known


def all_blocks(step: TrunkStep) -> Decide:
    """Everything runs, but what rests."""
    return first_blocks(step, step.blocks)


def first_blocks(step: TrunkStep, count: int) -> Decide:
    """The first blocks run everywhere, but what rests."""
    if step.still is not None:
        return ByDepth(count * (~step.still.resting).int())
    shape = (step.frame.shape[0], step.grid.rows, step.grid.columns)
    known = torch.full(shape, count, dtype=torch.int32)
    return ByDepth(torch.full(shape, count, dtype=torch.int32, device=step.frame.device), known)


def by_depth(depth: Tensor, known: Tensor | None = None) -> Decide:
    """Block m runs where m < depth; arguments as for `ByDepth`."""
    return ByDepth(depth, known)


@dataclass(frozen=True)
class FixedBlocks:
    """The same blocks on every tile of every frame (Table 4 of the paper).

    Args:
        kind: "uniform" spreads the blocks that run evenly; "deep" runs the first ones (the deep ones are skipped);
            "shallow" runs the last ones.
        ratio: of the blocks that run, in (0, 1]; rounded to whole blocks.
    """

    kind: Fixed
    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if self.kind not in get_args(Fixed):
            raise ConfigError(f"the policy is {self.kind!r}; choose one of {', '.join(get_args(Fixed))}")

    def __call__(self, step: TrunkStep) -> Decide:
        chosen = self.chosen(step.blocks)
        return lambda block, state: step.everywhere(block in chosen)

    def chosen(self, blocks: int) -> frozenset[int]:
        """Indices of the blocks that run."""
        count = max(1, round(self.ratio * blocks))
        if self.kind == "deep":
            return frozenset(range(count))
        if self.kind == "shallow":
            return frozenset(range(blocks - count, blocks))
        return frozenset(int((i + 0.5) * blocks / count) for i in range(count))


@dataclass(frozen=True)
class RandomBlocks:
    """Each block of each tile runs with the same probability, independently of the others.

    Args:
        ratio: of the blocks that run, in (0, 1].
        generator: of the draws.
    """

    ratio: float
    generator: torch.Generator

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, step: TrunkStep) -> Decide:
        shape = step.everywhere(True).shape

        def decide(block: int, state: Tensor) -> Tensor:
            drawn = torch.rand(shape, generator=self.generator, device=self.generator.device)
            return (drawn < self.ratio).to(state.device)

        return decide


@dataclass(frozen=True)
class GradientRank:
    """Depth by the rank of a tile's luma gradient among the tiles of its frame: free, and hard to beat.

    Args:
        ratio: of the blocks that run, in (0, 1].
    """

    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, step: TrunkStep) -> Decide:
        return by_depth(depth_by_rank(gradient_energy(step.frame, step.grid), self.ratio, step.blocks))


def gradient_energy(frame: Tensor, grid: TileGrid) -> Tensor:
    """Mean absolute luma difference to the right and lower neighbour, per tile: (N, 3, H, W) -> (N, rows, columns)."""
    luma = (frame * frame.new_tensor(LUMA_WEIGHTS).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    slope = F.pad(luma.diff(dim=-1), (0, 1)).abs() + F.pad(luma.diff(dim=-2), (0, 0, 0, 1)).abs()
    return grid.pool(slope)[:, 0]


def depth_by_rank(energy: Tensor, ratio: float, blocks: int) -> Tensor:
    """Depth 0 ... blocks, linear in the rank of the energy within its frame, with the given mean ratio.

    Below one half the least get none, above it the most get all: rank r in (0, 1) gets blocks * clamp(r - 1/2 + s), where
    s is what brings the mean to `ratio`.
    """
    return depth_by_shift(energy, rank_shift(energy[0].numel(), ratio, blocks), blocks)


def rank_shift(count: int, ratio: float, blocks: int) -> float:
    """The s of `depth_by_rank` for frames of so many tiles."""
    rank = (torch.arange(count).float() + 0.5) / count
    low, high = -0.5, 1.5
    for _ in range(30):  # the mean rises with the shift
        shift = (low + high) / 2
        depth = (blocks * (rank - 0.5 + shift).clamp(0, 1)).round()
        low, high = (shift, high) if depth.mean().item() < ratio * blocks else (low, shift)
    return high


def depth_by_shift(energy: Tensor, shift: float | Tensor, blocks: int) -> Tensor:
    """`depth_by_rank`, told its s: one for all frames, or (N, 1) float32 with one for each."""
    rank = (energy.flatten(1).argsort(dim=1).argsort(dim=1).float() + 0.5) / energy[0].numel()
    return (blocks * (rank - 0.5 + shift).clamp(0, 1)).round().long().view_as(energy)


def check_ratio(ratio: float) -> None:
    """Raise ConfigError unless the ratio lies in (0, 1]."""
    if not 0 < ratio <= 1:
        raise ConfigError(f"the ratio of blocks is {ratio}; it must be above 0 and at most 1")
