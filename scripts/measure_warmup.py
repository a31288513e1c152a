"""Measure what splitting a scene costs in quality, by the number of warm-up frames before the split.

    python scripts/measure_warmup.py --data ../shared/data --out docs/data/warmup.json

A scene that is split goes on in the second part from warm-up frames in the place of the forward state of all frames before.
For the packaged model, on the scenes of the validation clips (antialiased bicubic x1/4): the frames after each split against
those of the unsplit scene, and both against the ground truth. The frames right after a split are those that lose most, so only
`AFTER` of them are counted.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from torch import Tensor

import skipvsr
from skipvsr.evaluation.metrics import psnr, psnr_y, quantize
from skipvsr.inference.streaming import upscale_stream
from skipvsr.inference.windows import Windows
from skipvsr.models.resize import bicubic_downsample
from skipvsr.upscale.frames import to_tensor
from skipvsr.video.open import read_clip

COMMAND = "python scripts/measure_warmup.py --data ../shared/data --out docs/data/warmup.json"
CLIPS = ("parkour-long", "blocks-static")
WARMUPS = (0, 1, 2, 4, 8, 12, 16, 24, 32)
SPLITS = (36, 44)
LONG_SPLITS = (36, 52, 68, 80)
AFTER = 8
WINDOWS = Windows(8, 4)


def lr_gt_clip(path: Path) -> tuple[Tensor, Tensor]:
    """A validation clip as LR and HR (T, 3, H, W), sides cut to multiples of 4."""
    gt = torch.stack([to_tensor(frame) for frame in read_clip(path)])
    gt = gt[..., : gt.shape[-2] // 4 * 4, : gt.shape[-1] // 4 * 4]
    return quantize(bicubic_downsample(gt)), gt


def upscaled(lr: Tensor, model: skipvsr.SkipVSR) -> Tensor:
    """The results (T, 3, 4H, 4W) of a scene."""
    return torch.stack(list(upscale_stream(lr, model, WINDOWS))).clamp(0, 1)


def measure_clip(path: Path, model: skipvsr.SkipVSR) -> list[dict]:
    """One row a split and warm-up."""
    lr, gt = lr_gt_clip(path)
    exact = upscaled(lr, model)
    rows = []
    for split in LONG_SPLITS if len(lr) > max(LONG_SPLITS) + AFTER else SPLITS:
        wanted = slice(split, split + AFTER)
        for warmup in WARMUPS:
            # Windows are counted from the first frame, so that lookahead differs too, as it does in a real task.
            part = lr[split - warmup : split + AFTER + WINDOWS.lookahead]
            result = upscaled(part, model)[warmup : warmup + AFTER]
            each = psnr_y(exact[wanted], gt[wanted]) - psnr_y(result, gt[wanted])
            rows.append(
                {
                    "clip": path.stem,
                    "split": split,
                    "warmup": warmup,
                    "lost_db": each.mean().item(),
                    "lost_db_first_frame": each[0].item(),
                    "psnr_to_exact": psnr(result, exact[wanted], 1.0).clamp(max=99).mean().item(),
                    "max_levels": (255 * (quantize(result) - quantize(exact[wanted])).abs().max()).round().item(),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure splits of a scene against the unsplit scene.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = skipvsr.load_model("compact")
    rows = [row for name in CLIPS for row in measure_clip(args.data / "val" / f"{name}.mp4", model)]
    machine = {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    result = {"command": COMMAND, "model": "compact", "machine": machine, "frames_after": AFTER, "splits": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name in CLIPS:
        print(f"{name}\n| warm-up | lost, dB | lost in the first frame | PSNR to exact | largest difference, levels |")
        print("|---|---|---|---|---|")
        for warmup in WARMUPS:
            mine = [row for row in rows if row["clip"] == name and row["warmup"] == warmup]
            lost, first, same = (
                sum(row[key] for row in mine) / len(mine) for key in ("lost_db", "lost_db_first_frame", "psnr_to_exact")
            )
            largest = max(row["max_levels"] for row in mine)
            print(f"| {warmup} | {lost:.4f} | {first:.4f} | {same:.1f} | {largest:.0f} |")


if __name__ == "__main__":
    main()
