"""Run blocks on the active tiles alone, so that skipped work costs no time.

The state lies channels-last in a canvas of whole tiles with a two-pixel frame of zeros. For each block, the active tiles
are gathered with a halo of two pixels, both convolutions run on small batches of them without padding, and the results are
scattered back. All tiles are gathered before the first is scattered: neighbours read what was there before the block.

Outside the picture the first convolution's output must be zero, not ReLU(bias): that is what padding means to the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.models.blocks import ResidualBlock
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Decide

HALO_PX = 2
# Tiles per convolution call: so few that they stay in cache, and of so few sizes that primitives are reused.
BATCHES = (8, 4, 2, 1)


def run_blocks(blocks: Sequence[ResidualBlock], state: Tensor, decide: Decide, grid: TileGrid) -> tuple[Tensor, Tensor]:
    """The same as `masked.run_blocks`, but skipped tiles are not computed."""
    canvas = Canvas(state, grid)
    masks = []
    for number, block in enumerate(blocks):
        mask = decide(number, canvas.state)
        masks.append(mask)
        canvas.run(block, mask)
    return canvas.state, torch.stack(masks)


class Canvas:
    """The state of a frame, (N, C, H, W), laid out for tiles.

    Args:
        state: copied.
        grid: the tiles.
    """

    def __init__(self, state: Tensor, grid: TileGrid) -> None:
        self._grid = grid
        count, channels, height, width = state.shape
        self._below = grid.rows * grid.tile_height - height
        self._right = grid.columns * grid.tile_width - width
        shape = (
            count, grid.rows * grid.tile_height + 2 * HALO_PX, grid.columns * grid.tile_width + 2 * HALO_PX, channels,
        )  # fmt: skip
        self._pixels = state.new_zeros(shape)
        inside = self._pixels[:, HALO_PX : HALO_PX + height, HALO_PX : HALO_PX + width]
        inside.copy_(state.permute(0, 2, 3, 1))
        self.state = inside.permute(0, 3, 1, 2)
        """(N, C, H, W), a channels-last view that follows the canvas."""
        high, wide = grid.tile_height, grid.tile_width
        # (N, rows, columns, tile_height + 4, tile_width + 4, C) to read, and without the halo to write.
        self._with_halo = (
            self._pixels.unfold(1, high + 2 * HALO_PX, high)
            .unfold(2, wide + 2 * HALO_PX, wide)
            .permute(0, 1, 2, 4, 5, 3)
        )
        whole = self._pixels[:, HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
        self._tiles = whole.unfold(1, high, high).unfold(2, wide, wide).permute(0, 1, 2, 4, 5, 3)

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        """Replace the state by that after the block where the mask (N, rows, columns) is True."""
        active = mask.nonzero(as_tuple=True)
        gathered = self._with_halo[active]  # (K, tile_height + 4, tile_width + 4, C)
        start = 0
        for size in BATCHES:
            while len(gathered) - start >= size:
                part = slice(start, start + size)
                chosen = (active[0][part], active[1][part], active[2][part])
                self._tiles[chosen] = self._after(block, gathered[part], chosen)
                start += size

    def _after(self, block: ResidualBlock, tiles: Tensor, chosen: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Tiles with halo, (K, h + 4, w + 4, C), before the block -> tiles (K, h, w, C) after it."""
        x = tiles.permute(0, 3, 1, 2)  # channels-last in memory
        hidden = F.conv2d(x, block.conv1.weight, block.conv1.bias).relu_()
        self._clear_outside(hidden, chosen, 1)
        after = F.conv2d(hidden, block.conv2.weight, block.conv2.bias)
        after += x[..., HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
        self._clear_outside(after, chosen, 0)
        return after.permute(0, 2, 3, 1)

    def _clear_outside(self, values: Tensor, chosen: tuple[Tensor, Tensor, Tensor], halo: int) -> None:
        """Zero what of (K, C, h + 2 halo, w + 2 halo) lies outside the picture."""
        _, row, column = chosen
        if halo:
            values[row == 0, :, :halo] = 0
            values[column == 0, :, :, :halo] = 0
        if self._below + halo:
            values[row == self._grid.rows - 1, :, -(self._below + halo) :] = 0
        if self._right + halo:
            values[column == self._grid.columns - 1, :, :, -(self._right + halo) :] = 0
