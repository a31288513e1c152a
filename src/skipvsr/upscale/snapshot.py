"""A small image of the newest frame, for whoever watches a job."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from skipvsr.errors import OutputError
from skipvsr.video.colour import to_8_bit
from skipvsr.video.errors import writing
from skipvsr.video.files import hidden_name
from skipvsr.video.images import encode_image
from skipvsr.video.thumbnail import shrink

_SIDE_PX = 640
_EVERY_SECONDS = 2.0


class Snapshot:
    """A JPEG file that is replaced, as a whole, by a newer frame every few seconds.

    Args:
        path: the file.
        turns: by how many quarters counter-clockwise players turn the video.
        every_seconds: at most so often.

    Raises:
        OutputError: a path that is no JPEG.
    """

    def __init__(self, path: Path, turns: int = 0, every_seconds: float = _EVERY_SECONDS) -> None:
        if path.suffix.lower() not in (".jpg", ".jpeg"):
            raise OutputError(f"{path} is to be the image of the newest frame; give a name that ends in .jpg")
        self._path, self._turns, self._every = path, turns, every_seconds
        self._taken: float | None = None

    def take(self, pixels: np.ndarray) -> None:
        """Show a frame (H, W, 3), uint8 or uint16, if it is time. Raises OutputError."""
        now = time.monotonic()
        if self._taken is not None and now - self._taken < self._every:
            return
        self._taken = now
        image = encode_image(np.rot90(shrink(to_8_bit(pixels), _SIDE_PX), self._turns), ".jpg")
        part = self._path.with_name(hidden_name(self._path.name, f"{os.getpid()}.part"))
        with writing(self._path):
            try:
                part.write_bytes(image)
                part.replace(self._path)
            finally:
                part.unlink(missing_ok=True)
