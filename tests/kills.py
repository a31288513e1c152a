"""Runs a job again and again, each time ending it as by kill -9 at some moment; the last time it may finish.

    python -m tests.kills SOURCE DESTINATION KILLS

A process of its own, because a process that has computed with several threads cannot be forked. Prints a JSON object a run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from skipvsr.upscale.job import upscale_video
from skipvsr.video.write import EncodeOptions

SETTINGS: dict[str, Any] = {
    "window": 2,
    "lookahead": 1,
    "segment_length": 2,
    "encoding": EncodeOptions(codec="ffv1", pixel_format="yuv444p"),
}


class Calls:
    """Counts the calls of functions of ours in all threads, and ends the process at a certain one."""

    def __init__(self, last: int | None) -> None:
        self.number = 0
        self.last = last
        threading.setprofile(self._count)
        sys.setprofile(self._count)

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and "skipvsr" in frame.f_code.co_filename:
            self.number += 1
            if self.number == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def run(source: Path, destination: Path, last: int | None) -> bool:
    """Run the job in a child process, up to a call if one is given; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            calls = Calls(last)
            upscale_video(source, destination, "bicubic", **SETTINGS)
            destination.with_suffix(".calls").write_text(str(calls.number))
        except BaseException:  # noqa: BLE001 - a child must not go on with its parent's work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a job failed")
    return os.WIFSIGNALED(status)


def frames_kept(destination: Path) -> int:
    """Frames of the checkpoint that is there."""
    manifest = destination.with_name(f".{destination.name}.skipvsr") / "manifest.json"
    return json.loads(manifest.read_text())["checkpoint"]["frames"] if manifest.exists() else 0


def main() -> None:
    """Kill, look, and go on."""
    source, destination, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    run(source, destination, None)
    destination.unlink()
    calls = int(destination.with_suffix(".calls").read_text())
    dice, killed = random.Random(0), 0
    while killed < kills:
        if run(source, destination, dice.randrange(20, calls)):
            killed += 1
            print(json.dumps({"killed": True, "frames": frames_kept(destination)}), flush=True)
        destination.unlink(missing_ok=True)
    run(source, destination, None)
    print(json.dumps({"killed": False, "frames": frames_kept(destination)}), flush=True)


if __name__ == "__main__":
    main()
