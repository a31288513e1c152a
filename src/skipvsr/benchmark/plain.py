"""The same network as public PyTorch code runs it: the baseline of the benchmark.

A whole clip at a time, in the default memory format, with concatenated inputs, sampling grids made anew for every warp, and
torch's bilinear interpolation and pixel shuffle. It shares the weights of a `SkipVSR` and nothing of how ours runs.
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipvsr.models.blocks import Trunk
from skipvsr.models.reconstruction import BasicVSRReconstruction
from skipvsr.models.vsr import SkipVSR


class PlainNetwork(nn.Module):
    """Plain eager execution of a network's weights; every block runs.

    Args:
        model: copied, fp32.
    """

    def __init__(self, model: SkipVSR) -> None:
        super().__init__()
        self.model = deepcopy(model).float().to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue] - the stubs forget it

    def forward(self, clip: Tensor) -> Tensor:
        """(1, T, 3, H, W) -> (1, T, 3, s * H, s * W)."""
        model = self.model
        frames = list(clip.unbind(dim=1))
        backward: list[Tensor] = []
        state = torch.zeros_like(frames[0][:, :1]).repeat(1, model.config.channels, 1, 1)
        for index in reversed(range(len(frames))):
            if index + 1 < len(frames):
                state = _warp(state, self._flow(frames[index], frames[index + 1]), "zeros")
            state = _trunk(model.backward_trunk, frames[index], state)
            backward.insert(0, state)
        results: list[Tensor] = []
        state = torch.zeros_like(state)
        for index, frame in enumerate(frames):
            if index:
                state = _warp(state, self._flow(frame, frames[index - 1]), "zeros")
            state = _trunk(model.forward_trunk, frame, state)
            results.append(self._reconstruct(frame, backward[index], state))
        return torch.stack(results, dim=1)

    def _flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """(1, 2, H, W) from a pyramid of both frames, resized to sides that can be halved."""
        network = self.model.flow
        height, width = reference.shape[-2:]
        step = network.multiple_px
        size = (-(-height // step) * step, -(-width // step) * step)
        pyramids = []
        for frame in (reference, support):
            levels = [F.interpolate((frame - network.mean) / network.std, size, mode="bilinear", align_corners=False)]
            for _ in range(len(network.levels) - 1 + network.halvings):
                levels.insert(0, F.avg_pool2d(levels[0], 2, 2))
            pyramids.append(levels[: len(network.levels)])
        flow = torch.zeros_like(pyramids[0][0][:, :2])
        for index, level in enumerate(network.levels):
            if index:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = _warp(pyramids[1][index], flow, "border")
            flow = flow + level(torch.cat((pyramids[0][index], warped, flow), dim=1))
        found = flow.shape[-2:]
        flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor((width / found[1], height / found[0])).view(1, 2, 1, 1)

    def _reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        module, scale = self.model.reconstruction, self.model.scale
        x = F.leaky_relu(module.fusion(torch.cat((backward, forward), dim=1)), 0.1)
        if isinstance(module, BasicVSRReconstruction):
            if module.up1 is not None:
                x = F.leaky_relu(F.pixel_shuffle(module.up1(x), 2), 0.1)
            x = F.leaky_relu(F.pixel_shuffle(module.up2(x), 2), 0.1)
            x = module.last(F.leaky_relu(module.hr(x), 0.1))
        else:
            x = F.pixel_shuffle(F.conv2d(x, module.last.weight, module.last.bias, padding=1), scale)
        return x + F.interpolate(frame, scale_factor=scale, mode="bilinear", align_corners=False)


def _trunk(trunk: Trunk, frame: Tensor, state: Tensor) -> Tensor:
    first = trunk.input
    x = F.leaky_relu(F.conv2d(torch.cat((frame, state), dim=1), first.weight, first.bias, padding=1), 0.1)
    for block in trunk.blocks:
        x = x + block.conv2(F.relu(block.conv1(x)))  # pyright: ignore[reportCallIssue] - a ResidualBlock
    return x


def _warp(source: Tensor, flow: Tensor, padding: str) -> Tensor:
    height, width = source.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = 2 * (columns.to(flow) + flow[:, 0]) / max(width - 1, 1) - 1
    y = 2 * (rows.to(flow) + flow[:, 1]) / max(height - 1, 1) - 1
    return F.grid_sample(source, torch.stack((x, y), dim=-1), "bilinear", padding, align_corners=True)
