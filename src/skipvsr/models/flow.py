"""Optical flow by a coarse-to-fine pyramid (SPyNet and its light form), and warping by it."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channels from which sums of rows are faster than torch's grid_sample.
_ROW_CHANNELS = 16
Flow = Literal["spynet", "light", "half"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def warp(source: Tensor, flow: Tensor, *, padding: str = "zeros") -> Tensor:
    """Sample `source` at `x + flow(x)`, bilinearly.

    Args:
        source: (N, C, H, W), any floating dtype.
        flow: (N, 2, H, W) in pixels; channel 0 is x (width), channel 1 is y (height).
        padding: what lies outside the frame: "zeros", or "border" (the nearest edge pixel).

    Returns:
        (N, C, H, W) in the dtype of `source`. Coordinates and sampling are fp32 at any dtype: half-precision
        coordinates would be wrong by up to a third of a pixel at a width of 1,280.
    """
    return Warp(flow, padding)(source)


class Warp:
    """`warp` of any number of sources by the same flow: where to sample is worked out once.

    Args:
        flow, padding: as for `warp`.
    """

    def __init__(self, flow: Tensor, padding: str = "zeros") -> None:
        self.flow = flow.float()
        self.padding = padding

    def __call__(self, source: Tensor) -> Tensor:
        """`warp` of a source."""
        rows = self.padding == "zeros" and source.device.type == "cpu" and source.shape[1] >= _ROW_CHANNELS
        if rows and not torch.is_grad_enabled():
            return self._by_rows(source)
        warped = F.grid_sample(
            source.float(), self._grid, mode="bilinear", padding_mode=self.padding, align_corners=True
        )
        return warped.to(source.dtype)

    @cached_property
    def _grid(self) -> Tensor:
        """Positions from -1 to 1 as torch's grid_sample takes them, (N, H, W, 2)."""
        count, _, height, width = self.flow.shape
        y = torch.arange(height, device=self.flow.device, dtype=torch.float32).view(1, height, 1)
        x = torch.arange(width, device=self.flow.device, dtype=torch.float32).view(1, 1, width)
        # align_corners=True: -1 and 1 are the centres of the outermost pixels.
        grid_x = 2.0 * (x + self.flow[:, 0]) / max(width - 1, 1) - 1.0
        grid_y = 2.0 * (y + self.flow[:, 1]) / max(height - 1, 1) - 1.0
        return torch.stack((grid_x, grid_y), dim=-1).expand(count, height, width, 2)

    def _by_rows(self, source: Tensor) -> Tensor:
        """With zeros outside: a pixel is a weighted sum of four rows of a table with a row of channels for every pixel.

        In the channels-last memory format a row is one piece of memory, and all threads share the pixels; torch's grid_sample
        goes from channel to channel, with one thread for each frame of a batch.
        """
        count, channels, height, width = source.shape
        # The frame with zeros around it: one pixel before it, and two behind it, for the neighbours of what lies outside.
        table = source.new_empty((count, height + 3, width + 3, channels), dtype=torch.float32)
        table[:, 1:-2, 1:-2] = source.permute(0, 2, 3, 1)
        for edge in (slice(1), slice(-2, None)):
            table[:, edge] = 0
            table[:, :, edge] = 0
        corners, weights = self._corners
        warped = F.embedding_bag(corners, table.view(-1, channels), per_sample_weights=weights, mode="sum")
        return warped.view(count, height, width, channels).permute(0, 3, 1, 2).to(source.dtype)

    @cached_property
    def _corners(self) -> tuple[Tensor, Tensor]:
        """Rows of that table and their weights, (N * H * W, 4) each: the four pixels around each position."""
        count, _, height, width = self.flow.shape
        line = width + 3
        y, below = _before(self.flow[:, 1], torch.arange(height).view(1, height, 1), height)
        x, right = _before(self.flow[:, 0], torch.arange(width).view(1, 1, width), width)
        first = torch.arange(count, dtype=torch.int32).view(count, 1, 1) * ((height + 3) * line) + y * line + x
        corners = first[..., None] + torch.tensor((0, 1, line, line + 1), dtype=torch.int32)
        both = below * right
        weights = torch.stack((1 - below - right + both, right - both, below - both, both), dim=-1)
        return corners.view(-1, 4), weights.view(-1, 4)


def _before(flow: Tensor, start: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Where each pixel is sampled along one side of the frame with zeros around it.

    Args:
        flow: (N, H, W) along this side; what is not a number leads outside.
        start: position of each pixel, which broadcasts to (N, H, W).
        side: of the frame.

    Returns:
        (N, H, W) each: the index of the pixel before it, int32, and how far behind that it is, in [0, 1).
    """
    at = (start + flow).nan_to_num_(nan=-1.0).clamp_(-1, side)
    before = at.floor()
    return before.int() + 1, at - before


class PyramidFlow(nn.Module):
    """Flow from a pyramid of small convolutional networks, each refining the upsampled flow of the one before.

    This is SPyNet (Ranjan and Black, CVPR 2017) in the form BasicVSR uses; its light relatives change only the sizes.

    Args:
        levels: pyramid levels; each works at half of the size of the next finer one.
        widths: output channels of the hidden convolutions of every level.
        kernel_px: side of the square convolution kernels.
        halvings: how many times smaller by half than the input the finest level is; its flow is enlarged.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, levels: int, widths: tuple[int, ...], kernel_px: int, halvings: int = 0) -> None:
        super().__init__()
        self.halvings = halvings
        self.levels = nn.ModuleList(_level(widths, kernel_px) for _ in range(levels))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def multiple_px(self) -> int:
        """Sides are resized up to a multiple of this before the pyramid is built."""
        return 2 ** (len(self.levels) - 1 + self.halvings)

    def forward(self, reference: Tensor, support: Tensor) -> Tensor:
        """Flow that brings `support` onto `reference`: reference(x) ~ support(x + flow(x)).

        Args:
            reference: (N, 3, H, W), RGB in [0, 1].
            support: the same shape.

        Returns:
            (N, 2, H, W) fp32, in pixels of the input size; channel 0 is x, channel 1 is y.
        """
        height, width = reference.shape[-2:]
        flow = self.level_flows(reference, support)[-1]
        found_height, found_width = flow.shape[-2:]
        if (found_height, found_width) != (height, width):
            flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
            # By numbers, not by a tensor of them: on a GPU, bringing one there would wait for all that it is doing.
            flow = torch.cat((flow[:, :1] * (width / found_width), flow[:, 1:] * (height / found_height)), dim=1)
        return flow

    def level_flows(self, reference: Tensor, support: Tensor) -> list[Tensor]:
        """The flow at every level, coarsest first, each in pixels of its level; arguments as for `forward`.

        The finest is (N, 2, H' / 2^h, W' / 2^h), with H' and W' the sides rounded up to a multiple of `multiple_px` and h the
        `halvings`.
        """
        height, width = reference.shape[-2:]
        padded = (_up_to_multiple(height, self.multiple_px), _up_to_multiple(width, self.multiple_px))
        references = self._pyramid(reference, padded)
        supports = self._pyramid(support, padded)

        coarsest = references[0].shape[-2:]
        flow = torch.zeros(reference.shape[0], 2, *coarsest, device=reference.device, dtype=torch.float32)
        weights = next(self.parameters()).dtype
        flows: list[Tensor] = []
        for index, level in enumerate(self.levels):
            if index > 0:
                flow = 2.0 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = warp(supports[index], flow, padding="border")
            inputs = torch.cat((references[index], warped, flow.to(warped.dtype)), dim=1)
            flow = flow + level(inputs.to(weights)).float()
            flows.append(flow)
        return flows

    def _pyramid(self, frames: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Normalised frames at every level, coarsest first."""
        frames = (frames - self.mean.to(frames.dtype)) / self.std.to(frames.dtype)
        if frames.shape[-2:] != size:
            frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        pyramid = [frames]
        for _ in range(len(self.levels) - 1 + self.halvings):
            pyramid.append(F.avg_pool2d(pyramid[-1], kernel_size=2, stride=2, count_include_pad=False))
        return pyramid[self.halvings :][::-1]


def make_flow(kind: Flow) -> PyramidFlow:
    """An untrained flow network of a kind."""
    match kind:
        case "spynet":
            return spynet()
        case "light":
            return light_flow()
        case "half":
            return light_flow(halvings=1)


def spynet() -> PyramidFlow:
    """SPyNet at its published size: 6 levels of five 7x7 convolutions, 1,440,300 parameters."""
    return PyramidFlow(levels=6, widths=(32, 64, 32, 16), kernel_px=7)


def light_flow(halvings: int = 0) -> PyramidFlow:
    """SPyNet's idea for small machines: 5 levels of four 3x3 convolutions, 63,010 parameters.

    Without the finest level it works at half of the size (`halvings` 1), in less than a third of the time. The last
    convolution of each level starts at zero, so that an untrained network says "no motion" and can be learnt from the
    reconstruction loss alone.
    """
    flow = PyramidFlow(levels=5 - halvings, widths=(24, 24, 24), kernel_px=3, halvings=halvings)
    for level in flow.levels:
        assert isinstance(level, nn.Sequential)
        last = level[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return flow


def _level(widths: tuple[int, ...], kernel_px: int) -> nn.Sequential:
    """Convolutions 8 -> widths -> 2 with ReLU between: (reference, warped support, flow) -> flow correction."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((8, *widths, 2)):
        layers += [nn.Conv2d(inputs, outputs, kernel_px, padding=kernel_px // 2), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _up_to_multiple(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
