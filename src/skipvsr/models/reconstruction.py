"""From the two states of a frame to the result."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicVSRReconstruction(nn.Module):
    """BasicVSR's reconstruction: fusion, two x2 pixel shuffles (one for x2), two convolutions at full size."""

    def __init__(self, channels: int, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.fusion = nn.Conv2d(2 * channels, channels, 1)
        self.up1 = nn.Conv2d(channels, 4 * channels, 3, padding=1) if scale == 4 else None
        self.up2 = nn.Conv2d(channels, 256, 3, padding=1)
        self.hr = nn.Conv2d(64, 64, 3, padding=1)
        self.last = nn.Conv2d(64, 3, 3, padding=1)

    def forward(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """Frame (N, 3, H, W) and its two states (N, C, H, W) -> (N, 3, scale * H, scale * W), in the frame's dtype."""
        x = F.leaky_relu(self.fusion(torch.cat((backward, forward), dim=1)), 0.1)
        if self.up1 is not None:
            x = F.leaky_relu(F.pixel_shuffle(self.up1(x), 2), 0.1)
        x = F.leaky_relu(F.pixel_shuffle(self.up2(x), 2), 0.1)
        return self.last(F.leaky_relu(self.hr(x), 0.1)) + as_frame(enlarge_bilinearly(frame, self.scale))


class LightReconstruction(nn.Module):
    """Reconstruction that stays at low resolution: fusion, one convolution to 3 * scale^2 channels, one pixel shuffle."""

    def __init__(self, channels: int, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.fusion = nn.Conv2d(2 * channels, channels, 1)
        self.last = SubpixelConv(channels, 3 * scale**2, 3, padding=1)

    def forward(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """Frame (N, 3, H, W) and its two states (N, C, H, W) -> (N, 3, scale * H, scale * W), in the frame's dtype."""
        x = F.leaky_relu(self.fusion(torch.cat((backward, forward), dim=1)), 0.1)
        return as_frame(self.last(x) + enlarge_bilinearly(frame, self.scale))


class SubpixelConv(nn.Conv2d):
    """A convolution to 3 * scale^2 channels, which are the pixels of every scale x scale pixels of a larger frame.

    The channels are in the order of `torch.nn.PixelShuffle`: colour, row, column.
    """

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(N, C, H, W) -> (N, H, W, 3 * scale^2), see `as_frame`."""
        scale = round((self.out_channels / 3) ** 0.5)
        # To row, column, colour.
        order = torch.arange(self.out_channels, device=x.device).view(3, scale, scale).permute(1, 2, 0).flatten()
        bias = None if self.bias is None else self.bias[order]
        return F.conv2d(x, self.weight[order], bias, padding=1).permute(0, 2, 3, 1)


def enlarge_bilinearly(frame: Tensor, scale: int) -> Tensor:
    """Bilinear enlargement with edges repeated, as `F.interpolate` without `align_corners`.

    Written as a few weighted sums of whole rows, which takes a quarter of its time.

    Args:
        frame: (N, 3, H, W).
        scale: even.

    Returns:
        (N, H, W, 3 * scale^2), see `as_frame`.
    """
    # Where the middles of the small pixels lie in a large one, from its own.
    offsets = [(number + 0.5) / scale - 0.5 for number in range(scale)]
    x = F.pad(frame, (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1).contiguous()
    left, middle, right = x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]
    across = [torch.lerp(middle, left if offset < 0 else right, abs(offset)) for offset in offsets]
    x = torch.stack(across, dim=3).flatten(3)
    above, middle, below = x[:, :-2], x[:, 1:-1], x[:, 2:]
    down = [torch.lerp(middle, above if offset < 0 else below, abs(offset)) for offset in offsets]
    return torch.cat(down, dim=3)


def as_frame(pixels: Tensor) -> Tensor:
    """The small pixels at each large one's place, row by row: (N, H, W, 3 * s^2) -> (N, 3, s * H, s * W), channels last."""
    count, height, width, channels = pixels.shape
    scale = round((channels / 3) ** 0.5)
    rows = pixels.unflatten(3, (scale, 3 * scale)).transpose(2, 3)
    return rows.reshape(count, height * scale, width * scale, 3).permute(0, 3, 1, 2)
