"""Run blocks on the active tiles alone, on a GPU: our kernels where tiles rest, torch's convolutions where hardly any does.

Nothing here waits for the GPU between blocks. Where a policy settled a depth for every tile before the trunk (`ByDepth`), tiles
are sorted by it once: those that are active for a block are the first ones of that list, for every block, and how many
they are is counted for all blocks at once. The depths come to the CPU once a step, before any block is launched (our
router's account has them there anyway, and the trace needs them); they say for each block how many tiles to launch for, and
whether the whole frame costs less. Where a policy decides block by block (the paper's), the list is made anew before each block
and stays on the GPU: kernels are launched for all tiles, and programs without a tile return at once. Whether the whole frame
would cost less is not asked then, because to know it the CPU would have to wait for every block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from skipvsr.inference.graphs import StepGraphs
from skipvsr.inference.tiled import DENSE_RATIO
from skipvsr.models.blocks import ResidualBlock
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import ByDepth, Decide


@dataclass(frozen=True)
class LaunchSettings:
    """How the kernels are compiled and launched.

    Args:
        block_pixels: pixels of a program, a power of two.
        warps: of a program.
        stages: of loads that are under way at a time.
    """

    block_pixels: int = 128
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class ActiveTiles:
    """The tiles that are active for each of some blocks, all on the device.

    Args:
        order: (N * tiles,) int32, numbers of tiles, row by row in each image; the active ones of every block come first.
        counts: (blocks,) int32, how many those are.
    """

    order: Tensor
    counts: Tensor


def active_tiles(depth: Tensor, blocks: int) -> ActiveTiles:
    """The lists of all blocks, where block m is active on a tile where m < depth; depth is (N, rows, columns), int or bool."""
    flat = depth.flatten()
    order = flat.to(torch.int32).argsort(descending=True, stable=True).to(torch.int32)
    counts = (flat > torch.arange(blocks, device=depth.device)[:, None]).sum(dim=1, dtype=torch.int32)
    return ActiveTiles(order, counts)


@dataclass(frozen=True)
class Plan:
    """What the CPU knows of a trunk's step whose depths are settled. Active tiles never grow in number along the blocks.

    Blocks up to `whole` run as if the frame were one tile, blocks up to `dense` on the whole frame through torch, blocks up to
    `last` on active tiles; none of those behind is active anywhere.

    Args:
        full: blocks up to here are active everywhere.
        whole, dense, last: see above; none is less than the one before it.
        launched: tiles to launch for, at least as many as are active, for each block up to `last`.
    """

    full: int
    whole: int
    dense: int
    last: int
    launched: tuple[int, ...]

    @classmethod
    def of(cls, counts: Sequence[int], tiles: int, dense_ratio: float, *, whole: bool) -> Plan:
        """The plan for so many active tiles of each block; `dense_ratio` and `whole` are those of `TritonBlocks`."""
        full = sum(count == tiles for count in counts)
        dense = sum(count >= dense_ratio * tiles for count in counts)
        last = sum(count > 0 for count in counts)
        as_one = full if whole or dense_ratio > 1 else 0
        return cls(full, as_one, max(dense, as_one), last, tuple(counts[:last]))

    def rounded(self, blocks: int, tiles: int) -> Plan:
        """One of few plans that is right where this one is: each is recorded as a graph of its own."""
        step = max(1, blocks // 8)

        def down(value: int) -> int:
            return value if value == blocks else value // step * step

        last = min(-(-self.last // step) * step, blocks)
        return Plan(down(self.full), down(self.whole), down(self.dense), last, (tiles,) * last)


@dataclass(frozen=True)
class TritonBlocks:
    """Does what `masked.run_blocks` does, on a GPU (or, in Triton's interpreter, on a CPU), without computing skipped tiles.

    Args:
        dense_ratio: ratio of active tiles from which a block runs on the whole frame through torch; above 1: never.
        whole: blocks that are active everywhere run through the kernels too, the frame as one tile, so that no border between
            tiles is computed twice. With a `dense_ratio` above 1 they do so anyway.
        settings: of the kernels.
        graphs: through which steps run whose depths are settled; None: kernel by kernel.
    """

    dense_ratio: float = DENSE_RATIO
    whole: bool = False
    settings: LaunchSettings = field(default_factory=LaunchSettings)
    graphs: StepGraphs | None = None

    @torch.no_grad()
    def __call__(
        self, blocks: Sequence[ResidualBlock], state: Tensor, decide: Decide, grid: TileGrid
    ) -> tuple[Tensor, Tensor]:
        """Arguments and results as for `masked.run_blocks`; the masks lie on the CPU where they are known there.

        The state that `decide` is given is overwritten by the block: it may look at it, and must copy what it keeps.
        """
        if isinstance(decide, ByDepth):
            return self._run_settled(blocks, state, decide, grid)
        pixels = _copied(state)
        hidden = _scratch(pixels, grid, pixels.shape[0] * grid.tiles)
        masks = []
        for number, block in enumerate(blocks):
            mask = decide(number, pixels.permute(0, 3, 1, 2))
            masks.append(mask)
            self._add(block, 0, pixels, hidden, active_tiles(mask, 1), mask.numel(), grid)
        return pixels.permute(0, 3, 1, 2), torch.stack(masks)

    def _run_settled(
        self, blocks: Sequence[ResidualBlock], state: Tensor, decide: ByDepth, grid: TileGrid
    ) -> tuple[Tensor, Tensor]:
        known = decide.on_cpu()
        masks = known > torch.arange(len(blocks)).view(-1, 1, 1, 1)
        plan = Plan.of(masks.flatten(1).sum(dim=1).tolist(), known.numel(), self.dense_ratio, whole=self.whole)
        if plan.last == 0:
            return state, masks
        if self.graphs is None:
            return self._follow(plan, blocks, grid, state, decide.depth), masks
        plan = plan.rounded(len(blocks), known.numel())
        name = ("blocks", blocks[0], grid, self.settings, plan)
        return self.graphs.run(name, partial(self._follow, plan, blocks, grid), state, decide.depth), masks

    def _follow(
        self, plan: Plan, blocks: Sequence[ResidualBlock], grid: TileGrid, state: Tensor, depth: Tensor
    ) -> Tensor:
        """The state after all blocks. Whatever the plan leaves open is read on the device."""
        if plan.whole:
            state = self.run_everywhere(blocks[: plan.whole], state)
        state = _run_dense(plan, blocks, grid, state, depth)
        if plan.last <= plan.dense:
            return state
        pixels, active = _copied(state), active_tiles(depth, len(blocks))
        hidden = _scratch(pixels, grid, max(plan.launched[plan.dense :]))
        for number in range(plan.dense, plan.last):
            self._add(blocks[number], number, pixels, hidden, active, plan.launched[number], grid)
        return pixels.permute(0, 3, 1, 2)

    def run_everywhere(self, blocks: Sequence[ResidualBlock], state: Tensor) -> Tensor:
        """The state (N, C, H, W) after blocks that are active everywhere: the frame is one tile."""
        pixels = _copied(state)
        frames, height, width, _ = pixels.shape
        grid = TileGrid(height, width, height, width)
        active = active_tiles(torch.ones(frames, 1, 1, dtype=torch.bool, device=pixels.device), 1)
        hidden = _scratch(pixels, grid, frames)
        for block in blocks:
            self._add(block, 0, pixels, hidden, active, frames, grid)
        return pixels.permute(0, 3, 1, 2)

    def _add(
        self,
        block: ResidualBlock,
        number: int,
        pixels: Tensor,
        hidden: Tensor,
        active: ActiveTiles,
        launched: int,
        grid: TileGrid,
    ) -> None:
        """Replace the state, (N, H, W, C), by that after a block, on the tiles that the lists have for block `number`."""
        from skipvsr.inference.triton_kernels import add_tiles, convolve_tiles  # imports Triton

        settings = self.settings
        sizes = (
            number, launched, grid.tile_height, grid.tile_width, settings.block_pixels, settings.warps, settings.stages
        )  # fmt: skip
        convolve_tiles(pixels, *_weights(block.conv1), active.order, active.counts, hidden, *sizes)
        add_tiles(hidden, *_weights(block.conv2), active.order, active.counts, pixels, *sizes)


def _run_dense(plan: Plan, blocks: Sequence[ResidualBlock], grid: TileGrid, state: Tensor, depth: Tensor) -> Tensor:
    """The state after the blocks that run on the whole frame; what tiles at rest would have become is dropped."""
    spread = grid.expand(depth) if plan.full < plan.dense else None
    for number in range(plan.whole, plan.dense):
        after = blocks[number](state)
        state = after if spread is None or number < plan.full else torch.where(spread > number, after, state)
    return state


def _copied(state: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), a copy of our own."""
    return state.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)


def _scratch(pixels: Tensor, grid: TileGrid, tiles: int) -> Tensor:
    """Room for the hidden features of so many tiles, not initialised: the kernels write all that they read."""
    return pixels.new_empty(tiles, grid.tile_height + 2, grid.tile_width + 2, pixels.shape[3])


def _weights(conv: torch.nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert conv.bias is not None
    # Already so where `prepare_model` made the model ready; then nothing is copied.
    return conv.weight.detach().contiguous(memory_format=torch.channels_last), conv.bias.detach()
