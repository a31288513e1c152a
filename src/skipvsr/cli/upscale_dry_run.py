"""`skipvsr upscale --dry-run`: what each file would take. Nothing is written."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from skipvsr.cli.show import print_event, progress_bar
from skipvsr.cli.upscale_display import PIPE, about, clock
from skipvsr.cli.upscale_options import job_options
from skipvsr.errors import ConfigError, SkipVSRError

if TYPE_CHECKING:
    from skipvsr.upscale.estimate import Estimate

_MIB, _GIB = 1 << 20, 1 << 30
# Less than so far from the target is not worth a word.
_SHORT = 0.98


def dry_run(args: argparse.Namespace) -> None:
    """Say what would be done with each file."""
    from skipvsr.checkpoints.load import load_any_model
    from skipvsr.upscale.batch import Task, is_batch, plan
    from skipvsr.upscale.choose import AUTO_MODEL
    from skipvsr.upscale.estimate import estimate

    if PIPE in args.sources:
        raise ConfigError("standard input cannot be looked at before it is read; give a file")
    options = job_options(args)
    batch = is_batch(args.sources)
    tasks = plan(args.sources, args.destination) if batch else [Task(args.sources[0], args.destination)]
    model = args.model if args.model == AUTO_MODEL else load_any_model(args.model, device=options.compute.torch_device)
    seconds = 0.0
    for task in tasks:
        if task.destination.exists() and not args.overwrite:
            _say(args, "skipped", task, f"exists already, {'skipped' if batch else 'refused'}")
            continue
        try:
            with progress_bar("", hidden=args.json or args.quiet, total=100) as bar:
                bar.bar_format = "measuring the speed of this machine |{bar}|"

                def advance(part: float, bar=bar) -> None:
                    bar.update(100 * part - bar.n)

                found = estimate(
                    task.source, task.destination, model, compute=options.compute, stream=options.stream,
                    output=options.output, scale=args.scale, start=args.start, end=args.end, on_progress=advance,
                )  # fmt: skip
        except SkipVSRError as error:
            _say(args, "failed", task, about(task.source, error))
            continue
        seconds += found.seconds or 0.0
        if args.json:
            print_event("estimate", source=str(task.source), destination=str(task.destination), **_plain(found))
        else:
            print(f"{task.source} -> {task.destination}: {in_words(found, args.target_fps)}")
    if args.json:
        print_event("report", files=len(tasks), seconds=seconds)
    elif len(tasks) > 1:
        print(f"{len(tasks)} files, about {roughly(seconds)} in all")


def in_words(found: Estimate, target_fps: float | None = None) -> str:
    """An estimate, to be read."""
    info = found.info
    count = "an unknown number of frames" if info.frame_count is None else f"{info.frame_count:,} frames"
    parts = [f"{count}, {info.width}x{info.height} -> {found.output_size[0]}x{found.output_size[1]}"]
    speed = f"{found.frames_per_second:.3g} frames/s ({found.seconds_per_frame:.3g} s a frame)"
    parts.append(speed if found.seconds is None else f"about {roughly(found.seconds)} at {speed}")
    if found.model_reason:
        parts.insert(1, f"with {found.model} ({found.model_reason})")
    if found.busy:
        parts.append("this machine is busy: without other programs it is faster")
    if target_fps is not None and found.most_frames_per_second and found.most_frames_per_second < _SHORT * target_fps:
        parts.append(
            f"{target_fps:g} frames/s cannot be reached here: {found.most_frames_per_second:.2g} is the most for this model "
            "and size"
        )
    if found.file_bytes is not None and found.disk_bytes is not None:
        room = "" if found.disk_available is None else f" ({size(found.disk_available)} free)"
        parts.append(f"about {size(found.file_bytes)}, while it is made {size(found.disk_bytes)} of disk{room}")
    parts.append(f"{size(found.memory_bytes)} of memory ({size(found.memory_available)} available)")
    streams = [f"{number} {kind}" for number, kind in _streams(found) if number]
    if streams:
        parts.append(f"with {' and '.join(streams)}")
    return "; ".join(parts)


def roughly(seconds: float) -> str:
    """A time that nobody knows to the second once it takes hours."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return clock(seconds)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours / 24:.1f} days"


def size(count: int) -> str:
    """Bytes, to be read."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{max(count / _MIB, 0.1):.3g} MiB"


def _streams(found: Estimate) -> list[tuple[int, str]]:
    sound, subtitles = found.info.audio_streams, found.info.subtitle_streams
    return [(sound, f"sound stream{'s' * (sound > 1)}"), (subtitles, f"subtitle stream{'s' * (subtitles > 1)}")]


def _plain(found: Estimate) -> dict[str, object]:
    """As JSON; of the source, what matters here."""
    values = asdict(found)
    info = values.pop("info")
    return {"input_size": [info["width"], info["height"]], "frames": info["frame_count"], **values}


def _say(args: argparse.Namespace, event: str, task: object, message: str) -> None:
    source, destination = task.source, task.destination  # pyright: ignore[reportAttributeAccessIssue] - a Task
    if args.json:
        print_event(event, source=str(source), message=message)
    else:
        print(message if event == "failed" else f"{destination}: {message}")
