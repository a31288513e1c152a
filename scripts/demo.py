"""What `make demo` runs: upscale the clip that comes with the project, and show it beside bicubic.

    python scripts/demo.py [--out demo]

Writes OUT/demo-x4.mp4 and OUT/side-by-side.png (bicubic | skipvsr, one row a scene).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import skipvsr
from skipvsr.cli.upscale import Bar
from skipvsr.models.resize import bicubic_upsample
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.video.images import write_image
from skipvsr.video.open import read_clip

CLIP = Path(__file__).parent.parent / "assets" / "demo.mp4"
SHOWN_FRAMES = (12, 36, 60)


def side_by_side(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Frames (H, W, 3) and (4H, 4W, 3) uint8 -> (4H, 8W + 8, 3): bicubic, a white line, ours."""
    bicubic = to_array(bicubic_upsample(to_tensor(small)), small.dtype)
    line = np.full((large.shape[0], 8, 3), 255, np.uint8)
    return np.concatenate((bicubic, line, large), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Upscale the demo clip and show it beside bicubic.")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    video, picture = args.out / "demo-x4.mp4", args.out / "side-by-side.png"

    print(f"Upscaling {CLIP.name} with the packaged model 'compact' on {torch.get_num_threads()} threads")
    display = Bar()
    report = skipvsr.upscale_video(CLIP, video, "compact", overwrite=True, on_progress=display.update)
    display.close()
    display.report(report)

    small, large = read_clip(CLIP), read_clip(video)
    rows = [side_by_side(small[index], large[index]) for index in SHOWN_FRAMES]
    write_image(picture, np.concatenate(rows, axis=0))
    print(f"\nThe video:                        {video}\nSide by side (bicubic | skipvsr):  {picture}")


if __name__ == "__main__":
    main()
