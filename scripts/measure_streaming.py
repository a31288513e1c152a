"""Measure what windows cost in quality, and that memory does not grow with length.

    python scripts/measure_streaming.py --data ../shared/data --out docs/data/streaming.json

Quality: luma PSNR of the streamed result against the ground truth and against the whole-clip result, for each lookahead,
on the validation clips (antialiased bicubic x1/4), with the packaged model. Memory: peak resident bytes of a fresh
process that streams 100 and 1,000 synthetic frames of 160x120.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
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

LOOKAHEADS = (0, 1, 2, 4, 6, 8, 12, 16)
WINDOW = 8
LENGTHS = (100, 1000)


def lr_gt_clip(path: Path) -> tuple[Tensor, Tensor]:
    """A validation clip as LR and HR (T, 3, H, W), sides cut to multiples of 4."""
    gt = torch.stack([to_tensor(frame) for frame in read_clip(path)])
    gt = gt[..., : gt.shape[-2] // 4 * 4, : gt.shape[-1] // 4 * 4]
    return quantize(bicubic_downsample(gt)), gt


def measure_quality(data: Path, model: skipvsr.SkipVSR) -> list[dict]:
    """One row a clip and lookahead."""
    rows = []
    for path in sorted((data / "val").glob("*.mp4")):
        lr, gt = lr_gt_clip(path)
        with torch.inference_mode():
            whole = model(lr[None])[0].clamp(0, 1)
        for lookahead in LOOKAHEADS:
            streamed = torch.stack(list(upscale_stream(lr, model, Windows(WINDOW, lookahead)))).clamp(0, 1)
            # Frames whose backward recurrence could reach the end of the clip are exact, and would flatter the mean.
            cut = slice(0, max(WINDOW, (len(lr) - lookahead - 1) // WINDOW * WINDOW))
            rows.append(
                {
                    "clip": path.stem,
                    "lookahead": lookahead,
                    "psnr_y": psnr_y(streamed[cut], gt[cut]).mean().item(),
                    "psnr_y_whole": psnr_y(whole[cut], gt[cut]).mean().item(),
                    "psnr_to_whole": psnr(streamed[cut], whole[cut], 1.0).clamp(max=99).mean().item(),
                }
            )
    return rows


def measure_memory(frames: int) -> int:
    """Peak resident bytes of a fresh process that streams so many frames."""
    program = (
        "import re, sys, numpy as np, skipvsr\n"
        "random = np.random.default_rng(0)\n"
        "picture = random.integers(0, 255, (240, 320, 3), dtype=np.uint8)\n"
        "n = int(sys.argv[1])\n"
        "frames = (picture[t % 100 : t % 100 + 120, t % 90 : t % 90 + 160] for t in range(n))\n"
        "assert sum(1 for _ in skipvsr.upscale_frames(frames, 'compact')) == n\n"
        # Not getrusage: its maximum includes the process that this one was forked from.
        "print(1024 * int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(frames)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure streaming against the whole clip.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = skipvsr.load_model("compact")
    rows = measure_quality(args.data, model)
    result = {
        "command": "python scripts/measure_streaming.py --data ../shared/data --out docs/data/streaming.json",
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "window": WINDOW,
        "quality": rows,
        "peak_bytes": {str(length): measure_memory(length) for length in LENGTHS},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print("| lookahead | luma PSNR | lost against the whole clip | PSNR to the whole-clip result |\n|---|---|---|---|")
    for lookahead in LOOKAHEADS:
        mine = [row for row in rows if row["lookahead"] == lookahead]
        score, whole, same = (
            sum(row[key] for row in mine) / len(mine) for key in ("psnr_y", "psnr_y_whole", "psnr_to_whole")
        )
        print(f"| {lookahead} | {score:.3f} | {whole - score:.3f} | {same:.1f} |")
    print(result["peak_bytes"])


if __name__ == "__main__":
    main()
