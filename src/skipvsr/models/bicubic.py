"""Bicubic enlargement in the place of a network: what everything is compared with, and the fastest way through a file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skipvsr.models.resize import bicubic_upsample
from skipvsr.models.vsr import RunTrunk, SkipVSR, VSRConfig


class Bicubic(SkipVSR):
    """MATLAB's bicubic x4 behind the interface of the network: every frame for itself, without weights or router.

    Its states are empty, so that windows, scene cuts and resuming work on it as on a network, at next to no cost.
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = VSRConfig(channels=1, blocks=1, flow="light", reconstruction="light")
        self.calibration = None
        self.quantization = None
        self.router = None
        # Says where it runs and in which dtype.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """Nothing: (N, 0, H, W)."""
        return reference[:, :0]

    def propagate_backward(
        self,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """Nothing: (N, 0, H, W)."""
        return frame[:, :0]

    def propagate_forward(
        self,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """Nothing: (N, 0, H, W)."""
        return frame[:, :0]

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, 4H, 4W)."""
        return bicubic_upsample(frame)
