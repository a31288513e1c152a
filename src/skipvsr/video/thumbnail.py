"""A moment of a video as a small image."""

from __future__ import annotations

from collections import deque
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

from skipvsr.errors import InputError
from skipvsr.video.colour import to_8_bit
from skipvsr.video.images import encode_image
from skipvsr.video.read import VideoReader

# A moment behind the last frame shows the last one, if it is not further away.
_BEHIND_SECONDS = 0.5


def thumbnail(path: str | Path, seconds: float, width: int) -> bytes:
    """A moment of a video as a JPEG, turned as a player turns it.

    Args:
        path: a video file.
        seconds: of the file's own clock; behind the last frame, the last one within half a second.
        width: most pixels of its longer side.

    Raises:
        InputError: the file cannot be read, or has no frame there.
        DecodeError: it is damaged there.
    """
    try:
        reader = VideoReader(path, start=seconds)
        behind = False
    except InputError:
        reader = VideoReader(path, start=max(0.0, seconds - _BEHIND_SECONDS))
        behind = True
    with reader:
        turns = reader.info.rotation_degrees // 90
        frames = deque(iter(reader), maxlen=1) if behind else deque(islice(reader, 1))
    frame = frames[0]  # a reader that opens has one
    return encode_image(np.rot90(shrink(to_8_bit(frame.pixels), width), turns), ".jpg")


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """An image (H, W, 3) uint8, its longer side at most `side` pixels: averaged down, never enlarged."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    return shrink_to(pixels, max(2, round(width * scale)), max(2, round(height * scale)))


def shrink_to(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """An image (H, W, 3) uint8 averaged down to a size: (height, width, 3)."""
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
    return image.reformat(width=width, height=height, interpolation=Interpolation.AREA).to_ndarray()
