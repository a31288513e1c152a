"""Run blocks on the active tiles alone, so that skipped work costs no time.

The state lies channels-last in two canvases of whole tiles with a two-pixel frame of zeros. A block reads one and writes the
other: the active tiles are gathered with a halo of two pixels in small batches, both convolutions run on them without
padding, and the results are scattered. So neighbours read what was there before the block. Tiles at rest lie in both
canvases already; only those that the block before wrote are copied.

A block that is active nearly everywhere runs on the whole frame, which costs less, and the tiles at rest are put back.

Outside the picture the first convolution's output must be zero, not ReLU(bias): that is what padding means to the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.models.blocks import ResidualBlock
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Decide

HALO_PX = 2
# Multiply-accumulates of a convolution call, about: few enough to stay in cache, so many that the call itself costs little.
BATCH_MACS = 320_000_000
# Share of active tiles from which the whole frame costs less. Measured: docs/routing.md.
DENSE_SHARE = 0.75
_SMALL = 8


def run_blocks(
    blocks: Sequence[ResidualBlock],
    state: Tensor,
    decide: Decide,
    grid: TileGrid,
    *,
    parallel: int | None = None,
    dense_share: float = DENSE_SHARE,
) -> tuple[Tensor, Tensor]:
    """The same as `masked.run_blocks`, but skipped tiles are not computed.

    Args:
        blocks, state, decide, grid: as there.
        parallel: tiles per convolution call; None: by what a tile costs.
        dense_share: share of active tiles from which a block runs on the whole frame; above 1: never.
    """
    if parallel is None:
        macs = 9 * state.shape[1] ** 2 * grid.tile_height * grid.tile_width
        parallel = 1 << max(0, (BATCH_MACS // macs).bit_length() - 1)
    canvas: Canvas | None = None  # not before it is needed
    masks = []
    for number, block in enumerate(blocks):
        mask = decide(number, state)
        masks.append(mask)
        active = mask.float().mean().item()
        if canvas is None and active < dense_share:
            canvas = Canvas(state, grid, parallel, dense_share)
        if canvas is not None:
            canvas.run(block, mask)
            state = canvas.state
        elif active == 1:
            state = block(state)
        else:
            state = torch.where(grid.expand(mask), block(state), state)
    return state, torch.stack(masks)


def extra_macs(mask: Tensor, grid: TileGrid, channels: int, dense_share: float = DENSE_SHARE) -> int:
    """Multiply-accumulates of `run_blocks` beyond those of the pixels that were to run.

    In tiles: their halo, and what lies beyond the picture in the last ones; on the whole frame: the tiles at rest.

    Args:
        mask: (blocks, N, rows, columns) bool.
        grid: the tiles.
        channels: of the state.
        dense_share: as for `run_blocks`.
    """
    pixels = grid.pixels().to(mask.device)
    high, wide = grid.tile_height, grid.tile_width
    of_tile = (high + HALO_PX) * (wide + HALO_PX) + high * wide  # the first convolution and the second
    computed = 0
    for active in mask:
        dense = active.float().mean().item() >= dense_share
        computed += 2 * len(active) * int(pixels.sum()) if dense else int(active.sum()) * of_tile
    return (computed - 2 * int((mask * pixels).sum())) * 9 * channels**2


class Canvas:
    """The state of a frame, (N, C, H, W), laid out for tiles.

    Args:
        state: copied.
        grid: the tiles.
        parallel, dense_share: as for `run_blocks`.
    """

    def __init__(self, state: Tensor, grid: TileGrid, parallel: int, dense_share: float) -> None:
        self._grid, self._parallel, self._dense_share = grid, parallel, dense_share
        count, channels, height, width = state.shape
        self._below = grid.rows * grid.tile_height - height
        self._right = grid.columns * grid.tile_width - width
        shape = (
            2, count, grid.rows * grid.tile_height + 2 * HALO_PX, grid.columns * grid.tile_width + 2 * HALO_PX, channels,
        )  # fmt: skip
        self._pixels = state.new_empty(shape)
        self._inside = self._pixels[:, :, HALO_PX : HALO_PX + height, HALO_PX : HALO_PX + width]
        self._inside[0].copy_(state.permute(0, 2, 3, 1))
        self._pixels[:, :, :HALO_PX] = 0
        self._pixels[:, :, :, :HALO_PX] = 0
        self._clear_beyond(self._pixels)
        high, wide = grid.tile_height, grid.tile_width
        # To read: the row of a tile with its halo that starts at each pixel, (pixels, (tile_width + 4) * C). Whole rows are
        # copied faster than indexing copies tiles.
        length = wide + 2 * HALO_PX
        pixels = self._pixels[0].numel() // channels
        self._rows_at = [
            canvas.as_strided((pixels - length + 1, length * channels), (channels, 1)) for canvas in self._pixels
        ]
        down = torch.arange(high + 2 * HALO_PX, device=state.device)
        self._down = down * shape[3]  # from the first row of a tile to each of its rows
        # To write: the tiles of each canvas, (N, rows, columns, tile_height, tile_width, C).
        whole = self._pixels[:, :, HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
        self._tiles = whole.unfold(2, high, high).unfold(3, wide, wide).permute(0, 1, 2, 3, 5, 6, 4)
        self._at_border = torch.zeros(grid.rows, grid.columns, dtype=torch.bool, device=state.device)
        self._at_border[[0, -1]] = True
        self._at_border[:, [0, -1]] = True
        self._now = 0
        # Where the canvas to be written is not as the current one.
        self._changed = torch.ones(count, grid.rows, grid.columns, dtype=torch.bool, device=state.device)

    @property
    def state(self) -> Tensor:
        """(N, C, H, W), a channels-last view of the current canvas."""
        return self._inside[self._now].permute(0, 3, 1, 2)

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        """Replace the state by that after the block where the mask (N, rows, columns) is True."""
        now, then = self._now, 1 - self._now
        if mask.float().mean() >= self._dense_share:
            self._inside[then].copy_(block(self.state).permute(0, 2, 3, 1))
            self._copy(~mask)
        else:
            self._copy(self._changed & ~mask)
            for chosen, border in self._batches(mask):
                self._tiles[then][chosen] = self._after(block, self._gather(now, chosen), chosen, border)
            self._clear_beyond(self._pixels[then : then + 1])
        self._changed, self._now = mask, then

    def _clear_beyond(self, canvases: Tensor) -> None:
        """Zero what lies beyond the picture's last row and column; the last tiles may have written there."""
        height, width = self._inside.shape[2:4]
        canvases[:, :, HALO_PX + height :] = 0
        canvases[:, :, :, HALO_PX + width :] = 0

    def _copy(self, which: Tensor) -> None:
        """Bring tiles to the canvas to be written, as they are."""
        chosen = which.nonzero(as_tuple=True)
        self._tiles[1 - self._now][chosen] = self._tiles[self._now][chosen]

    def _gather(self, canvas: int, chosen: tuple[Tensor, ...]) -> Tensor:
        """Tiles with halo: (K, tile_height + 4, tile_width + 4, C)."""
        image, row, column = chosen
        high, wide = self._grid.tile_height, self._grid.tile_width
        _, _, canvas_height, canvas_width, channels = self._pixels.shape
        first = (image * canvas_height + row * high) * canvas_width + column * wide
        rows = self._rows_at[canvas].index_select(0, (first[:, None] + self._down).flatten())
        return rows.view(len(image), high + 2 * HALO_PX, wide + 2 * HALO_PX, channels)

    def _batches(self, mask: Tensor) -> Iterator[tuple[tuple[Tensor, ...], bool]]:
        """Active tiles in batches of few sizes, those at the picture's border last, and whether a batch has some of them."""
        active = mask.nonzero()
        border = self._at_border[active[:, 1], active[:, 2]]
        active = active[border.argsort(stable=True)]
        first_at_border = len(active) - int(border.sum())
        start = 0
        while start < len(active):
            size = min(self._parallel, len(active) - start)
            if size > _SMALL:
                size = 1 << (size.bit_length() - 1)
            yield active[start : start + size].unbind(dim=1), start + size > first_at_border
            start += size

    def _after(self, block: ResidualBlock, tiles: Tensor, chosen: tuple[Tensor, ...], border: bool) -> Tensor:
        """Tiles with halo, (K, h + 4, w + 4, C), before the block -> tiles (K, h, w, C) after it."""
        x = tiles.permute(0, 3, 1, 2)  # channels-last in memory
        hidden = F.conv2d(x, block.conv1.weight, block.conv1.bias).relu_()
        if border:
            self._clear_outside(hidden, chosen)
        after = F.conv2d(hidden, block.conv2.weight, block.conv2.bias)
        after += x[..., HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
        return after.permute(0, 2, 3, 1)

    def _clear_outside(self, hidden: Tensor, chosen: tuple[Tensor, ...]) -> None:
        """Zero what of (K, C, h + 2, w + 2) lies outside the picture."""
        _, row, column = chosen
        hidden[row == 0, :, :1] = 0
        hidden[row == self._grid.rows - 1, :, -(self._below + 1) :] = 0
        hidden[column == 0, :, :, :1] = 0
        hidden[column == self._grid.columns - 1, :, :, -(self._right + 1) :] = 0
