"""Simulate how a film and a catalogue scale over many workers, and say what becomes the limit.

    python scripts/simulate_scale.py --out docs/data/scale.json --figure docs/figures/scale.png

A simulation of events: readers decode chunks in turn, workers take a chunk whenever they are idle, frames and packets pass
through the network of the reader's machine, each film is joined at its end. `ASSUMPTIONS` tells the times that were measured
from those that were not. What a job waits for is found by making each part free in turn: the limit is the part without which
the job would be shortest.
"""

from __future__ import annotations

import argparse
import heapq
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

COMMAND = "python scripts/simulate_scale.py --out docs/data/scale.json --figure docs/figures/scale.png"
WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SCENES_SEED = 0
MEAN_SCENE_SECONDS = 5.0
FRAME_RATE = 24
PARTS = ("decoding", "network", "start of workers", "longest chunk", "joining")


@dataclass(frozen=True)
class Times:
    """What things take.

    Args:
        frames_per_second: of one worker.
        decode_frames_per_second: of one reader, scene detection included.
        frame_bytes: of a low-resolution frame as it travels.
        packet_bytes: of an encoded frame.
        network_bytes_per_second: out of, and into, a reader's machine.
        start_seconds: of a worker, until it is ready.
        chunk_seconds: that each chunk costs beside its frames.
        join_seconds, join_frames_per_second: of a film.
        chunk_frames, warmup: of chunks.
        readers: that decode at the same time.
    """

    frames_per_second: float
    decode_frames_per_second: float
    frame_bytes: int
    packet_bytes: int
    network_bytes_per_second: float
    start_seconds: float
    chunk_seconds: float
    join_seconds: float
    join_frames_per_second: float
    chunk_frames: int
    warmup: int
    readers: int


# Chunks of 640x360 frames have as many frames with `compact`.
_COMMON = Times(
    frames_per_second=0.81,
    decode_frames_per_second=95,
    frame_bytes=640 * 360 * 3,
    packet_bytes=442_000,
    network_bytes_per_second=1_250_000_000,
    start_seconds=20,
    chunk_seconds=0.5,
    join_seconds=1,
    join_frames_per_second=500,
    chunk_frames=235,
    warmup=16,
    readers=1,
)
ASSUMPTIONS = {
    "frames_per_second": "two cores: 2.46 CPU seconds a frame measured (`compact`, 640x360, one thread, every block), halved; "
    "GPU: 25 frames a second, not measured",
    "decode_frames_per_second": "95 a CPU second measured (H.264 640x360, to exact RGB, scene detection), one core",
    "frame_bytes": "640x360 RGB, 8 bits",
    "packet_bytes": "0.12 bytes a pixel of 2560x1440, as `--dry-run` says",
    "network_bytes_per_second": "10 Gbit/s, assumed",
    "start_seconds": "of torch and a worker, assumed",
    "chunk_seconds": "of a new encoder and the exchange, assumed",
    "join": "1 s and 500 frames a second, assumed (it copies packets)",
    "readers": "one for the film; for the catalogue one for every four workers, one at least",
}
WORKERS_OF = {"two cores": 0.81, "a GPU (assumed)": 25.0}


@dataclass(frozen=True)
class Job:
    """Films, each a list of the lengths of its chunks (frames, and whether a chunk begins within a scene)."""

    name: str
    films: list[list[tuple[int, bool]]]


def cut(scenes: list[int], length: int) -> list[tuple[int, bool]]:
    """Chunks of a film with scenes of so many frames, by the rule of cluster/chunks.py (a test compares the two)."""
    chunks: list[tuple[int, bool]] = []
    count, within = 0, False
    for scene in scenes:
        if count and 2 * count >= length:
            chunks.append((count, within))
            count, within = 0, False
        left = scene
        while count + left > length:
            left -= length - count
            chunks.append((length, within))
            count, within = 0, True
        count += left
    return [*chunks, (count, within)]


def scenes_of(frames: int, dice: np.random.Generator) -> list[int]:
    """Scenes of random lengths (exponential, half a second at least) of a film of so many frames."""
    scenes: list[int] = []
    while sum(scenes) < frames:
        scene = max(FRAME_RATE // 2, round(dice.exponential(MEAN_SCENE_SECONDS) * FRAME_RATE))
        scenes.append(min(scene, frames - sum(scenes)))
    return scenes


def simulate(job: Job, workers: int, times: Times) -> float:
    """Seconds until the last film is joined."""
    idle = [times.start_seconds] * workers
    heapq.heapify(idle)
    readers = [0.0] * times.readers
    sent = [0.0] * times.readers
    # When earlier chunks were done: decoding runs ahead of the workers by a quarter of them only.
    ahead = workers + max(1, workers // 4)
    ends: list[float] = []
    finished = 0.0
    for film in job.films:
        reader = int(np.argmin(readers))
        last = 0.0
        for frames, within in film:
            total = frames + (times.warmup if within else 0)
            begin = readers[reader]
            if len(ends) >= ahead:
                # The chunk `ahead` places before must be done.
                begin = max(begin, heapq.heappop(ends))
            decoded = begin + frames / times.decode_frames_per_second
            readers[reader] = decoded
            sent[reader] = max(sent[reader], decoded) + total * times.frame_bytes / times.network_bytes_per_second
            start = max(heapq.heappop(idle), sent[reader])
            done = start + times.chunk_seconds + total / times.frames_per_second
            heapq.heappush(idle, done)
            heapq.heappush(ends, done)
            last = max(last, done + frames * times.packet_bytes / times.network_bytes_per_second)
        joined = last + times.join_seconds + sum(frames for frames, _ in film) / times.join_frames_per_second
        finished = max(finished, joined)
    return finished


def without(part: str, times: Times, job: Job) -> tuple[Times, Job]:
    """The job with one part made free."""
    if part == "decoding":
        return replace(times, decode_frames_per_second=1e12), job
    if part == "network":
        return replace(times, network_bytes_per_second=1e18), job
    if part == "start of workers":
        return replace(times, start_seconds=0.0), job
    if part == "joining":
        return replace(times, join_seconds=0.0, join_frames_per_second=1e12), job
    # Chunks of an eighth of the length, with the same frames in all.
    shorter = [
        [
            (part, within)
            for frames, within in film
            for part in np.diff(np.linspace(0, frames, 9, dtype=int)).tolist()
            if part
        ]
        for film in job.films
    ]
    return replace(times, chunk_seconds=times.chunk_seconds / 8, warmup=times.warmup // 8), replace(job, films=shorter)


def limit(job: Job, workers: int, times: Times, seconds: float) -> str:
    """The part without which the job would be shortest; "workers" where more of them would help more."""
    best, name = simulate(job, 2 * workers, times), "workers"
    for part in PARTS:
        freed, other = without(part, times, job)
        shorter = simulate(other, workers, freed)
        if shorter < 0.98 * min(best, seconds):
            best, name = shorter, part
    return name


def jobs() -> list[Job]:
    """A film of two hours, and 10,000 clips of 5 to 60 seconds."""
    dice = np.random.default_rng(SCENES_SEED)

    def film_of(seconds: float) -> list[tuple[int, bool]]:
        return cut(scenes_of(round(seconds * FRAME_RATE), dice), _COMMON.chunk_frames)

    film = Job("a film of two hours", [film_of(2 * 3600)])
    lengths = np.exp(dice.uniform(np.log(5), np.log(60), 10_000))
    return [film, Job("10,000 clips", [film_of(seconds) for seconds in lengths])]


def scaled(job: Job, workers: int, speed: float) -> Times:
    """The times of so many workers of a kind."""
    readers = 1 if len(job.films) == 1 else max(1, workers // 4)
    return replace(_COMMON, frames_per_second=speed, readers=readers)


def draw(rows: list[dict], figure: Path) -> None:
    """Speed-up over one worker, for each job and kind of worker, beside the ideal."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    canvas, places = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True, layout="constrained")
    for place, name in zip(places, dict.fromkeys(row["job"] for row in rows), strict=True):
        place.plot(WORKERS, WORKERS, color="0.6", linestyle=":", label="ideal")
        for kind, marker in zip(WORKERS_OF, "os", strict=True):
            mine = [row for row in rows if row["job"] == name and row["worker"] == kind]
            place.plot([row["workers"] for row in mine], [row["speed_up"] for row in mine], marker=marker, label=kind)
        place.set(xscale="log", yscale="log", title=name, xlabel="workers")
        place.grid(alpha=0.3)
        for axis in (place.xaxis, place.yaxis):
            axis.set_major_formatter("{x:,.0f}")
    places[0].set_ylabel("times faster than one worker")
    places[0].legend(title="a worker is")
    canvas.savefig(figure, dpi=110)


def hours(seconds: float) -> str:
    """A duration in words."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate how work scales over many workers.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for job in jobs():
        for kind, speed in WORKERS_OF.items():
            alone = simulate(job, 1, scaled(job, 1, speed))
            for workers in WORKERS:
                times = scaled(job, workers, speed)
                seconds = simulate(job, workers, times)
                row = {"job": job.name, "worker": kind, "workers": workers, "seconds": seconds}
                rows.append({**row, "speed_up": alone / seconds, "limit": limit(job, workers, times, seconds)})
    result = {"command": COMMAND, "assumptions": ASSUMPTIONS, "times": asdict(_COMMON), "rows": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, args.figure)
    for job in dict.fromkeys(row["job"] for row in rows):
        print(f"\n{job}\n\n| workers | two cores each | limit | a GPU each (assumed) | limit |\n|---|---|---|---|---|")
        for workers in WORKERS:
            cells = [row for row in rows if row["job"] == job and row["workers"] == workers]
            print(f"| {workers:,} | " + " | ".join(f"{hours(row['seconds'])} | {row['limit']}" for row in cells) + " |")


if __name__ == "__main__":
    main()
