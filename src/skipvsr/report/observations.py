"""Data for figures of one clip: PSNR by patch, depths, feature differences. Numbers only; figures.py draws them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skipvsr.evaluation.metrics import quantize
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.patched import STRIDE_PX
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.blocks import SCALE, Trunk
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.trace import RoutingTrace
from skipvsr.terms import Direction
from skipvsr.upscale.overlay import LatestDepths


@dataclass(frozen=True)
class Routed:
    """A super-resolved clip, and what ran.

    Args:
        result: (T, 3, 4H, 4W), rounded to 8 bit.
        ratio: active ratio of the residual blocks.
        per_block: ratio of tiles on which each block ran, (2, blocks): backward and forward trunk.
        depth: ratio of blocks that ran at each LR pixel of each frame, (T, H, W), mean of both trunks.
    """

    result: Tensor
    ratio: float
    per_block: Tensor
    depth: Tensor


@torch.inference_mode()
def run_routed(model: SkipVSR, lr: Tensor, compute: ComputeOptions) -> Routed:
    """Super-resolve a clip (T, 3, H, W) in [0, 1], and keep what ran; tiles are those of whole frames."""
    trace = RoutingTrace()
    one_window = StreamOptions(window=len(lr), lookahead=0, scene_detection=False, repeat_detection=False)
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
    """PSNR in dB by patch: result and ground truth (3, 4H, 4W) -> (rows, columns), patches of `patch_px` LR pixels a side."""
    grid = TileGrid.of(gt.shape[-2] // SCALE, gt.shape[-1] // SCALE, patch_px)
    error = torch.nn.functional.avg_pool2d((result - gt).square().mean(dim=0, keepdim=True)[None], SCALE)
    return -10 * torch.log10(grid.pool(error)[0, 0].clamp(min=1e-10))


@torch.inference_mode()
def feature_differences(model: SkipVSR, lr: Tensor, tile_px: int = STRIDE_PX) -> Tensor:
    """How much each block changes the feature, with every block running: root mean square on each tile, (blocks, N).

    N counts the tiles of all frames and of both trunks. Figure 5 of the paper calls it the intermediate feature difference.
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
