"""Read damaged copies of real files, thousands of them: each must give frames or one of our errors.

    python -m scripts.fuzz_readers --cases 3000 --seconds 900

Run from the root of the repository. Cases are numbered: the same number is the same case wherever FFmpeg encodes alike.
They run in child processes with limits on memory and time, so that crashes, hangs and greed are found too; each of them,
and every error that is not ours, is printed with its number, and `--keep DIR` keeps its file. The exit status is 1 if there
was any.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from skipvsr.errors import SkipVSRError
from skipvsr.video.images import read_image, write_image
from skipvsr.video.read import VideoReader
from tests.media import make_video, picture

CASE_SECONDS = 20
MEMORY_BYTES = 3 << 30
BATCH = 250
IMAGES = (".png", ".jpg", ".tif", ".bmp")
_FRAMES = 8
# Of a file that can be damaged further.
_MIN_BYTES = 8
# Limits of integers, where arithmetic goes wrong.
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)

Mutation = Callable[[bytearray, random.Random], None]


@dataclass(frozen=True)
class Result:
    """What became of a batch: how often which outcome, and what must not be, by the number of the case."""

    outcomes: Counter[str]
    faults: dict[int, str]


def make_seeds(folder: Path) -> list[Path]:
    """Small real files of all kinds that are read, in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = {"crf": "20", "g": "4", "bf": "2", "threads": "1"}
    sound = {"audio_codec": "aac", "audio_seconds": 0.3}
    base = Fraction(1, 25)
    make_video(folder / "h264.mp4", _FRAMES, options=groups, rotation=90, **sound)
    make_video(folder / "h264.mkv", _FRAMES, options=groups, subtitles=[(0, "words")], **sound)
    make_video(folder / "interlaced.mkv", _FRAMES, options={"crf": "20", "x264-params": "tff=1"})
    make_video(folder / "h264.ts", _FRAMES, options=groups, **sound)
    make_video(folder / "h264.flv", _FRAMES, options=groups, time_base=Fraction(1, 1000), **sound)
    make_video(folder / "mpeg4.avi", _FRAMES, codec="mpeg4", options={"g": "4"}, time_base=base)
    make_video(folder / "mpeg2.ts", _FRAMES, codec="mpeg2video", options={"g": "4", "bf": "2"}, time_base=base)
    make_video(folder / "vp9.webm", _FRAMES, codec="libvpx-vp9", options={"cpu-used": "8"})
    make_video(folder / "ffv1.mkv", 4, codec="ffv1", options={"slicecrc": "0"})
    make_video(folder / "raw.y4m", 4, codec="wrapped_avframe", options={"b": "1"}, time_base=base)
    for ending in IMAGES:
        write_image(folder / f"image{ending}", picture(0))
    return sorted(folder.iterdir())


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A damaged copy; never the same as the original."""
    while True:
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            if len(damaged) >= _MIN_BYTES:
                rng.choice(_MUTATIONS)(damaged, rng)
        if damaged and damaged != data:
            return bytes(damaged)


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 4, 30))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def _swap_blocks(data: bytearray, rng: random.Random) -> None:
    size = rng.randrange(1, 1 + len(data) // 3)
    first, second = sorted(rng.randrange(len(data) - size + 1) for _ in range(2))
    if second - first >= size:
        block = data[first : first + size]
        data[first : first + size] = data[second : second + size]
        data[second : second + size] = block


def _remove_block(data: bytearray, rng: random.Random) -> None:
    first = rng.randrange(len(data) - 1)
    del data[first : first + rng.randrange(1, 1 + len(data) // 4)]


def _repeat_block(data: bytearray, rng: random.Random) -> None:
    first = rng.randrange(len(data))
    data[first:first] = data[first : first + rng.randrange(1, 1 + len(data) // 4)]


def _extreme_number(data: bytearray, rng: random.Random) -> None:
    """A length, a count or a size that is not to be believed."""
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice(_EXTREMES) & ((1 << 8 * width) - 1)
    first = _place(data, rng)
    data[first : first + width] = value.to_bytes(width, rng.choice(("big", "little")))


def _noise(data: bytearray, rng: random.Random) -> None:
    first = _place(data, rng)
    size = rng.choice((4, 16, 200))
    data[first : first + size] = rng.randbytes(size)


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere; every other time in the header, or in the trailer, where most of the structure is."""
    if len(data) < 400 or rng.random() < 0.5:
        return rng.randrange(len(data))
    return rng.randrange(200) if rng.random() < 0.6 else len(data) - 1 - rng.randrange(400)


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits, _flip_bits, _truncate, _swap_blocks, _remove_block, _repeat_block, _extreme_number, _extreme_number, _noise,
)  # fmt: skip


def make_case(number: int, seeds: list[Path], folder: Path) -> Path:
    """The file of a case."""
    rng = random.Random(number)
    seed = rng.choice(seeds)
    path = folder / f"case{seed.suffix}"
    path.write_bytes(mutate(seed.read_bytes(), rng))
    return path


def read_case(path: Path, number: int = 0) -> str:
    """Read a file to its end; returns "frames" or the name of our error. Every third case asks for a part.

    Raises:
        Whatever is not ours: a fault.
    """
    try:
        if path.suffix in IMAGES:
            read_image(path)
            return "frames"
        start = 0.1 if number % 3 == 0 else None
        with VideoReader(path, start) as reader:
            last = None
            for frame in reader:
                if last is not None and frame.pts <= last:
                    raise ValueError(f"a frame at {frame.pts} follows one at {last}")
                last = frame.pts
    except SkipVSRError as error:
        if "\n" in str(error):
            raise ValueError("a message of several lines") from error
        return type(error).__name__
    return "frames"


def run_cases(numbers: range, seeds: list[Path], folder: Path, report: Callable[[str], object]) -> None:
    """Run cases in this process, each within its time; reports "start N", then "N OUTCOME"."""
    for number in numbers:
        path = make_case(number, seeds, folder)
        report(f"start {number}")
        signal.alarm(CASE_SECONDS)
        try:
            outcome = read_case(path, number)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            outcome = f"FAULT {type(error).__name__}: {' '.join(str(error).split())}"
        signal.alarm(0)
        report(f"{number} {outcome}")


def run_batch(numbers: range, seeds: Path, keep: Path | None = None) -> Result:
    """Run cases in child processes within limits; after a crash or a hang the next case is in a new one."""
    result = Result(Counter(), {})
    first = numbers.start
    with tempfile.TemporaryDirectory() as folder:
        while first < numbers.stop:
            command = [sys.executable, "-m", "scripts.fuzz_readers", "--child", str(first), str(numbers.stop)]
            child = subprocess.run([*command, str(seeds), folder], capture_output=True, text=True, check=False)
            started = first - 1
            for line in child.stdout.splitlines():
                word, _, rest = line.partition(" ")
                if word == "start":
                    started = int(rest)
                elif rest.startswith("FAULT"):
                    result.faults[int(word)] = rest
                    _keep(keep, int(word), seeds, Path(folder))
                else:
                    result.outcomes[rest] += 1
            if child.returncode > 0 or (child.returncode and started < first):
                raise RuntimeError(f"the fuzzer itself failed: {child.stderr[-1000:]}")
            if child.returncode < 0:
                reason = "took too long" if child.returncode == -signal.SIGALRM else f"signal {-child.returncode}"
                result.faults[started] = f"FAULT {reason}: {child.stderr[-300:]}"
                _keep(keep, started, seeds, Path(folder))
            first = started + 1 if child.returncode else numbers.stop
    return result


def _keep(keep: Path | None, number: int, seeds: Path, folder: Path) -> None:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        path = make_case(number, sorted(seeds.iterdir()), folder)
        shutil.copy(path, keep / f"{number}{path.suffix}")


def _child(first: int, stop: int, seeds: Path, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    run_cases(range(first, stop), sorted(seeds.iterdir()), folder, lambda line: print(line, flush=True))


def main() -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Read damaged copies of real files.")
    parser.add_argument("--cases", type=int, default=2000, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (%(default)s)")
    parser.add_argument("--seconds", type=float, default=600, help="no new batch after so long (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the files of what must not be")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        first, stop, seeds, folder = args.child
        _child(int(first), int(stop), Path(seeds), Path(folder))
        return 0
    outcomes: Counter[str] = Counter()
    faults: dict[int, str] = {}
    began, number, end = time.monotonic(), args.first, args.first + args.cases
    with tempfile.TemporaryDirectory() as folder:
        make_seeds(Path(folder))
        while number < end and time.monotonic() - began < args.seconds:
            batch = range(number, min(number + BATCH, end))
            result = run_batch(batch, Path(folder), args.keep)
            outcomes.update(result.outcomes)
            faults.update(result.faults)
            number = batch.stop
            for case in sorted(result.faults):
                print(f"case {case}: {result.faults[case]}")
    print(f"{number - args.first} cases: {dict(outcomes)}; {len(faults)} that must not be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
