"""Tiles at rest: where nothing moved, a tile keeps the state of the frame before, and none of its blocks run.

A state is what a recurrence made of the frames so far. To compute it again from a frame that shows the same costs what any
frame costs, and what comes out is no better: it is resampled, by a flow that is never exactly zero, and where few blocks run it
is worse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.routing.grid import TileGrid
from skipvsr.terms import Direction

# Most that a tile may differ from the frame that its state was computed on. Anywhere: the mean over 5x5 pixels and the colours,
# of values in [0, 1].
LIMIT = 6 / 255
# In the mean over the tile: noise, and what a shift by so many pixels of the small frame changes with slopes as in the tile.
# A larger shift would be seen when the tile is computed again and falls into its place; what moves slowly must not rest.
NOISE = 0.5 / 255
MOST_SHIFT_PX = 0.03
# Frames on which a tile that stopped moving is still computed. Those are worth more than others: their state stays.
SETTLING_FRAMES = 2
SETTLING_WORTH = 3.0
_MEAN_PX = 5
# Pixels around a tile that count with it, because its state depends on them.
_MARGIN_PX = 4


@dataclass(frozen=True)
class Stillness:
    """Which tiles of a frame rest, and which are about to: (N, rows, columns) bool each."""

    resting: Tensor
    settling: Tensor

    def worth(self, gains: Tensor) -> Tensor:
        """Gains (N, blocks, rows, columns) of a router that knows frames one by one, as this knows them."""
        factor = torch.where(self.settling, SETTLING_WORTH, 1.0).to(gains.dtype)
        return gains * factor.masked_fill(self.resting, 0)[:, None]


class _Computed(NamedTuple):
    """Of each pixel: the state, (N, C, H, W), and the frame that it was computed on, (N, 3, H, W).

    Of each tile, (N, rows, columns) int32: how many frames since it moved were computed.
    """

    state: Tensor
    frame: Tensor
    settled: Tensor


@dataclass
class Rest:
    """Finds the tiles that rest, in each direction; only for frames that are computed in whole, one after the other.

    Args:
        settling_frames: see `SETTLING_FRAMES`.
    """

    settling_frames: int = SETTLING_FRAMES
    _computed: dict[Direction, _Computed] = field(default_factory=dict, init=False)
    _stopped: bool = field(default=False, init=False)

    def stop(self) -> None:
        """Nothing rests from here on: what comes are no whole frames any more."""
        self._stopped = True
        self._computed.clear()

    def look(self, direction: Direction, frame: Tensor, grid: TileGrid, *, goes_on: bool) -> Stillness | None:
        """What rests on a frame; None where there is nothing that it could keep.

        Args:
            direction: of the trunk.
            frame: (N, 3, H, W) in [0, 1].
            grid: its tiles.
            goes_on: it follows on the last frame in this direction; False at the start of a scene or a window.
        """
        known = self._computed.get(direction) if goes_on else None
        if known is None or known.frame.shape != frame.shape:
            self._computed.pop(direction, None)
            return None
        calm = calm_tiles(frame, known.frame, grid)
        settled = known.settled >= self.settling_frames
        return Stillness(calm & settled, calm & ~settled)

    def keep(
        self, direction: Direction, frame: Tensor, state: Tensor, grid: TileGrid, still: Stillness | None
    ) -> Tensor:
        """The new state (N, C, H, W), with that of before where tiles rest; remembered for the next frame."""
        if self._stopped:
            return state
        known = self._computed.get(direction)
        if still is None or known is None:
            settled = torch.zeros((len(frame), grid.rows, grid.columns), dtype=torch.int32, device=frame.device)
        else:
            # To ask a GPU whether anything rests would be to wait for it.
            if frame.device.type != "cpu" or still.resting.any():
                resting = grid.expand(still.resting)
                state = torch.where(resting, known.state, state)
                frame = torch.where(resting, known.frame, frame)
            moved = ~(still.resting | still.settling)
            settled = (known.settled + still.settling.int()).masked_fill(moved, 0)
        self._computed[direction] = _Computed(state, frame, settled)
        return state

    def memory(self) -> dict[str, Tensor]:
        """What going on after the last frame of the forward trunk needs; "state" is what `keep` returned for it."""
        known = self._computed.get("forward")
        return {} if known is None else known._asdict()

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Go on from what `memory` gave."""
        self._computed.clear()
        if memory and not self._stopped:
            self._computed["forward"] = _Computed(**memory)


def calm_tiles(frame: Tensor, before: Tensor, grid: TileGrid) -> Tensor:
    """Where nothing moved, and nothing beside it: (N, 3, H, W) twice -> (N, rows, columns) bool."""
    difference, grey = _mean_colour((frame - before).abs()), _mean_colour(before)
    slope = F.pad(grey.diff(dim=-1), (0, 1)).abs() + F.pad(grey.diff(dim=-2), (0, 0, 0, 1)).abs()
    means = grid.pool(torch.cat((difference, slope), dim=1))
    return (most_change(difference, grid) <= LIMIT) & (means[:, 0] <= NOISE + MOST_SHIFT_PX * means[:, 1])


def most_change(difference: Tensor, grid: TileGrid) -> Tensor:
    """The largest mean over 5x5 pixels in a tile or up to four pixels beside it: (N, 1, H, W) -> (N, rows, columns)."""
    mean = F.avg_pool2d(difference, _MEAN_PX, stride=1, padding=_MEAN_PX // 2, count_include_pad=False)
    height, width = grid.tile_height, grid.tile_width
    window = (height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX)
    padding = tuple(min(_MARGIN_PX, side // 2) for side in window)
    return F.max_pool2d(mean, window, stride=(height, width), padding=padding, ceil_mode=True)[:, 0]


def _mean_colour(frame: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W), in the default memory format, in which torch pools single channels six times as fast."""
    return ((frame[:, 0] + frame[:, 1] + frame[:, 2]) / 3)[:, None]
