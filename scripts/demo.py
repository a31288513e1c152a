"""What `make demo` runs: upscale the two clips of the project, with all blocks and at half the budget, and compare them.

    python scripts/demo.py [--out demo]

Writes to OUT, for each CLIP (horsejump, demo): CLIP-x4.mp4 and CLIP-x4-half.mp4; CLIP-depth.mp4, in which colour shows the
ratio of residual blocks that ran in each tile; and, for both, comparison.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from demo_page import Row, draw_page
from make_demo_clip import FRAMES, HORSEJUMP, SCENES, TARGET, views
from torch import Tensor

import skipvsr
from skipvsr.cli.upscale_display import Bar
from skipvsr.evaluation.metrics import psnr_y
from skipvsr.models.resize import bicubic_upsample
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.upscale.job import UpscaleReport
from skipvsr.video.open import read_clip

MODEL = "compact"
HALF = 0.5
MEASURED_FRAMES = 3
# Half of the blocks take more than half of the time: flow and reconstruction always run, and files are read and written.
PASSES = 1.0 + 0.8 + 0.8
SCENE_NAMES = ("a cup of coffee", "an astronaut", "a rocket")


@dataclass(frozen=True)
class Result:
    """A clip upscaled in both ways: images (T, H, W, 3), and the reports (all blocks, half the budget)."""

    images: dict[str, np.ndarray]
    reports: tuple[UpscaleReport, UpscaleReport]


def main() -> None:
    parser = argparse.ArgumentParser(description="Upscale the demo clips, with all blocks and at half the budget.")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where to write (%(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(
        f"Upscaling {HORSEJUMP.name} (a real moving scene) and {TARGET.name} (camera moves over photographs) with the"
    )
    print(
        f"packaged model '{MODEL}' on {torch.get_num_threads()} threads: all blocks, half the budget, and the depth map."
    )
    seconds = estimated_seconds()
    print(
        f"This takes about {seconds:.0f} s (a rough estimate from the time of {MEASURED_FRAMES} frames).\n", flush=True
    )

    real, photographs = upscale(HORSEJUMP, args.out), upscale(TARGET, args.out)
    quality = {
        name: mean(psnr_y(to_tensor(image), gt).item() for image, gt in zip(images, ground_truth(), strict=True))
        for name, images in photographs.images.items()
        if name != "depth"
    }
    page = args.out / "comparison.png"
    draw_page(page, rows(real, photographs), half=HALF)
    print_table(real, photographs, quality)
    print(f"\nThe videos are in {args.out}. To look at first: {page}")


def estimated_seconds() -> float:
    """How long the demo will take, from a few frames of the real clip."""
    model = skipvsr.load_model(MODEL)
    clips = [read_clip(path) for path in (HORSEJUMP, TARGET)]
    few = clips[0][:MEASURED_FRAMES]
    list(skipvsr.upscale_frames(few[:1], model))  # the first frame also loads and prepares
    started = time.monotonic()
    list(skipvsr.upscale_frames(few, model))
    seconds_per_pixel = (time.monotonic() - started) / few[..., 0].size
    return PASSES * seconds_per_pixel * sum(clip[..., 0].size for clip in clips)


def upscale(source: Path, out: Path) -> Result:
    """Upscale a clip with all blocks, at half the budget, and again at half the budget with the depth map."""
    whole, half, depth = (out / f"{source.stem}-{name}.mp4" for name in ("x4", "x4-half", "depth"))
    reports: list[UpscaleReport] = []
    for video, budget in ((whole, None), (half, HALF)):
        display = Bar()
        # Without the depth map, so that both are timed alike.
        report = skipvsr.upscale_video(source, video, MODEL, budget=budget, overwrite=True, on_progress=display.update)
        display.close()
        display.report(report)
        reports.append(report)
    work = out / "work.mp4"
    skipvsr.upscale_video(source, work, MODEL, budget=HALF, overlay=depth, overwrite=True)
    work.unlink()
    images = {"bicubic": np.stack([bicubic(image) for image in read_clip(source)])}
    images |= {"full": read_clip(whole), "half": read_clip(half), "depth": read_clip(depth)}
    return Result(images, (reports[0], reports[1]))


def rows(real: Result, photographs: Result) -> list[Row]:
    """The middle frames of the real scene and of each photograph."""
    middle = len(real.images["full"]) // 2
    found = [Row("A real moving scene: horse jump", {name: clip[middle] for name, clip in real.images.items()}, {})]
    truth = list(ground_truth())
    for index, name in enumerate(SCENE_NAMES):
        at = index * FRAMES + FRAMES // 2
        images = {name: clip[at] for name, clip in photographs.images.items()}
        scores = {name: psnr_y(to_tensor(image), truth[at]).item() for name, image in images.items() if name != "depth"}
        found.append(Row(f"A camera move over a photograph: {name}", images, scores))
    return found


def ground_truth() -> Iterator[Tensor]:
    """The frames of which the photographs' clip is a quarter, (3, 320, 448) in [0, 1]."""
    for photograph, start, end, _ in SCENES:
        yield from views(photograph(), start, end)


def print_table(real: Result, photographs: Result, quality: dict[str, float]) -> None:
    """Quality, work and time; the real scene has no ground truth at this size."""
    print(f"\n{'':36}{'luma PSNR':>12}{'blocks':>9}{'GMAC/frame':>12}{'s/frame':>9}")
    print(f"{f'{TARGET.stem}, bicubic':36}{quality['bicubic']:>9.2f} dB")
    for clip, result in ((TARGET.stem, photographs), (HORSEJUMP.stem, real)):
        for name, report in zip(("full", "half"), result.reports, strict=True):
            label = f"{clip}, all blocks" if name == "full" else f"{clip}, --budget {HALF}"
            score = f"{quality[name]:.2f} dB" if result is photographs else "-"
            print(
                f"{label:36}{score:>12}{report.active_ratio:>9.0%}{report.macs_per_frame / 1e9:>12.2f}"
                f"{report.seconds / report.frames:>9.3f}"
            )


def bicubic(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (4H, 4W, 3)."""
    return to_array(bicubic_upsample(to_tensor(image)), image.dtype)


if __name__ == "__main__":
    main()
