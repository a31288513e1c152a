"""Tiles of a frame: the places at which it is decided what runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
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

    def pool(self, values: Tensor) -> Tensor:
        """Mean over the pixels of each tile: (N, C, height, width) -> (N, C, rows, columns)."""
        bottom = self.rows * self.tile_height - self.height
        right = self.columns * self.tile_width - self.width
        means = F.avg_pool2d(F.pad(values, (0, right, 0, bottom)), (self.tile_height, self.tile_width))
        if not (bottom or right):
            return means
        return means * (self.tile_height * self.tile_width / self.pixels().to(values))

    def expand(self, values: Tensor) -> Tensor:
        """Each tile's value at its pixels: (N, rows, columns) -> (N, 1, height, width)."""
        spread = values.repeat_interleave(self.tile_height, dim=1).repeat_interleave(self.tile_width, dim=2)
        return spread[:, None, : self.height, : self.width]


def _even_side(side: int, most: int) -> int:
    """The smallest tile side that needs no more tiles than `most` does."""
    return -(-side // -(-side // most))


def _extents(side: int, tile: int) -> Tensor:
    starts = torch.arange(0, side, tile)
    return torch.clamp(side - starts, max=tile)
