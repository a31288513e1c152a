"""Kills `skipvsr upscale` at random moments with SIGKILL, goes on, and compares what comes out with what was never killed.

    python scripts/kill_jobs.py FOLDER [KILLS]

Three kinds of jobs, in turn: two files with half the budget; one with overlay and trace; one with half the budget and sound
that is converted. FOLDER is made, and must not exist. Ends with status 1 where anything differs or is left behind.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np

from skipvsr.evaluation.trace_file import read_trace

WIDTH, HEIGHT, FRAMES = 96, 64, 30


def make_clip(path: Path, seed: int) -> None:
    """A frame of noise that moves over another, with a tone."""
    draw = np.random.default_rng(seed)
    back, front = (np.kron(draw.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3)), np.ones((4, 4, 1))) for _ in range(2))
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"crf": "12"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for index in range(FRAMES):
            image = back.copy()
            image[16:48, index : index + 32] = front[16:48, :32]
            output.mux(video.encode(av.VideoFrame.from_ndarray(image.astype(np.uint8))))
        output.mux(video.encode(None))
        tone = (8000 * np.sin(np.arange(FRAMES * 1920) * (0.05 + 0.01 * seed))).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))


def digest(path: Path) -> str:
    """Of all frames with their times, of all packets of sound, or of a trace."""
    found = hashlib.sha256()
    if path.suffix == ".npz":
        for trunk in read_trace(path).trunks:
            found.update(f"{trunk.frame} {trunk.direction}".encode() + trunk.mask.numpy().tobytes())
        return found.hexdigest()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            found.update(f"{frame.pts} {frame.time_base}".encode() + frame.to_ndarray().tobytes())
    with av.open(str(path)) as container:
        for packet in container.demux(*container.streams.audio) if container.streams.audio else ():
            found.update(f"{packet.pts}".encode() + bytes(packet))
    return found.hexdigest()


def jobs(folder: Path, out: Path) -> dict[str, tuple[list[str], list[Path]]]:
    """By name: the words of each kind of job, and what it makes."""
    one, two = str(folder / "one.mkv"), str(folder / "two.mkv")
    dial = ["--model", "compact", "--window", "4", "--segment-length", "4", "--quiet"]
    half = [*dial, "--budget", "0.5"]
    extra = [out / "overlay.mkv", out / "trace.npz"]
    return {
        "two files": ([one, two, str(out / "both"), *half], [out / "both" / "one.mkv", out / "both" / "two.mkv"]),
        "overlay and trace": (
            [one, str(out / "one.mkv"), *half, "--overlay", str(extra[0]), "--trace", str(extra[1])],
            [out / "one.mkv", *extra],
        ),
        "converted sound": ([two, str(out / "two.mp4"), *half, "--audio", "aac"], [out / "two.mp4"]),
    }


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """The command line in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "skipvsr", "upscale", *words])


def main() -> int:
    """Kill until there were enough kills; say what was found."""
    folder, wanted = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    folder.mkdir(parents=True)
    for seed, name in enumerate(("one", "two")):
        make_clip(folder / f"{name}.mkv", seed)
    truth: dict[str, list[str]] = {}
    seconds: dict[str, float] = {}
    (folder / "whole").mkdir()
    for name, (words, made) in jobs(folder, folder / "whole").items():
        began = time.monotonic()
        if start(words).wait() != 0:
            print(f"{name}: failed without being killed")
            return 1
        seconds[name] = time.monotonic() - began
        truth[name] = [digest(path) for path in made]
    kills = midway = rounds = failures = 0
    while kills < wanted:
        out = folder / f"round-{rounds}"
        out.mkdir()
        for name, (words, made) in jobs(folder, out).items():
            tries = 0
            while True:
                process = start(words)
                # The longer it was tried, the longer it may run: at last it is done.
                limit = seconds[name] * (0.3 + 0.1 * tries + 0.8 * random.random())
                try:
                    status = process.wait(timeout=limit)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills, tries = kills + 1, tries + 1
                    midway += any(out.rglob("manifest.json"))
            # A job that was killed when all was done has its output, and is refused.
            whole = status == 0 or all(path.exists() for path in made)
            same = whole and [digest(path) for path in made] == truth[name]
            left = sorted(path.name for path in out.rglob(".*"))
            failures += not same or bool(left)
            print(
                f"{name}: {tries} kills, {'the same' if same else 'ANOTHER RESULT'}, left behind: {left or 'nothing'}"
            )
        rounds += 1
    print(f"{kills} kills, {midway} of them where finished parts were there; {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
