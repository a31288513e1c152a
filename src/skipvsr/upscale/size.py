"""The size of the output frames, where it is not simply what the network makes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.video.probe import VideoInfo

_LOG = logging.getLogger("skipvsr")


@dataclass(frozen=True)
class OutputSize:
    """What the network's result is resized to.

    Args:
        height: rows; None: from the width, or as the network makes it.
        width: columns; None: from the height, keeping the shape of the frame, rounded to an even number.

    Raises:
        ConfigError: a side under 16 or over 32,768 pixels.
    """

    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side is not None and not 16 <= side <= 32768:
                raise ConfigError(f"the output {name} is {side} pixels; it must be from 16 to 32768")

    def resolve(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """(height, width) of the output for an input of the given size and a network of the given scale."""
        if self.height is None and self.width is None:
            return scale * height, scale * width
        if self.width is None:
            assert self.height is not None
            return self.height, _even(Fraction(self.height * width, height))
        if self.height is None:
            return _even(Fraction(self.width * height, width)), self.width
        return self.height, self.width


def output_size(size: OutputSize, info: VideoInfo, scale: int, *, even: bool = False) -> tuple[int, int]:
    """(height, width) of the frames to be written; what was asked for counts for the frame as it is shown.

    Args:
        size: what was asked for.
        info: of the source.
        scale: of the network.
        even: round a height or a width that was asked for alone down to an even number, and say so in the log: the usual pixel
            formats of videos have colour only for every second pixel.
    """
    if even and None in (size.height, size.width):
        size = OutputSize(_rounded("height", size.height), _rounded("width", size.width))
    if info.rotation_degrees % 180 == 90:
        width, height = size.resolve(info.width, info.height, scale)
        return height, width
    return size.resolve(info.height, info.width, scale)


def pixel_aspect(before: Fraction, height: int, width: int, new_height: int, new_width: int) -> Fraction:
    """The pixel aspect with which a resized frame is shown in its old shape.

    Within 1 % of the old one it stays as it was: nobody sees that, and square pixels are worth having.
    """
    aspect = before * Fraction(width * new_height, height * new_width)
    return before if abs(aspect / before - 1) < Fraction(1, 100) else aspect.limit_denominator(1000)


def resize(frame: Tensor, height: int, width: int) -> Tensor:
    """Bicubic, antialiased: (3, H, W), RGB in [0, 1] -> (3, height, width), clamped; of the right size already: as it is."""
    if frame.shape[-2:] == (height, width):
        return frame
    # The network may overshoot; clamped first, so that no overshoot is spread over its neighbours.
    frame = frame.clamp(0, 1)[None]
    return F.interpolate(frame, size=(height, width), mode="bicubic", align_corners=False, antialias=True)[0].clamp(
        0, 1
    )


def _rounded(name: str, side: int | None) -> int | None:
    if side is None or side % 2 == 0:
        return side
    _LOG.warning(
        "the %s is %d and not %d: videos have even sides (unless --pixel-format says otherwise)", name, side - 1, side
    )
    return side - 1


def _even(side: Fraction) -> int:
    return max(2 * round(side / 2), 2)
