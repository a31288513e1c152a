"""The frame with the depth of each tile drawn over it: how many blocks ran where, to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.routing.trace import TracedTrunk
from skipvsr.terms import LUMA_WEIGHTS, Direction

# Viridis at five places: dark for tiles where nothing ran, yellow where everything did; readable without colour vision.
_COLOURS = torch.tensor([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]) / 255
_STRENGTH = 0.5


@dataclass
class LatestDepths:
    """Keeps the latest depths of frames whose result is still to come; a `Trace`.

    Args:
        expand: depths of a pass, (N, rows, columns), at the pixels of the frame: (height, width); None: by its tiles.
    """

    expand: Callable[[Tensor], Tensor] | None = None
    _depths: dict[tuple[int, Direction], Tensor] = field(default_factory=dict, init=False)

    def add(self, trunk: TracedTrunk) -> None:
        """Note a pass; a later one over the same frame replaces it (what went before was lookahead)."""
        ratio = trunk.depth / trunk.mask.shape[0]
        pixels = trunk.grid.expand(ratio)[0, 0] if self.expand is None else self.expand(ratio.flatten())
        self._depths[trunk.frame, trunk.direction] = pixels

    def take(self, frame: int) -> Tensor:
        """Ratio of both trunks' blocks that ran at each pixel of a frame, (height, width), once; it is forgotten then."""
        return (self._depths.pop((frame, "backward")) + self._depths.pop((frame, "forward"))) / 2


def colour_depth(ratio: Tensor) -> Tensor:
    """A ratio (h, w) in [0, 1] as a colour: (3, h, w), RGB in [0, 1], dark to yellow."""
    place = ratio.clamp(0, 1) * (len(_COLOURS) - 1)
    below = place.floor().clamp(max=len(_COLOURS) - 2).long()
    return torch.lerp(_COLOURS[below], _COLOURS[below + 1], (place - below)[..., None]).permute(2, 0, 1)


def draw_depth(frame: Tensor, ratio: Tensor) -> Tensor:
    """A frame (3, H, W), grey, with the ratio (h, w) in [0, 1] in colour over it: dark to yellow."""
    colour = colour_depth(ratio)
    colour = F.interpolate(colour[None], size=frame.shape[-2:], mode="nearest")[0].to(frame)
    grey = (frame.clamp(0, 1) * frame.new_tensor(LUMA_WEIGHTS).view(3, 1, 1)).sum(dim=0, keepdim=True)
    return torch.lerp(grey.expand_as(colour), colour, _STRENGTH)
