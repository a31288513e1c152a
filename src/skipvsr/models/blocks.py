"""The parts of a recurrent network: residual blocks and trunks."""

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
        self.input = InputConv(3 + channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:
        """(N, 3, H, W) frame and (N, C, H, W) aligned state of the neighbouring frame -> (N, C, H, W) new state."""
        state = self.enter(frame, state)
        for block in self.blocks:
            state = block(state)
        return state

    def enter(self, frame: Tensor, state: Tensor) -> Tensor:
        """What enters the first block; arguments as for `forward`."""
        return F.leaky_relu(self.input(frame.to(state.dtype), state), 0.1)


class InputConv(nn.Conv2d):
    """A convolution of a frame and a state, (N, 3, H, W) and (N, C, H, W), as the sum of one of each.

    The same as that of both in one tensor, without making it: a convolution of 35 channels takes half as long again.
    """

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        colours = frame.shape[1]
        of_state = F.conv2d(state, self.weight[:, colours:], self.bias, padding=1)
        return of_state + F.conv2d(frame, self.weight[:, :colours], padding=1)


def widen(wide: Tensor, narrow: Tensor, parts: int = 1) -> Tensor:
    """The weight of a wider convolution that gives in its first channels what the narrower one gives.

    Args:
        wide: (O, I, ...) or (O,) as it was drawn; what the new outputs read stays as it is.
        narrow: the same with fewer inputs, outputs, or both.
        parts: that the inputs consist of, each widened by itself.
    """
    result = wide.clone()
    if narrow.ndim == 1:
        result[: len(narrow)] = narrow
        return result
    outputs = narrow.shape[0]
    old, new = narrow.unflatten(1, (parts, -1)), result.unflatten(1, (parts, -1))
    new[:outputs] = 0
    new[:outputs, :, : old.shape[2]] = old
    return new.flatten(1, 2)


def _zero_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
