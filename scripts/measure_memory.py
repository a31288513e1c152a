"""Measure the peak memory of `skipvsr upscale` against what it says before the start.

    python scripts/measure_memory.py --out docs/data/memory.json

A fresh process for each size; videos of noise (nothing is easier than it looks), as long as a window with its lookahead and two
frames more, with the packaged model and the default encoder.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

import skipvsr
from skipvsr.inference.machine import describe_machine
from skipvsr.inference.windows import DEFAULT_LOOKAHEAD, Windows, default_window
from skipvsr.upscale.plan import memory_bytes
from skipvsr.video.frame import Frame
from skipvsr.video.write import VideoWriter

SIZES = ((160, 90), (320, 180), (640, 360), (960, 540), (1280, 720))
_PROGRAM = (
    "import sys, re, skipvsr\n"
    "skipvsr.upscale_video(sys.argv[1], sys.argv[2], 'compact')\n"
    "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
)


def make_video(path: Path, width: int, height: int, frames: int) -> None:
    """A video of noise."""
    random = np.random.default_rng(0)
    with VideoWriter(path, width, height, frame_rate=Fraction(25)) as writer:
        for number in range(frames):
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            writer.write(Frame(pixels, number, None, Fraction(1, 25)))


def measure(width: int, height: int) -> dict[str, int]:
    """What was foreseen and what was taken, in bytes."""
    config = skipvsr.load_model("compact").config
    windows = Windows(default_window(config, height, width), DEFAULT_LOOKAHEAD)
    frames = windows.window + windows.lookahead + 2
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.mp4"
        make_video(source, width, height, frames)
        command = [sys.executable, "-c", _PROGRAM, str(source), str(Path(folder) / "out.mp4")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+", said)
    assert found is not None
    return {
        "width": width, "height": height, "window": windows.window, "frames": frames,
        "foreseen_bytes": memory_bytes(config, height, width, windows), "peak_bytes": 1024 * int(found[0]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure peak memory against the estimate.")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [measure(*size) for size in SIZES]
    result = {
        "command": "python scripts/measure_memory.py --out docs/data/memory.json",
        "machine": describe_machine(),
        "rows": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print("| frames | window | foreseen, GB | peak, GB |\n|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['width']}x{row['height']} | {row['window']} | {row['foreseen_bytes'] / 1e9:.2f} | "
            f"{row['peak_bytes'] / 1e9:.2f} |"
        )


if __name__ == "__main__":
    main()
