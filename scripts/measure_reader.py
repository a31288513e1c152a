"""How fast training reads folders of PNGs as large as those of REDS, and how many threads a GPU would need.

    python scripts/measure_reader.py ../shared/data/train/clips/bmx-trees-0.mp4 [--workers 1 2]

Frames of a real clip are enlarged to 1280x720, with noise of two levels, as a camera leaves it: what a PNG costs depends on
what is in it. Nothing is kept in memory, so every crop of 15 frames decodes 15 files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from skipvsr.data.clips import Clip, read_frames
from skipvsr.data.crops import CropSampler, CropSettings
from skipvsr.video.images import write_image
from skipvsr.video.prefetch import map_ahead

WIDTH, HEIGHT, FRAMES = 1280, 720, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, help="a video of at least 15 frames")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--crops", type=int, default=24, help="crops of 15 frames read for each number of workers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        size = write_frames(arguments.clip, Path(folder))
        print(f"{FRAMES} PNGs of {WIDTH}x{HEIGHT}, {size / FRAMES / 2**20:.2f} MiB each")
        clips = [Clip("clip", Path(folder), FRAMES)]
        for workers in arguments.workers:
            measure(clips, workers, arguments.crops)


def write_frames(clip: Path, folder: Path) -> int:
    """The first frames of a clip as PNGs; returns the bytes of all."""
    noise = np.random.default_rng(0)
    for index, frame in enumerate(read_frames(clip, 0, FRAMES)):
        planes = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        large = F.interpolate(planes, (HEIGHT, WIDTH), mode="bicubic")[0].permute(1, 2, 0).numpy()
        noisy = large + noise.normal(0, 2, large.shape)
        write_image(folder / f"{index:04}.png", noisy.round().clip(0, 255).astype(np.uint8))
    return sum(file.stat().st_size for file in folder.iterdir())


def measure(clips: list[Clip], workers: int, crops: int) -> None:
    """Crops a second, and processor time of each, with so many threads."""
    sampler = CropSampler(clips, CropSettings(batch=1, frames=FRAMES, crop_px=48, cache_bytes=0))
    sampler.batch(0)
    started, busy = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(workers) as executor:
        for _ in map_ahead(sampler.batch, range(1, crops + 1), executor, depth=workers + 1):
            pass
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    print(
        f"{workers} workers: {crops / seconds:.2f} clips a second, {busy / crops:.3f} s of processor time each: "
        f"a GPU that takes G clips a second needs {busy / crops:.2f} x G workers"
    )


if __name__ == "__main__":
    main()
