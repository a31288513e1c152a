"""One frame of a video, with its place in time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Args:
        pixels: (H, W, 3), RGB over the full range: uint8, or uint16 (0 to 65,535) where the source has more than 8 bits.
        pts: presentation time in units of `time_base`.
        duration: in units of `time_base`; None where the source does not say.
        time_base: of the source stream, seconds. In a folder of images every frame lasts 1, and the first is at 0.
        alpha: opacity, (H, W), of the same type as `pixels`, which are not multiplied by it; None where there is none.
    """

    pixels: np.ndarray
    pts: int
    duration: int | None
    time_base: Fraction
    alpha: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        """Presentation time."""
        return float(self.pts * self.time_base)
