"""`skipvsr upscale IN OUT`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from skipvsr.cli.choices import LOOKAHEAD, PATCH_BATCH_SIZE, PRECISIONS, TILINGS
from skipvsr.cli.show import add_json
from skipvsr.errors import BatchError, ConfigError, InputError

if TYPE_CHECKING:
    from tqdm import tqdm

    from skipvsr.inference.options import ComputeOptions, StreamOptions
    from skipvsr.upscale.batch import Outcome, Task
    from skipvsr.upscale.options import OutputOptions
    from skipvsr.upscale.plan import Estimate
    from skipvsr.upscale.progress import Progress
    from skipvsr.upscale.request import UpscaleReport
    from skipvsr.upscale.size import OutputSize

# Standard input or output.
_PIPE = Path("-")
_MIB = 1 << 20
_GIB = 1 << 30


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "upscale",
        help="make a video or a folder of images four times larger",
        description="Super-resolve a video file or a folder of images x4. Sound, subtitles, timestamps, colour "
        "description, rotation and pixel aspect are kept. The output appears whole or not at all.",
    )
    parser.add_argument(
        "sources",
        metavar="IN",
        type=Path,
        nargs="+",
        help="a video file, a folder of images, or - for y4m on standard input; several, or a folder with such below it, go "
        "into the folder OUT",
    )
    parser.add_argument(
        "destination",
        metavar="OUT",
        type=Path,
        help="a video file (.mp4, .mkv, .mov ...), a folder, or - for y4m on standard output",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and how long it takes, and stop")
    parser.add_argument(
        "--model", default="compact", help="packaged name, folder, checkpoint, Hub id, or bicubic (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--no-resume", action="store_true", help="start over, whatever an interrupted run has finished of OUT"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (auto: a GPU if there is one)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of weights and features (as the model is stored: fp32)"
    )

    part = parser.add_argument_group("what of a video is taken")
    part.add_argument("--start", type=_seconds, metavar="TIME", help="first frame: seconds or [HH:]MM:SS[.mmm]")
    part.add_argument("--end", type=_seconds, metavar="TIME", help="frames before this time")
    part.add_argument("--no-deinterlace", action="store_true", help="take interlaced frames as they are")

    compute = parser.add_argument_group("how much of the network runs (all of it)")
    compute.add_argument(
        "--budget", type=float, metavar="B", help="ratio of the residual blocks' work, above 0 and up to 1"
    )
    compute.add_argument(
        "--threshold", type=float, metavar="A", help="run a block where the router expects more than this of it"
    )
    compute.add_argument(
        "--target-fps", type=float, metavar="F", help="turn the budget so that so many frames are done in a second"
    )
    compute.add_argument("--trace", type=Path, metavar="FILE", help="write what ran to this file (.npz)")
    compute.add_argument(
        "--overlay", type=Path, metavar="OUT", help="write a second output with the depth of each tile drawn over it"
    )
    compute.add_argument(
        "--tiling",
        choices=TILINGS,
        default="frame",
        help="frame: tiles that see their neighbours; patch: the paper's isolated patches (%(default)s)",
    )
    compute.add_argument(
        "--tile-size", type=int, metavar="PX", help="longest side of a tile (as the model was calibrated)"
    )
    compute.add_argument(
        "--patch-batch-size", type=int, metavar="N", default=PATCH_BATCH_SIZE, help="patches at once (%(default)s)"
    )

    picture = parser.add_argument_group("size of the picture")
    picture.add_argument("--height", type=int, metavar="PX", help="resize the x4 result to this height, width to match")
    picture.add_argument("--size", type=_size, metavar="WxH", help="resize the x4 result to exactly this")

    encoding = parser.add_argument_group("encoding of videos")
    encoding.add_argument("--codec", help="FFmpeg's name of the encoder (libx264; libx265 for more than 8 bits)")
    encoding.add_argument(
        "--crf",
        type=int,
        metavar="N",
        help="constant rate factor, lower is better (the encoder's visually lossless)",
    )
    encoding.add_argument("--pixel-format", metavar="FMT", help="FFmpeg's name (yuv420p; yuv420p10le)")
    encoding.add_argument("--preset", help="speed of the encoder against size (the encoder's own)")

    stream = parser.add_argument_group("streaming")
    stream.add_argument("--window", type=int, metavar="N", help="frames per window (by the size of the picture)")
    stream.add_argument(
        "--lookahead",
        type=int,
        metavar="N",
        default=LOOKAHEAD,
        help="frames the backward recurrence starts beyond a window (%(default)s)",
    )
    stream.add_argument(
        "--segment-length",
        type=int,
        metavar="N",
        help="frames that are finished at a time, for going on after an interruption",
    )
    stream.add_argument("--no-scene-detection", action="store_true", help="treat the whole input as one scene")

    output = parser.add_mutually_exclusive_group()
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_json(output)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Run the job and show how it goes."""
    if args.size is not None and args.height is not None:
        raise ConfigError("both --height and --size were given; give one of them")
    if _PIPE in args.sources and len(args.sources) > 1:
        raise ConfigError("standard input (-) and other inputs do not go together; give one of them")
    if args.destination == _PIPE and args.json:
        raise ConfigError("standard output carries the video; leave --json out")
    if args.dry_run:
        _dry_run(args)
    elif _PIPE not in args.sources and _is_batch(args.sources):
        _many(args)
    else:
        _one(args)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What `upscale_video` takes, of all inputs alike."""
    return {
        "compute": _compute(args),
        "stream": _stream(args),
        "output": _output(args),
        "start": args.start,
        "end": args.end,
        "deinterlace": not args.no_deinterlace,
    }


def _compute(args: argparse.Namespace) -> ComputeOptions:
    from skipvsr.inference.options import ComputeOptions

    return ComputeOptions(
        budget=args.budget,
        threshold=args.threshold,
        target_fps=args.target_fps,
        tile_size=args.tile_size,
        tiling=args.tiling,
        patch_batch_size=args.patch_batch_size,
        device=args.device,
        precision=args.precision,
    )


def _stream(args: argparse.Namespace) -> StreamOptions:
    from skipvsr.inference.options import StreamOptions

    return StreamOptions(window=args.window, lookahead=args.lookahead, scene_detection=not args.no_scene_detection)


def _output(args: argparse.Namespace) -> OutputOptions:
    from skipvsr.upscale.options import OutputOptions
    from skipvsr.video.write import EncodeOptions

    encoding = EncodeOptions(codec=args.codec, crf=args.crf, pixel_format=args.pixel_format, preset=args.preset)
    return OutputOptions(
        size=_output_size(args),
        encoding=encoding,
        overwrite=args.overwrite,
        resume=not args.no_resume,
        segment_length=args.segment_length,
    )


def _output_size(args: argparse.Namespace) -> OutputSize:
    from skipvsr.upscale.size import OutputSize

    return args.size or OutputSize(height=args.height)


def _one(args: argparse.Namespace) -> None:
    from skipvsr.upscale.job import upscale_video

    display = _display(args)
    try:
        report = upscale_video(
            args.sources[0],
            args.destination,
            args.model,
            **_options(args),
            trace=args.trace,
            overlay=args.overlay,
            on_progress=display.update,
        )
    finally:
        display.close()
    display.report(report)


def _is_batch(sources: list[Path]) -> bool:
    from skipvsr.upscale.batch import is_batch

    return len(sources) > 1 or (sources[0].is_dir() and is_batch(sources))


def _many(args: argparse.Namespace) -> None:
    """Every file with a display of its own; what failed is listed at the end."""
    from skipvsr.upscale.batch import upscale_many

    if args.trace is not None or args.overlay is not None:
        raise ConfigError("--trace and --overlay are files for one input; give one input")
    display: Display = Silent()

    def start(task: Task) -> None:
        nonlocal display
        display = _display(args, task.source)

    failed: list[Outcome] = []
    done = skipped = 0
    outcomes = upscale_many(
        args.sources,
        args.destination,
        args.model,
        on_start=start,
        on_progress=lambda progress: display.update(progress),
        **_options(args),
    )
    try:
        for outcome in outcomes:
            display.close()
            if outcome.report is not None:
                done += 1
                display.report(outcome.report)
            elif outcome.error is not None:
                failed.append(outcome)
                _say(args, "failed", outcome.task, str(outcome.error))
            else:
                skipped += 1
                _say(args, "skipped", outcome.task, "its output exists already")
    finally:
        display.close()
    if not (args.quiet or args.json):
        print(f"{done} done, {skipped} skipped, {len(failed)} failed")
    if failed:
        for outcome in failed:
            print(f"skipvsr: {_about(outcome.task.source, outcome.error)}", file=sys.stderr)
        raise BatchError(
            f"{len(failed)} of {done + skipped + len(failed)} files failed",
            [outcome.error.exit_code for outcome in failed if outcome.error is not None],
        )


def _say(args: argparse.Namespace, event: str, task: Task, message: str) -> None:
    if args.json:
        print(json.dumps({"event": event, "source": str(task.source), "message": message}), flush=True)
    elif not args.quiet and event == "skipped":
        print(f"{task.destination}: skipped, {message}")


def _dry_run(args: argparse.Namespace) -> None:
    """What would be done, a line for each file; nothing is written."""
    from skipvsr.checkpoints.load import load_model
    from skipvsr.inference.upscaler import Upscaler
    from skipvsr.upscale.batch import Task, plan
    from skipvsr.upscale.plan import estimate

    compute = _compute(args)
    upscaler = Upscaler(load_model(args.model, device=compute.device), compute, _stream(args))
    if _PIPE in args.sources:
        raise ConfigError("standard input cannot be looked at before it is read; give a file")
    batch = _is_batch(args.sources)
    tasks = plan(args.sources, args.destination) if batch else [Task(args.sources[0], args.destination)]
    for task in tasks:
        if task.destination.exists() and not args.overwrite:
            print(f"{task.destination}: exists already, {'skipped' if batch else 'refused'}")
            continue
        try:
            found = estimate(task.source, task.destination, upscaler, _output(args), start=args.start, end=args.end)
        except InputError as error:
            print(_about(task.source, error))
            continue
        print(f"{task.source} -> {task.destination}: {_in_words(found)}")


def _about(source: Path, error: Exception | None) -> str:
    """What went wrong, with the file it is about."""
    return str(error) if str(source) in str(error) else f"{source}: {error}"


def _in_words(found: Estimate) -> str:
    info = found.info
    count = "an unknown number of frames" if info.frame_count is None else f"{info.frame_count:,} frames"
    parts = [
        f"{count}, {info.width}x{info.height} -> {found.output_size[0]}x{found.output_size[1]}",
        f"{info.audio_streams} sound and {info.subtitle_streams} subtitle streams",
        f"windows of {found.window} frames",
        f"about {found.memory_bytes / _GIB:.1f} GiB of memory ({found.memory_available / _GIB:.1f} available)",
    ]
    if found.disk_bytes is not None:
        parts.append(f"{found.disk_bytes / _GIB:.2f} GiB of disk (twice that at the end)")
    if found.seconds is not None:
        parts.append(f"{timedelta(seconds=round(found.seconds))} at {found.seconds_per_frame:.2f} s a frame")
    return ", ".join(parts)


class Display(Protocol):
    """Shows a job to whoever started it."""

    def update(self, progress: Progress) -> None:
        """A frame is done."""

    def close(self) -> None:
        """The job has ended, one way or the other."""

    def report(self, report: UpscaleReport) -> None:
        """The job has ended well."""


class Silent:
    """Shows nothing (`--quiet`)."""

    def update(self, progress: Progress) -> None:
        """A frame is done."""

    def close(self) -> None:
        """The job has ended."""

    def report(self, report: UpscaleReport) -> None:
        """The job has ended well."""


class Bar(Silent):
    """A progress bar on standard error, then a summary on standard output.

    Args:
        source: named before the bar, where there are several.
        report_to: where the summary goes instead.
    """

    def __init__(self, source: Path | None = None, report_to: TextIO | None = None) -> None:
        self._bar: tqdm[Any] | None = None
        self._name = None if source is None else source.name
        self._report_to = report_to

    def update(self, progress: Progress) -> None:
        """Move the bar on."""
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.frames_total,
                initial=progress.frames_done,
                unit=" frames",
                dynamic_ncols=True,
                smoothing=0.05,
                desc=self._name,
            )
        self._bar.set_postfix_str(f"{progress.memory_bytes // _MIB:,} MiB", refresh=False)
        self._bar.update(progress.frames_done - self._bar.n)

    def close(self) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()

    def report(self, report: UpscaleReport) -> None:
        """Print what was done, for a person."""
        width, height = report.input_size
        scenes = f"{report.scenes} scene{'s' if report.scenes != 1 else ''}"
        print(
            f"{report.destination}: {report.frames:,} frames in {scenes}, {width}x{height} -> "
            f"{report.output_size[0]}x{report.output_size[1]}, {report.seconds:.1f} s "
            f"({report.frames_per_second:.2f} frames/s), peak memory {report.peak_bytes // _MIB:,} MiB",
            file=self._report_to,
        )
        if report.active_ratio < 1:
            print(
                f"{report.active_ratio:.1%} of the residual blocks ran: {report.macs_per_frame / 1e9:.2f} GMAC and "
                f"{1 / report.frames_per_second:.3f} s a frame (all of them: {report.full_macs_per_frame / 1e9:.2f} GMAC)",
                file=self._report_to,
            )


class JsonLines(Silent):
    """Progress at most once a second and the result at the end, one JSON object a line on standard output.

    Args:
        source: named in each object, where there are several.
    """

    def __init__(self, source: Path | None = None) -> None:
        self._shown = 0.0
        self._named = {} if source is None else {"source": str(source)}

    def update(self, progress: Progress) -> None:
        """Print an object with "event": "progress", if the last one is a second old."""
        now = time.monotonic()
        if now - self._shown >= 1.0:
            self._shown = now
            self._print("progress", asdict(progress))

    def report(self, report: UpscaleReport) -> None:
        """Print an object with "event": "report"."""
        self._print("report", {**asdict(report), "destination": str(report.destination)})

    def _print(self, event: str, values: dict[str, Any]) -> None:
        print(json.dumps({"event": event, **self._named, **values}), flush=True)


def _display(args: argparse.Namespace, source: Path | None = None) -> Display:
    if args.json:
        return JsonLines(source)
    if args.quiet:
        return Silent()
    return Bar(source, report_to=sys.stderr if args.destination == _PIPE else None)


def _size(text: str) -> OutputSize:
    from skipvsr.upscale.size import OutputSize

    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, as in 1920x1080")
    return OutputSize(height=int(height), width=int(width))


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give seconds or [HH:]MM:SS[.mmm], as in 1:02:03.5")
    hours, minutes, seconds = match.groups()
    return float(3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds.rstrip(".")))
