"""The parts of a recurrent super-resolution network: residual blocks, trunks, reconstruction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of the paper, and what is meant where nothing is said.
SCALE = 4


class ResidualBlock(nn.Module):
    """x + conv2(ReLU(conv1(x))), 3x3 convolutions, no normalisation; (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        # Small residuals keep a deep trunk close to the identity at the start (EDVR, BasicVSR).
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, a=0, mode="fan_in")
            with torch.no_grad():
                conv.weight.mul_(0.1)
            _zero_bias(conv)

    def forward(self, state: Tensor) -> Tensor:
        return state + self.residual(state)

    def residual(self, state: Tensor) -> Tensor:
        """What the block adds to the state."""
        return self.conv2(F.relu(self.conv1(state)))


class Trunk(nn.Module):
    """One direction of propagation: LeakyReLU(conv(frame, state)), then residual blocks.

    Args:
        channels: C, width of the propagated state.
        blocks: number of residual blocks.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(3 + channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:
        """(N, 3, H, W) frame and (N, C, H, W) aligned state of the neighbouring frame -> (N, C, H, W) new state."""
        state = self.enter(frame, state)
        for block in self.blocks:
            state = block(state)
        return state

    def enter(self, frame: Tensor, state: Tensor) -> Tensor:
        """What enters the first block; arguments as for `forward`."""
        return F.leaky_relu(self.input(torch.cat((frame.to(state.dtype), state), dim=1)), 0.1)


class BasicVSRReconstruction(nn.Module):
    """BasicVSR's reconstruction: fusion, two x2 pixel shuffles (one for x2), two convolutions at full size."""

    def __init__(self, channels: int, scale: int = 4) -> None:
        super().__init__()
        self.fusion = nn.Conv2d(2 * channels, channels, 1)
        self.up1 = nn.Conv2d(channels, 4 * channels, 3, padding=1) if scale == 4 else None
        self.up2 = nn.Conv2d(channels, 256, 3, padding=1)
        self.hr = nn.Conv2d(64, 64, 3, padding=1)
        self.last = nn.Conv2d(64, 3, 3, padding=1)

    def forward(self, backward: Tensor, forward: Tensor) -> Tensor:
        """Two (N, C, H, W) states -> (N, 3, scale * H, scale * W), what is to be added to the upsampled frame."""
        x = F.leaky_relu(self.fusion(torch.cat((backward, forward), dim=1)), 0.1)
        if self.up1 is not None:
            x = F.leaky_relu(F.pixel_shuffle(self.up1(x), 2), 0.1)
        x = F.leaky_relu(F.pixel_shuffle(self.up2(x), 2), 0.1)
        return self.last(F.leaky_relu(self.hr(x), 0.1))


class LightReconstruction(nn.Module):
    """Reconstruction that stays at low resolution: fusion, one convolution to 3 * scale^2 channels, one pixel shuffle."""

    def __init__(self, channels: int, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.fusion = nn.Conv2d(2 * channels, channels, 1)
        self.last = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)

    def forward(self, backward: Tensor, forward: Tensor) -> Tensor:
        """Two (N, C, H, W) states -> (N, 3, scale * H, scale * W), what is to be added to the upsampled frame."""
        x = F.leaky_relu(self.fusion(torch.cat((backward, forward), dim=1)), 0.1)
        return F.pixel_shuffle(self.last(x), self.scale)


def _zero_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
