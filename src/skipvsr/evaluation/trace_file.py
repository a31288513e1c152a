"""A trace on disk: which blocks ran in a video of any length.

The file is a NumPy archive (`numpy.load` reads it without us): `grid`, (height, width, tile_height, tile_width) in
low-resolution pixels, and for each pass of a trunk, in the order in which they ran, a bool array (blocks, N, rows, columns)
named NUMBER-FRAME-DIRECTION. N is 1, or the number of patches, each of which then is a tile. A frame near the end of a window
has more than one backward pass: its last one is what the result was made of, the others were lookahead.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from skipvsr.errors import InputError, OutputError
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.trace import RoutingTrace, TracedTrunk
from skipvsr.video.errors import writing
from skipvsr.video.files import hidden_name, move_into_place

_GRID = "grid"


class TraceWriter:
    """A trace that is written as it comes. A context manager: the file appears whole when it is left, or, by an exception, not.

    Args:
        path: the file; usually ends in .npz.
        overwrite: replace an existing file.
        work: the file as long as it is unfinished, in a folder on the same disk; None: one of its own.

    Raises:
        OutputError: the file exists, or cannot be written.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False, work: Path | None = None) -> None:
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise OutputError(f"{self.path} exists already; choose another file, or give --overwrite")
        if self.path.is_dir():
            raise OutputError(f"{self.path} is a folder; give the name of a file")
        self._work_is_ours = work is None
        self._work = work or self.path.with_name(hidden_name(self.path.name, f"{os.getpid()}.part"))
        self._passes = 0
        self._grid: TileGrid | None = None
        with writing(self.path):
            self._archive = zipfile.ZipFile(self._work, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with writing(self.path):
                self._archive.close()
                if kind is None and self._work_is_ours:
                    self._work.replace(self.path)
                elif kind is None:
                    move_into_place(self._work, self.path, self._work.parent)
        finally:
            self._work.unlink(missing_ok=True)

    def add(self, trunk: TracedTrunk) -> None:
        """Write a pass. Raises OutputError where the disk is full."""
        grid = trunk.grid
        assert self._grid in (None, grid)
        with writing(self.path):
            if self._grid is None:
                self._grid = grid
                self._put(_GRID, np.array([grid.height, grid.width, grid.tile_height, grid.tile_width]))
            self._put(f"{self._passes:08d}-{trunk.frame}-{trunk.direction}", trunk.mask.cpu().numpy())
        self._passes += 1

    def _put(self, name: str, values: np.ndarray) -> None:
        with self._archive.open(f"{name}.npy", "w") as file:
            np.lib.format.write_array(file, values, allow_pickle=False)


def read_trace(path: str | Path) -> RoutingTrace:
    """The trace that `TraceWriter` wrote.

    Raises:
        InputError: the file is missing, damaged, or no trace.
    """
    trace = RoutingTrace()
    try:
        with np.load(path, allow_pickle=False) as archive:
            grid = TileGrid(*(int(side) for side in archive[_GRID]))
            for name in sorted(set(archive.files) - {_GRID}):
                _, frame, direction = name.split("-")
                mask = torch.from_numpy(archive[name])
                if direction not in ("backward", "forward") or mask.dtype != torch.bool or mask.ndim != 4:
                    raise ValueError(f"{name} is no pass of a trunk")
                trace.add(TracedTrunk(int(frame), direction, mask, grid))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no trace that can be read ({error}); give a file made with --trace") from error
    return trace
