"""What `make demo` runs: upscale the clip that comes with the project, whole and at half the budget, and show what came of it.

    python scripts/demo.py [--out demo]

Writes to OUT: demo-x4.mp4 and demo-x4-half.mp4; demo-depth.mp4, in which colour says how deep the network went (yellow: all
blocks, dark: none); and side-by-side.png, a row a scene: bicubic | skipvsr | skipvsr at half the budget | depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from make_demo_clip import SCENES, TARGET, views
from torch import Tensor

import skipvsr
from skipvsr.cli.upscale import Bar
from skipvsr.evaluation.metrics import psnr_y
from skipvsr.models.resize import bicubic_upsample
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.upscale.job import UpscaleReport
from skipvsr.video.images import write_image
from skipvsr.video.open import read_clip

SHOWN_FRAMES = (12, 36, 60)
HALF = 0.5


def ground_truth() -> Iterator[Tensor]:
    """What the clip was before it was made small: (3, 320, 448) in [0, 1]."""
    for photograph, start, end, _ in SCENES:
        yield from views(photograph(), start, end)


def side_by_side(*pictures: np.ndarray) -> np.ndarray:
    """Frames (H, W, 3) uint8 in a row, with white lines between them."""
    line = np.full((pictures[0].shape[0], 8, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (line, picture)]
    return np.concatenate(parts[1:], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Upscale the demo clip, whole and at half the budget.")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    whole, half, depth = (args.out / name for name in ("demo-x4.mp4", "demo-x4-half.mp4", "demo-depth.mp4"))
    picture = args.out / "side-by-side.png"

    print(f"Upscaling {TARGET.name} with the packaged model 'compact' on {torch.get_num_threads()} threads")
    reports: list[UpscaleReport] = []
    for video, budget in ((whole, None), (half, HALF)):
        display = Bar()
        # Without the overlay, so that both are timed alike.
        report = skipvsr.upscale_video(
            TARGET, video, "compact", budget=budget, overwrite=True, on_progress=display.update
        )
        display.close()
        display.report(report)
        reports.append(report)
    skipvsr.upscale_video(TARGET, args.out / "work.mp4", "compact", budget=HALF, overlay=depth, overwrite=True)
    (args.out / "work.mp4").unlink()

    clips = {"bicubic": np.stack([bicubic(frame) for frame in read_clip(TARGET)])}
    clips |= {"full": read_clip(whole), "half": read_clip(half), "depth": read_clip(depth)}
    truth = list(ground_truth())
    quality = {
        name: mean(psnr_y(to_tensor(frame), gt).item() for frame, gt in zip(frames, truth, strict=True))
        for name, frames in clips.items()
        if name != "depth"
    }
    write_image(
        picture, np.concatenate([side_by_side(*(clip[index] for clip in clips.values())) for index in SHOWN_FRAMES])
    )
    print(f"\n{'':24}{'luma PSNR':>12}{'blocks':>9}{'GMAC/frame':>12}{'s/frame':>9}")
    print(f"{'bicubic':24}{quality['bicubic']:>9.2f} dB")
    for name, report in zip(("full", "half"), reports, strict=True):
        label = "skipvsr" if name == "full" else f"skipvsr --budget {HALF}"
        print(
            f"{label:24}{quality[name]:>9.2f} dB{report.active_ratio:>9.0%}{report.macs_per_frame / 1e9:>12.2f}"
            f"{report.seconds / report.frames:>9.3f}"
        )
    print(f"\nThe videos: {whole}, {half}, {depth}\nbicubic | full | half | depth: {picture}")


def bicubic(small: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (4H, 4W, 3)."""
    return to_array(bicubic_upsample(to_tensor(small)), small.dtype)


if __name__ == "__main__":
    main()
