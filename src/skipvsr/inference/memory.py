"""What a stream does where memory runs out: shorter windows first, then tiles of the frame that are blended."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from skipvsr.errors import ResourceError
from skipvsr.inference.patched import PatchGrid
from skipvsr.inference.windows import Windows

_LOG = logging.getLogger("skipvsr")
# Low-resolution pixels.
TILE_SIDES_PX = (256, 128)
TILE_OVERLAP_PX = 32


@dataclass
class MemoryFallback:
    """Decides what saves memory next: shorter windows, then smaller and smaller tiles, until nothing is left to try.

    Args:
        tiles_allowed: whether blended tiles can stand in for the whole frame.
        tile_px: side of the tiles in use; 0: the whole frame.
    """

    tiles_allowed: bool
    tile_px: int = 0

    def shrink(self, windows: Windows) -> Windows:
        """Take the next step, and say which in the log; the windows to go on with.

        Raises:
            ResourceError: nothing is left that would save memory.
        """
        if windows.window > 1:
            _LOG.warning("memory ran out; going on with shorter windows")
            return replace(windows, window=windows.window // 2)
        smaller = [side for side in TILE_SIDES_PX if not self.tile_px or side < self.tile_px]
        if not (self.tiles_allowed and smaller):
            raise ResourceError(
                "memory ran out, even with windows of one frame; close other programs, or take a smaller model"
            )
        self.tile_px = smaller[0]
        _LOG.warning("memory ran out; going on with blended tiles of %d pixels", self.tile_px)
        return windows

    def grid(self, height: int, width: int) -> PatchGrid:
        """The tiles in use, of frames of this size."""
        return PatchGrid(height, width, self.tile_px, self.tile_px - TILE_OVERLAP_PX)
