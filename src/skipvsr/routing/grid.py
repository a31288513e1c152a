"""Tiles of a frame: the places at which it is decided what runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from skipvsr.errors import ConfigError


@dataclass(frozen=True)
class TileGrid:
    """A frame of height x width pixels cut into rows x columns tiles of one size; those at the end may be cut short.

    Example: 180 x 320 in tiles of at most 48 is 4 x 7 tiles of 45 x 46 pixels, and only 2 columns lie beyond the border.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int

    @classmethod
    def of(cls, height: int, width: int, tile_px: int) -> TileGrid:
        """The grid with tiles of at most `tile_px` a side that wastes least beyond the border.

        Raises:
            ConfigError: `tile_px` is under 1.
        """
        if tile_px < 1:
            raise ConfigError(f"tiles are {tile_px} pixels; they must be at least 1")
        return cls(height, width, _even_side(height, tile_px), _even_side(width, tile_px))

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_height)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    @property
    def tiles(self) -> int:
        return self.rows * self.columns

    @property
    def borders(self) -> tuple[list[int], list[int]]:
        """The first row below, and column right of, each line between two tiles."""
        rows = [row * self.tile_height for row in range(1, self.rows)]
        return rows, [column * self.tile_width for column in range(1, self.columns)]

    def pixels(self) -> Tensor:
        """Pixels of each tile that lie in the frame: (rows, columns) int64."""
        return _extents(self.height, self.tile_height)[:, None] * _extents(self.width, self.tile_width)[None]

    def pool(self, values: Tensor, cell_px: int = 1) -> Tensor:
        """Mean over the pixels of each tile, as two matrix products: (N, C, H, W) -> (N, C, rows, columns).

        Args:
            values: one for every pixel, or for every cell of `cell_px` x `cell_px` pixels from the top left corner on. Where a
                cell lies across a border between tiles, it counts in each by the pixels that it has there; pixels beyond the
                last cell count as its own. In either memory format.
            cell_px: side of a cell.
        """
        down = _means(self.height, self.tile_height, values.shape[-2], cell_px, values.device, values.dtype)
        across = _means(self.width, self.tile_width, values.shape[-1], cell_px, values.device, values.dtype)
        if values.is_contiguous():
            return down @ (values @ across.T)
        lines = values.permute(0, 2, 3, 1)
        return (across @ (down @ lines.flatten(2)).unflatten(2, lines.shape[2:])).permute(0, 3, 1, 2)

    def expand(self, values: Tensor) -> Tensor:
        """Each tile's value at its pixels: (N, rows, columns) -> (N, 1, height, width)."""
        spread = values.repeat_interleave(self.tile_height, dim=1).repeat_interleave(self.tile_width, dim=2)
        return spread[:, None, : self.height, : self.width]


def _even_side(side: int, most: int) -> int:
    """The smallest tile side that needs no more tiles than `most` does."""
    return -(-side // -(-side // most))


@lru_cache(maxsize=64)
def _means(side: int, tile: int, cells: int, cell_px: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(tiles, cells): row i averages the cells of the pixels i * tile ... min((i + 1) * tile, side) - 1."""
    with torch.inference_mode(mode=False):  # it is kept, and training may be next
        pixel = torch.arange(side)
        counts = torch.zeros(-(-side // tile), cells, dtype=torch.float64)
        counts.index_put_(
            (pixel // tile, (pixel // cell_px).clamp(max=cells - 1)), torch.ones((), dtype=torch.float64), True
        )
        return (counts / counts.sum(dim=1, keepdim=True)).to(device, dtype)


def _extents(side: int, tile: int) -> Tensor:
    starts = torch.arange(0, side, tile)
    return torch.clamp(side - starts, max=tile)
