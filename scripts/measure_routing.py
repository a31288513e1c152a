"""Quality at three budgets for every policy, and how long the trunks take, on the validation clips.

    python scripts/measure_routing.py --model runs/compact/2-skip/best --data ../shared/data --out docs/data/routing.json

Quality: luma PSNR on whole clips (antialiased bicubic x1/4). Policies that follow a share exactly are given it; thresholds come
from the model's calibration, and their realised share is measured. Time: both trunks on synthetic features of 180x320 and of
540x960, tiled against dense channels-last execution, interleaved in one process; the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import skipvsr
from skipvsr.data.datasets import find_clips
from skipvsr.data.low import low_and_high
from skipvsr.evaluation.metrics import psnr_y
from skipvsr.execute import tiled
from skipvsr.execute.routed import RoutedTrunks
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.models.router import GainRouter
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import GainBudget, GainThreshold
from skipvsr.routing.policies import FixedBlocks, GradientRank, Policy, RandomBlocks
from skipvsr.routing.trace import RoutingTrace

SHARES = (0.75, 0.5, 0.25)
SIZES = ((180, 320), (540, 960))
REPEATS = 7


def policies(model: SkipVSR) -> dict[str, Callable[[float], Policy]]:
    """All policies that the model can follow, by name: share -> policy."""
    found: dict[str, Callable[[float], Policy]] = {
        "gradient rank": GradientRank,
        "random": lambda share: RandomBlocks(share, torch.Generator().manual_seed(0)),
        "uniform": lambda share: FixedBlocks("uniform", share),
        "first blocks": lambda share: FixedBlocks("deep", share),
        "last blocks": lambda share: FixedBlocks("shallow", share),
    }
    router, table = model.router, model.calibration
    if isinstance(router, GainRouter):
        found["gain, share per frame"] = lambda share: GainBudget(router, share)
        if table is not None:
            found["gain, threshold"] = lambda share: GainThreshold(router, table.threshold_for(share))
    return found


def measure_quality(model: SkipVSR, data: Path, tile_px: int) -> list[dict]:
    """One row a clip, policy and share."""
    rows = []
    for clip in find_clips("folder", data / "val"):
        low, high = low_and_high(clip, "bi")
        with torch.inference_mode():
            full = psnr_y(model(low[None])[0], high).mean().item()
        rows.append({"clip": clip.name, "policy": "full", "share": 1.0, "realised": 1.0, "psnr_y": full})
        for name, make in policies(model).items():
            for share in SHARES:
                trace = RoutingTrace()
                with torch.inference_mode():
                    result = model(low[None], RoutedTrunks(make(share), tile_px, trace=trace))[0]
                row = {"clip": clip.name, "policy": name, "share": share, "realised": trace.share}
                rows.append({**row, "psnr_y": psnr_y(result, high).mean().item(), "flips": trace.flips("forward")})
        print(clip.name, flush=True)
    return rows


def measure_time(channels: int, blocks: int, tile_px: int, height: int, width: int) -> list[dict]:
    """Seconds of one trunk's blocks on random tiles, and their ratio to dense execution, by share."""
    torch.manual_seed(0)
    trunk = Trunk(channels, blocks).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    layers: list[ResidualBlock] = list(trunk.blocks)  # pyright: ignore[reportAssignmentType]
    state = torch.randn(1, channels, height, width).contiguous(memory_format=torch.channels_last)
    grid = TileGrid.of(height, width, tile_px)
    masks = {share: torch.rand(blocks, 1, grid.rows, grid.columns) < share for share in (1.0, *SHARES)}

    def dense() -> Tensor:
        found = state
        for block in layers:
            found = block(found)
        return found

    seconds: dict[float, list[float]] = {share: [] for share in masks}
    ratios: dict[float, list[float]] = {share: [] for share in masks}
    with torch.inference_mode():
        for repeat in range(REPEATS + 1):
            for share, mask in masks.items():
                plain = _seconds(dense)
                routed = _seconds(lambda mask=mask: tiled.run_blocks(layers, state, lambda block, _: mask[block], grid))
                if repeat:
                    seconds[share].append(routed)
                    ratios[share].append(routed / plain)
    size = {"channels": channels, "blocks": blocks, "height": height, "width": width, "tile_px": tile_px}
    return [
        {
            **size,
            "share": share,
            "seconds": statistics.median(seconds[share]),
            "ratio_to_dense": statistics.median(ratios[share]),
        }
        for share in masks
    ]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure routing: quality and time.")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiles", type=int, nargs="+", default=[16, 24, 32, 48])
    parser.add_argument("--quality-tile", type=int, default=24)
    parser.add_argument("--skip-quality", action="store_true")
    args = parser.parse_args()
    times = [
        row
        for channels, blocks in ((32, 8), (64, 6))
        for height, width in SIZES
        for tile_px in args.tiles
        for row in measure_time(channels, blocks, tile_px, height, width)
    ]
    for row in times:
        print({key: round(value, 4) for key, value in row.items()})
    model = skipvsr.load_model(args.model)
    quality = [] if args.skip_quality else measure_quality(model, args.data, args.quality_tile)
    result = {
        "command": f"python scripts/measure_routing.py --model {args.model} --data ../shared/data --out {args.out}",
        "machine": {
            "processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        },
        "quality_tile_px": args.quality_tile,
        "time": times,
        "quality": quality,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    if not quality:
        return
    full = statistics.mean(row["psnr_y"] for row in quality if row["policy"] == "full")
    print(
        f"full: {full:.3f} dB\n| policy | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |\n|---|---|---|---|"
    )
    for name in policies(model):
        cells = []
        for share in SHARES:
            mine = [row for row in quality if row["policy"] == name and row["share"] == share]
            lost = full - statistics.mean(row["psnr_y"] for row in mine)
            cells.append(f"{lost:.3f} ({statistics.mean(row['realised'] for row in mine):.1%})")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
