"""Bicubic enlargement in the place of a network: what everything is compared with, and the fastest way through a file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skipvsr.models.recurrence import RunTrunk
from skipvsr.models.resize import bicubic_upsample
from skipvsr.terms import Direction


@dataclass(frozen=True)
class BicubicConfig:
    """What a `VSRConfig` is for a network.

    Args:
        scale: how many times larger each side becomes.
    """

    scale: int = 4

    @property
    def channels(self) -> int:
        """Of the propagated states: there are none."""
        return 0

    @property
    def reconstruction_values(self) -> int:
        """Numbers for each low-resolution pixel that enlarging it holds: the result twice."""
        return 2 * 3 * self.scale**2


class Bicubic(nn.Module):
    """MATLAB's bicubic enlargement as a `Recurrence`: every frame for itself, without weights.

    Its states are empty, so that windows, scene cuts and resuming work on it as on a network, at next to no cost.

    Args:
        scale: how many times larger each side becomes.
    """

    # It has no blocks that a router could skip, and no convolutions.
    router = None
    calibration = None
    quantization = None

    def __init__(self, scale: int = 4) -> None:
        super().__init__()
        self.config = BicubicConfig(scale)
        # All there is to know of it, where a network has its weights.
        self.register_buffer("factor", torch.tensor(scale))
        # Says on which device and in which dtype it runs.
        self.like = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def scale(self) -> int:
        """How many times larger each side becomes."""
        return self.config.scale

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """Nothing: (N, 0, H, W)."""
        return reference[:, :0]

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """Nothing: (N, 0, H, W)."""
        return frame[:, :0]

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, s * H, s * W) with the scale s."""
        return bicubic_upsample(frame, self.scale)
