"""Run blocks on the active tiles alone, so that skipped work costs no time.

The state lies channels-last on a canvas of whole tiles with a two-pixel frame of zeros. For a block the active tiles are
gathered with a halo of two pixels, in batches that stay in cache; both convolutions run on them without padding, and the
results are written back as soon as no tile that is still to be gathered borders on them. So neighbours read what was there
before the block, and tiles at rest are not touched.

A block that is active nearly everywhere runs on the whole canvas, which costs less, and the tiles at rest are put back.

Outside the frame the first convolution's output must be zero, not ReLU(bias): that is what padding means to the second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.models.blocks import ResidualBlock
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Decide

HALO_PX = 2
# Multiply-accumulates of a convolution call, about: few enough to stay in cache, so many that the call itself costs little.
BATCH_MACS = 320_000_000
# Ratio of active tiles from which the whole frame costs less. Measured: docs/routing.md.
DENSE_RATIO = 0.85


def run_blocks(
    blocks: Sequence[ResidualBlock],
    state: Tensor,
    decide: Decide,
    grid: TileGrid,
    *,
    patch_batch_size: int | None = None,
    dense_ratio: float = DENSE_RATIO,
) -> tuple[Tensor, Tensor]:
    """The same as `masked.run_blocks`, but skipped tiles are not computed.

    Args:
        blocks, state, decide, grid: as there. The state that `decide` is given is overwritten by the block: it may look at it,
            and must copy what it keeps.
        patch_batch_size: most tiles per convolution call; None: by what a tile costs.
        dense_ratio: ratio of active tiles from which a block runs on the whole frame; above 1: never.
    """
    if patch_batch_size is None:
        macs = 9 * state.shape[1] ** 2 * grid.tile_height * grid.tile_width
        patch_batch_size = max(1, BATCH_MACS // macs)
    canvas: Canvas | None = None  # not before it is needed
    masks = []
    for number, block in enumerate(blocks):
        mask = decide(number, state)
        masks.append(mask)
        if canvas is None and not mask.any():
            continue
        if canvas is None and (dense_ratio > 1 or not mask.all()):
            canvas = Canvas(state, grid, patch_batch_size, dense_ratio)
        if canvas is None:
            state = block(state)
        else:
            canvas.run(block, mask)
            state = canvas.state
    return state, torch.stack(masks)


def extra_macs(mask: Tensor, grid: TileGrid, channels: int, dense_ratio: float = DENSE_RATIO) -> int:
    """Multiply-accumulates of `run_blocks` beyond those of the pixels that were to run.

    In tiles: their halo, and what lies beyond the frame in the last ones; on the whole canvas: the tiles at rest, too.

    Args:
        mask: (blocks, N, rows, columns) bool.
        grid: the tiles.
        channels: of the state.
        dense_ratio: as for `run_blocks`.
    """
    pixels = grid.pixels().to(mask.device)
    computed, canvas = 0, dense_ratio > 1
    for active in mask:
        count = int(active.sum())
        canvas = canvas or count < active.numel()
        if not canvas:
            computed += 2 * len(active) * int(pixels.sum())
        elif count >= dense_ratio * active.numel():
            computed += len(active) * _convolved_pixels(grid.rows * grid.tile_height, grid.columns * grid.tile_width)
        else:
            computed += count * _convolved_pixels(grid.tile_height, grid.tile_width)
    return (computed - 2 * int((mask * pixels).sum())) * 9 * channels**2


def _convolved_pixels(height: int, width: int) -> int:
    """Pixels that the two convolutions of a block compute for an area: the first a pixel more on each side."""
    return (height + HALO_PX) * (width + HALO_PX) + height * width


class Canvas:
    """The state of a frame, (N, C, H, W), laid out for tiles.

    Args:
        state: copied.
        grid: the tiles.
        patch_batch_size, dense_ratio: as for `run_blocks`.
    """

    def __init__(self, state: Tensor, grid: TileGrid, patch_batch_size: int, dense_ratio: float) -> None:
        self._grid, self._parallel, self._dense_ratio = grid, patch_batch_size, dense_ratio
        count, channels, height, width = state.shape
        high, wide = grid.tile_height, grid.tile_width
        self._below, self._right = grid.rows * high - height, grid.columns * wide - width
        rows, line = grid.rows * high + 2 * HALO_PX, grid.columns * wide + 2 * HALO_PX
        self._pixels = state.new_empty((count, rows, line, channels))
        self._whole = self._pixels[:, HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
        self._inside = self._whole[:, :height, :width]
        self._inside.copy_(state.permute(0, 2, 3, 1))
        for frame in (slice(HALO_PX), slice(-HALO_PX, None)):
            self._pixels[:, frame] = 0
            self._pixels[:, :, frame] = 0
        self._clear_beyond()
        # To read: the row of a tile with its halo that starts at each pixel, (pixels, (tile_width + 4) * C). Whole rows are
        # copied faster than indexing copies tiles.
        length, pixels = wide + 2 * HALO_PX, count * rows * line
        self._rows = self._pixels.as_strided((pixels - length + 1, length * channels), (channels, 1))
        # Of each tile, where its rows start: (tiles, tile_height + 4).
        self._image, self._row, self._column = np.unravel_index(
            np.arange(count * grid.tiles), (count, grid.rows, grid.columns)
        )
        first = (self._image * rows + self._row * high) * line + self._column * wide
        self._starts = torch.from_numpy(first[:, None] + np.arange(high + 2 * HALO_PX) * line).to(state.device)
        # To write: (N, rows, columns, tile_height, tile_width, C).
        self._tiles = self._split(self._whole)

    @property
    def state(self) -> Tensor:
        """(N, C, H, W), a channels-last view."""
        return self._inside.permute(0, 3, 1, 2)

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        """Replace the state by that after the block where the mask (N, rows, columns) is True."""
        tiles = np.flatnonzero(mask.cpu().numpy())
        if len(tiles) >= self._dense_ratio * mask.numel():
            self._run_everywhere(block, mask if len(tiles) < mask.numel() else None)
        elif len(tiles):
            self._run_tiles(block, tiles)
        else:
            return
        self._clear_beyond()

    def _run_everywhere(self, block: ResidualBlock, mask: Tensor | None) -> None:
        x = self._pixels.permute(0, 3, 1, 2)
        hidden = F.conv2d(x, block.conv1.weight, block.conv1.bias).relu_()
        hidden[:, :, :1] = 0
        hidden[:, :, -(self._below + 1) :] = 0
        hidden[..., :1] = 0
        hidden[..., -(self._right + 1) :] = 0
        after = F.conv2d(hidden, block.conv2.weight, block.conv2.bias).permute(0, 2, 3, 1)
        after += self._whole
        if mask is not None:
            resting = (~mask).nonzero(as_tuple=True)
            self._split(after)[resting] = self._tiles[resting]
        self._whole.copy_(after)

    def _run_tiles(self, block: ResidualBlock, tiles: np.ndarray) -> None:
        """Tiles in rising order, in batches of about the same size."""
        waiting: deque[tuple[np.ndarray, Tensor]] = deque()
        # How far on, at most, a tile is whose halo lies in this one.
        down, right = (-(-HALO_PX // side) for side in (self._grid.tile_height, self._grid.tile_width))
        reach = down * self._grid.columns + right
        parts = -(-len(tiles) // self._parallel)
        for part in np.array_split(tiles, parts) if parts > 1 else (tiles,):
            before = self._gather(part)
            while waiting and waiting[0][0][-1] + reach <= part[-1]:
                self._write(*waiting.popleft())
            waiting.append((part, self._after(block, before, part)))
        for part, after in waiting:
            self._write(part, after)

    def _split(self, whole: Tensor) -> Tensor:
        """A view of whole tiles (N, rows * tile_height, columns * tile_width, C): one tile after the other."""
        high, wide = self._grid.tile_height, self._grid.tile_width
        return whole.unfold(1, high, high).unfold(2, wide, wide).permute(0, 1, 2, 4, 5, 3)

    def _clear_beyond(self) -> None:
        """Zero what lies beyond the frame's last row and column; the last tiles may have written there."""
        if self._below:
            self._whole[:, -self._below :] = 0
        if self._right:
            self._whole[:, :, -self._right :] = 0

    def _gather(self, part: np.ndarray) -> Tensor:
        """Tiles with halo: (K, C, tile_height + 4, tile_width + 4), channels-last."""
        high, wide = self._grid.tile_height, self._grid.tile_width
        starts = self._starts[torch.from_numpy(part).to(self._starts.device)]
        rows = self._rows.index_select(0, starts.flatten())
        return rows.view(len(part), high + 2 * HALO_PX, wide + 2 * HALO_PX, -1).permute(0, 3, 1, 2)

    def _write(self, part: np.ndarray, after: Tensor) -> None:
        """Put tiles (K, C, tile_height, tile_width) back."""
        places = (axis[part] for axis in (self._image, self._row, self._column))
        self._tiles[tuple(torch.from_numpy(place).to(after.device) for place in places)] = after.permute(0, 2, 3, 1)

    def _after(self, block: ResidualBlock, before: Tensor, part: np.ndarray) -> Tensor:
        """Tiles with halo before the block -> tiles after it."""
        hidden = F.conv2d(before, block.conv1.weight, block.conv1.bias).relu_()
        self._clear_outside(hidden, part)
        after = F.conv2d(hidden, block.conv2.weight, block.conv2.bias)
        after += before[..., HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
        return after

    def _clear_outside(self, hidden: Tensor, part: np.ndarray) -> None:
        """Zero what of (K, C, tile_height + 2, tile_width + 2) lies outside the frame."""
        row, column = self._row[part], self._column[part]
        down, right = hidden.shape[2:]
        for at_border, edge in (
            (row == 0, hidden[:, :, :1]),
            (row == self._grid.rows - 1, hidden[:, :, down - self._below - 1 :]),
            (column == 0, hidden[..., :1]),
            (column == self._grid.columns - 1, hidden[..., right - self._right - 1 :]),
        ):
            tiles = np.flatnonzero(at_border)
            if len(tiles):
                edge.index_fill_(0, torch.from_numpy(tiles).to(hidden.device), 0.0)
