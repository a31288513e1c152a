"""What figures show of one clip: patch PSNR, depths, feature differences; plain numbers, no drawing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skipvsr.evaluation.metrics import quantize
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.patched import STRIDE_PX
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.blocks import SCALE, Trunk
from skipvsr.models.vsr import Direction, SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.trace import RoutingTrace
from skipvsr.upscale.overlay import LatestDepths


@dataclass(frozen=True)
class Routed:
    """A clip super-resolved at a setting of the dial.

    Args:
        result: (T, 3, 4H, 4W), rounded to 8 bit.
        ratio: of the blocks that ran.
        per_block: ratio of tiles on which each block of the backward and of the forward trunk ran, (2, blocks).
        depth: ratio of blocks that ran at each LR pixel of each frame, (T, H, W).
    """

    result: Tensor
    ratio: float
    per_block: Tensor
    depth: Tensor


@torch.inference_mode()
def run_routed(model: SkipVSR, lr: Tensor, compute: ComputeOptions) -> Routed:
    """Super-resolve a clip (T, 3, H, W), tiles of whole frames, and keep what ran."""
    trace = RoutingTrace()
    one_window = StreamOptions(window=len(lr), lookahead=0, scene_detection=False)
    result = quantize(torch.stack(list(Upscaler(model, compute, one_window).stream(lr, trace))))
    per_block = [
        torch.stack([trunk.mask.float().mean(dim=(1, 2, 3)) for trunk in trace.trunks if trunk.direction == direction])
        for direction in ("backward", "forward")
    ]
    depths = LatestDepths()
    for trunk in trace.trunks:
        depths.add(trunk)
    depth = torch.stack([depths.take(number) for number in range(len(lr))])
    return Routed(result, trace.active_ratio, torch.stack([ratio.mean(dim=0) for ratio in per_block]), depth)


def patch_psnr(result: Tensor, gt: Tensor, patch_px: int = STRIDE_PX) -> Tensor:
    """PSNR in dB of each LR patch's HR pixels, for one frame (3, 4H, 4W) twice: (rows, columns)."""
    grid = TileGrid.of(gt.shape[-2] // SCALE, gt.shape[-1] // SCALE, patch_px)
    error = torch.nn.functional.avg_pool2d((result - gt).square().mean(dim=0, keepdim=True)[None], SCALE)
    return -10 * torch.log10(grid.pool(error)[0, 0].clamp(min=1e-10))


@torch.inference_mode()
def feature_differences(model: SkipVSR, lr: Tensor, tile_px: int = STRIDE_PX) -> Tensor:
    """Root mean square change of the feature by each block, on each tile: (blocks, N), both trunks, all frames together.

    What Figure 5 of the paper calls the intermediate feature difference; with every block running.
    """
    found: list[Tensor] = []

    def run(
        trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None, number: int
    ) -> Tensor:
        state = trunk.enter(frame, state)
        grid = TileGrid.of(frame.shape[-2], frame.shape[-1], tile_px)
        changes = []
        for block in trunk.blocks:
            after = block(state)
            changes.append(grid.pool((after - state).square().mean(dim=1, keepdim=True)).flatten().sqrt())
            state = after
        found.append(torch.stack(changes))
        return state

    model(lr[None], run)
    return torch.cat(found, dim=1)
