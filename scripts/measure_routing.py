"""What skipping costs in quality and saves in time, for every policy, against static networks; docs/routing.md has the tables.

    python scripts/measure_routing.py quality --data ../shared/data --out docs/data/routing-quality.json
    python scripts/measure_routing.py time --data ../shared/data --out docs/data/routing-time.json     (on an idle machine)

Quality: whole clips of ../shared/data/val, antialiased bicubic x1/4, luma PSNR; networks with the paper's router are calibrated
on training clips first. Time: everything is measured side by side in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.data.datasets import find_clips
from skipvsr.data.pairs import Pairs, lr_clips, lr_gt_clip
from skipvsr.evaluation.calibrate import calibrate
from skipvsr.evaluation.evaluate import evaluate
from skipvsr.evaluation.measures import Measures
from skipvsr.evaluation.scores import Row
from skipvsr.evaluation.settings import Setting
from skipvsr.inference import tiled
from skipvsr.inference.device import prepare_model
from skipvsr.inference.machine import describe_machine
from skipvsr.inference.options import ComputeOptions, Precision, StreamOptions
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.models.config import VSRConfig
from skipvsr.models.resize import bicubic_downsample
from skipvsr.models.router import GainRouter, MaskGenerator
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import CELL_PX
from skipvsr.routing.policies import depth_by_rank

RATIOS = (0.75, 0.5, 0.25)
SIZES = ((180, 320), (540, 960))
OURS = ("budget", "budget-frame", "gradient", "random", "uniform", "shallow", "deep", "oracle")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure routing: quality or time.")
    parser.add_argument("part", choices=("quality", "time"))
    parser.add_argument("--model", default="compact")
    parser.add_argument("--static", type=Path, nargs="*", default=[], help="static networks to compare with")
    parser.add_argument("--paper", type=Path, nargs="*", default=[], help="networks with the paper's router")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=0, help="quality: the first so many of each clip (all)")
    parser.add_argument("--tile-size", type=int, help="quality: tiles (as the model was calibrated)")
    parser.add_argument("--tiles", type=int, nargs="+", default=[24, 48], help="time: tiles")
    parser.add_argument("--precision", default="auto", help="time: of whole networks (as the command line has it)")
    args = parser.parse_args()
    found = measure_quality(args) if args.part == "quality" else measure_time(args)
    command = "python " + " ".join(sys.argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({**found, "machine": describe_machine(), "command": command}, indent=1) + "\n")


def measure_quality(args: argparse.Namespace) -> dict[str, Any]:
    """A row for each network and setting, frames averaged."""
    clips = find_clips("folder", args.data / "val")
    measures = Measures(with_ssim=False, frames=args.frames, tile_size=args.tile_size)
    rows = []

    def measure(name: str, model: SkipVSR, settings: Sequence[Setting]) -> None:
        for setting in settings:
            row = evaluate(model, clips, Pairs("bi"), [setting], measures)[0]
            rows.append({"network": name, **without_frames(row)})
            print(f"{name:32} {setting.label:18} {row.active_ratio:6.1%} {row.psnr_y:.3f} dB", flush=True)

    ours = load_model(args.model, device="cpu")
    measure("ours", ours, [Setting("full"), *(Setting(name, ratio) for name in OURS for ratio in RATIOS)])  # pyright: ignore[reportArgumentType]
    for path in args.static:
        model = load_model(path, device="cpu")
        measure(f"static, {model.config.blocks} blocks", model, [Setting("full")])
    for path in args.paper:
        model = load_model(path, device="cpu")
        seen = lr_clips(args.data / "train" / "clips", "bi", frames=8, most=8)
        model.calibration = calibrate(model, seen, args.tile_size or Upscaler(ours).tile_size, budgets=sorted(RATIOS))
        measure(path.parent.parent.name, model, [Setting("full"), *(Setting("budget", ratio) for ratio in RATIOS)])
    return {"frames": args.frames, "rows": rows}


def without_frames(row: Row) -> dict[str, Any]:
    """A row with each clip's lists averaged."""
    values = row.to_dict()
    for clip in values["clips"]:
        for name, value in list(clip.items()):
            if isinstance(value, list):
                clip[name] = statistics.mean(value) if value else None
    return values


def measure_time(args: argparse.Namespace) -> dict[str, Any]:
    """The trunks alone against dense execution; and whole networks at each budget, with what their routers cost."""
    # Of the paper's 30 blocks 10 are timed: the ratio does not depend on their number.
    trunks = [
        row
        for channels, blocks in ((32, 8), (64, 10))
        for height, width in SIZES
        for tile_px in args.tiles
        for row in time_trunk(channels, blocks, tile_px, height, width)
    ]
    networks = {"ours": load_model(args.model, device="cpu")}
    networks |= {
        f"static, {(model := load_model(path, device='cpu')).config.blocks} blocks": model for path in args.static
    }
    clip = next(clip for clip in find_clips("folder", args.data / "val") if clip.name == "horsejump")
    frames = bicubic_downsample(lr_gt_clip(clip, "bi", 12)[1], 2)  # 180x320: as large a frame as people have
    return {
        "trunks": trunks,
        "precision": args.precision,
        "networks": time_networks(networks, frames, args.precision),
        "routers": [*time_router(32, 8), *time_router(64, 30)],
    }


def time_trunk(channels: int, blocks: int, tile_px: int, height: int, width: int) -> list[dict[str, Any]]:
    """Seconds of one trunk's blocks at depths like those of a router, and their ratio to dense execution, by ratio."""
    torch.manual_seed(0)
    trunk = Trunk(channels, blocks).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    layers: list[ResidualBlock] = list(trunk.blocks)  # pyright: ignore[reportAssignmentType]
    state = torch.randn(1, channels, height, width).contiguous(memory_format=torch.channels_last)
    grid = TileGrid.of(height, width, tile_px)
    energy = torch.rand(1, grid.rows, grid.columns)
    depths = {ratio: depth_by_rank(energy, ratio, blocks) for ratio in (1.0, *RATIOS)}

    def dense() -> Tensor:
        found = state
        for block in layers:
            found = block(found)
        return found

    work: dict[str, Callable[[], object]] = {"dense": dense}
    for ratio, depth in depths.items():
        work[str(ratio)] = lambda depth=depth: tiled.run_blocks(layers, state, lambda block, _: depth > block, grid)
    seconds = interleaved(work, 7 if channels * blocks * height * width < 2e8 else 3)
    rows = []
    for ratio, depth in depths.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[str(ratio)], seconds["dense"], strict=True))
        row = {
            "channels": channels, "blocks": blocks, "height": height, "width": width, "tile_px": tile_px, "ratio": ratio,
            "realised": (depth.float().mean() / blocks).item(), "ratio_to_dense": ratio,
            "seconds_dense": statistics.median(seconds["dense"]),
        }  # fmt: skip
        rows.append(row)
        print({key: round(value, 3) for key, value in row.items()}, flush=True)
    return rows


def time_networks(networks: dict[str, SkipVSR], frames: Tensor, precision: Precision) -> list[dict[str, Any]]:
    """Seconds a frame of the whole network on a clip, without files."""
    work: dict[str, Callable[[], object]] = {}
    one_window = StreamOptions(window=len(frames), lookahead=0, scene_detection=False)
    for name, model in networks.items():
        for ratio in (1.0, *RATIOS) if model.calibration is not None else (1.0,):
            upscaler = Upscaler(model, ComputeOptions(budget=ratio, precision=precision), one_window)

            def run(upscaler: Upscaler = upscaler) -> None:
                for _ in upscaler.stream(frames):
                    pass

            work[f"{name}|{ratio}"] = run
    seconds = interleaved(work, 5)
    rows = []
    for key, values in seconds.items():
        name, ratio = key.split("|")
        rows.append(
            {"network": name, "budget": float(ratio), "seconds_per_frame": statistics.median(values) / len(frames)}
        )
        print(rows[-1], flush=True)
    return rows


def time_router(channels: int, blocks: int) -> list[dict[str, Any]]:
    """What a router's decisions for one trunk at 180x320 cost, against its blocks run densely."""
    network = prepare_model(SkipVSR(VSRConfig(channels, blocks, router="gain")))
    router, paper = network.router, MaskGenerator(channels)
    assert isinstance(router, GainRouter)
    height, width = SIZES[0]
    grid = TileGrid.of(height, width, 24)
    frame, flow = torch.rand(1, 3, height, width), torch.rand(1, 2, height, width)
    state = torch.rand(1, channels, height, width).contiguous(memory_format=torch.channels_last)
    before = F.avg_pool2d(state, CELL_PX)

    def dense() -> None:
        found = state
        for block in network.forward_trunk.blocks:
            found = block(found)

    def gain() -> None:
        router("forward", frame, state, flow, grid)

    def papers() -> None:
        for _ in range(blocks):  # it is asked before every block
            difference = grid.pool((F.avg_pool2d(state, CELL_PX) - before).abs(), CELL_PX)
            paper("forward", difference)

    seconds = interleaved({"dense": dense, "gain": gain, "paper": papers}, 7)
    rows = []
    for name in ("gain", "paper"):
        ratio = statistics.median(seconds[name]) / statistics.median(seconds["dense"])
        rows.append({"router": name, "channels": channels, "blocks": blocks, "ratio_of_trunk": ratio})
        print(rows[-1], flush=True)
    return rows


@torch.inference_mode()
def interleaved(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, one after the other and again, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 1):
        for name, do in work.items():
            started = time.perf_counter()
            do()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
