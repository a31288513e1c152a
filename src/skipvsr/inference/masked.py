"""The reference execution: every block is computed everywhere and multiplied by its mask. Training uses it, and every other
execution must give the same results."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skipvsr.models.blocks import ResidualBlock
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Decide


def run_blocks(blocks: Sequence[ResidualBlock], state: Tensor, decide: Decide, grid: TileGrid) -> tuple[Tensor, Tensor]:
    """h + mask * F(h) for each block in turn (equation 4 of the paper).

    Args:
        blocks: of a trunk, in order.
        state: (N, C, H, W), what enters the first block.
        decide: block number and state -> (N, rows, columns) bool.
        grid: the tiles of the frame.

    Returns:
        The state after the last block, and the masks, (blocks, N, rows, columns) bool.
    """
    masks = []
    for number, block in enumerate(blocks):
        mask = decide(number, state)
        masks.append(mask)
        state = state + grid.expand(mask).to(state.dtype) * block.residual(state)
    return state, torch.stack(masks)
