"""BasicVSR written down naively from BasicSR-named weights: the reference that our network must equal.

Straight from the facts about the published checkpoints (docs/checkpoints.md), one frame at a time, torch.nn.functional only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def random_weights(channels: int, blocks: int, seed: int = 0) -> Weights:
    """Random weights under BasicSR's names, in BasicSR's shapes."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}

    def conv(name: str, outputs: int, inputs: int, side: int) -> None:
        scale = 0.6 / (inputs * side * side) ** 0.5
        weights[f"{name}.weight"] = scale * torch.randn(outputs, inputs, side, side, generator=generator)
        weights[f"{name}.bias"] = 0.05 * torch.randn(outputs, generator=generator)

    for level in range(6):
        for index, (inputs, outputs) in enumerate([(8, 32), (32, 64), (64, 32), (32, 16), (16, 2)]):
            conv(f"spynet.basic_module.{level}.basic_module.{2 * index}", outputs, inputs, 7)
    for trunk in ("backward_trunk", "forward_trunk"):
        conv(f"{trunk}.main.0", channels, 3 + channels, 3)
        for block in range(blocks):
            conv(f"{trunk}.main.2.{block}.conv1", channels, channels, 3)
            conv(f"{trunk}.main.2.{block}.conv2", channels, channels, 3)
    conv("fusion", channels, 2 * channels, 1)
    conv("upconv1", 4 * channels, channels, 3)
    conv("upconv2", 256, channels, 3)
    conv("conv_hr", 64, 64, 3)
    conv("conv_last", 3, 64, 3)
    weights["spynet.mean"] = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    weights["spynet.std"] = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return weights


def basicvsr(weights: Weights, clip: Tensor) -> Tensor:
    """(T, 3, H, W) -> (T, 3, 4H, 4W)."""
    frames = [frame[None] for frame in clip]
    last = len(frames) - 1
    channels = weights["fusion.weight"].shape[0]
    zero = torch.zeros(1, channels, *clip.shape[-2:])

    backward = {}
    feature = zero
    for t in range(last, -1, -1):
        if t < last:
            feature = bilinear(feature, spynet(weights, frames[t], frames[t + 1]), zeros_outside=True)
        feature = trunk(weights, "backward_trunk", torch.cat([frames[t], feature], 1))
        backward[t] = feature

    outputs = []
    feature = zero
    for t in range(last + 1):
        if t > 0:
            feature = bilinear(feature, spynet(weights, frames[t], frames[t - 1]), zeros_outside=True)
        feature = trunk(weights, "forward_trunk", torch.cat([frames[t], feature], 1))
        x = lrelu(conv(weights, "fusion", torch.cat([backward[t], feature], 1)))
        x = lrelu(shuffle(conv(weights, "upconv1", x)))
        x = lrelu(shuffle(conv(weights, "upconv2", x)))
        x = conv(weights, "conv_last", lrelu(conv(weights, "conv_hr", x)))
        outputs.append(x + F.interpolate(frames[t], scale_factor=4, mode="bilinear", align_corners=False))
    return torch.cat(outputs)


def trunk(weights: Weights, name: str, x: Tensor) -> Tensor:
    x = lrelu(conv(weights, f"{name}.main.0", x))
    block = 0
    while f"{name}.main.2.{block}.conv1.weight" in weights:
        inner = torch.relu(conv(weights, f"{name}.main.2.{block}.conv1", x))
        x = x + conv(weights, f"{name}.main.2.{block}.conv2", inner)
        block += 1
    return x


def spynet(weights: Weights, reference: Tensor, support: Tensor) -> Tensor:
    height, width = reference.shape[-2:]
    tall, wide = (height + 31) // 32 * 32, (width + 31) // 32 * 32
    pyramids = []
    for picture in (reference, support):
        picture = (picture - weights["spynet.mean"]) / weights["spynet.std"]
        levels = [F.interpolate(picture, size=(tall, wide), mode="bilinear", align_corners=False)]
        for _ in range(5):
            levels.insert(0, F.avg_pool2d(levels[0], 2, 2, count_include_pad=False))
        pyramids.append(levels)
    flow = torch.zeros(1, 2, tall // 32, wide // 32)
    for level in range(6):
        if level:
            flow = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True) * 2.0
        warped = bilinear(pyramids[1][level], flow, zeros_outside=False)
        x = torch.cat([pyramids[0][level], warped, flow], 1)
        for index in range(5):
            x = conv(weights, f"spynet.basic_module.{level}.basic_module.{2 * index}", x)
            x = torch.relu(x) if index < 4 else x
        flow = flow + x
    flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    return flow * torch.tensor([width / wide, height / tall]).view(1, 2, 1, 1)


def bilinear(source: Tensor, flow: Tensor, zeros_outside: bool) -> Tensor:
    """Sample `source` at x + flow by hand: four neighbours, weighted."""
    _, channels, height, width = source.shape
    y = torch.arange(height).view(1, height, 1) + flow[:, 1]
    x = torch.arange(width).view(1, 1, width) + flow[:, 0]
    if not zeros_outside:
        y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    total = torch.zeros_like(source)
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            weight = (1 - (y - row).abs()) * (1 - (x - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            values = source.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, channels, -1)).view_as(source)
            total = total + values * (weight * inside)[:, None]
    return total


def conv(weights: Weights, name: str, x: Tensor) -> Tensor:
    weight = weights[f"{name}.weight"]
    return F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)


def shuffle(x: Tensor) -> Tensor:
    """Pixel shuffle x2: channel 4c + 2i + j goes to row 2y + i, column 2x + j of channel c."""
    n, channels, height, width = x.shape
    x = x.view(n, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, channels // 4, 2 * height, 2 * width)


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)
