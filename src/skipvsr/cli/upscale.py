"""`skipvsr upscale IN OUT`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, get_args

from tqdm import tqdm

from skipvsr.errors import ConfigError
from skipvsr.execute.dial import Tiling
from skipvsr.execute.patched import PARALLEL
from skipvsr.execute.stream import DEFAULT_LOOKAHEAD
from skipvsr.upscale.job import UpscaleReport, upscale_video
from skipvsr.upscale.progress import Progress
from skipvsr.upscale.size import OutputSize
from skipvsr.video.write import EncodeOptions

_MIB = 1 << 20


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "upscale",
        help="a video file or a folder of images -> the same, four times larger",
        description="Super-resolve a video file or a folder of images x4. Sound, subtitles, timestamps, colour "
        "description, rotation and pixel aspect are kept. The output appears whole or not at all.",
    )
    parser.add_argument("source", metavar="IN", type=Path, help="a video file, or a folder of images")
    parser.add_argument(
        "destination", metavar="OUT", type=Path, help="a video file (.mp4, .mkv, .mov ...), or a folder"
    )
    parser.add_argument(
        "--model", default="compact", help="packaged name, folder, checkpoint, Hub id, or bicubic (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (a GPU if there is one)")

    part = parser.add_argument_group("what of a video is taken")
    part.add_argument("--start", type=_seconds, metavar="TIME", help="first frame: seconds or [HH:]MM:SS[.mmm]")
    part.add_argument("--end", type=_seconds, metavar="TIME", help="frames before this time")
    part.add_argument("--no-deinterlace", action="store_true", help="take interlaced frames as they are")

    compute = parser.add_argument_group("how much of the network runs (all of it)")
    compute.add_argument(
        "--budget", type=float, metavar="B", help="share of the residual blocks' work, above 0 and up to 1"
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
        choices=get_args(Tiling),
        default="frame",
        help="frame: tiles that see their neighbours; patch: the paper's isolated patches (%(default)s)",
    )
    compute.add_argument("--parallel", type=int, metavar="N", default=PARALLEL, help="patches at once (%(default)s)")

    picture = parser.add_argument_group("size of the picture")
    picture.add_argument("--height", type=int, metavar="PX", help="resize the x4 result to this height, width to match")
    picture.add_argument("--size", type=_size, metavar="WxH", help="resize the x4 result to exactly this")

    encoding = parser.add_argument_group("encoding of videos")
    default = EncodeOptions()
    encoding.add_argument("--encoder", default=default.codec, help="FFmpeg's name of the encoder (%(default)s)")
    encoding.add_argument(
        "--quality",
        type=int,
        metavar="N",
        help="constant rate factor, lower is better (the encoder's visually lossless)",
    )
    encoding.add_argument("--pixel-format", metavar="FMT", help="FFmpeg's name (yuv420p)")
    encoding.add_argument("--preset", default=default.preset, help="speed of the encoder against size (%(default)s)")

    stream = parser.add_argument_group("streaming")
    stream.add_argument("--window", type=int, metavar="N", help="frames per window (by the size of the picture)")
    stream.add_argument(
        "--lookahead",
        type=int,
        metavar="N",
        default=DEFAULT_LOOKAHEAD,
        help="frames the backward recurrence starts beyond a window (%(default)s)",
    )
    stream.add_argument("--no-scene-cuts", action="store_true", help="treat the whole input as one scene")

    output = parser.add_mutually_exclusive_group()
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    output.add_argument("--json", action="store_true", help="print progress and result as JSON, one object a line")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Run the job and show how it goes."""
    if args.size is not None and args.height is not None:
        raise ConfigError("both --height and --size were given; give one of them")
    size = args.size or OutputSize(height=args.height)
    encode = EncodeOptions(codec=args.encoder, quality=args.quality, pixel_format=args.pixel_format, preset=args.preset)
    display = _display(args)
    try:
        report = upscale_video(
            args.source,
            args.destination,
            args.model,
            start=args.start,
            end=args.end,
            deinterlace=not args.no_deinterlace,
            window=args.window,
            lookahead=args.lookahead,
            scene_cuts=not args.no_scene_cuts,
            threshold=args.threshold,
            budget=args.budget,
            target_fps=args.target_fps,
            tiling=args.tiling,
            parallel=args.parallel,
            trace=args.trace,
            overlay=args.overlay,
            size=size,
            encode=encode,
            overwrite=args.overwrite,
            device=args.device,
            on_progress=display.update,
            on_notice=display.notice,
        )
    finally:
        display.close()
    display.report(report)


class Display(Protocol):
    """Shows a job to whoever started it."""

    def update(self, progress: Progress) -> None:
        """A frame is done."""

    def notice(self, message: str) -> None:
        """Something about the source that the user should know."""

    def close(self) -> None:
        """The job has ended, one way or the other."""

    def report(self, report: UpscaleReport) -> None:
        """The job has ended well."""


class Silent:
    """Shows nothing (`--quiet`)."""

    def update(self, progress: Progress) -> None:
        """A frame is done."""

    def notice(self, message: str) -> None:
        """Something the user should know."""

    def close(self) -> None:
        """The job has ended."""

    def report(self, report: UpscaleReport) -> None:
        """The job has ended well."""


class Bar(Silent):
    """A progress bar on standard error, then a summary on standard output."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def update(self, progress: Progress) -> None:
        """Move the bar on."""
        if self._bar is None:
            self._bar = tqdm(total=progress.frames_total, unit=" frames", dynamic_ncols=True, smoothing=0.05)
        self._bar.set_postfix_str(f"{progress.memory_bytes // _MIB:,} MiB", refresh=False)
        self._bar.update()

    def notice(self, message: str) -> None:
        """Print a line above the bar."""
        tqdm.write(f"skipvsr: {message}", file=sys.stderr)

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
            f"({report.frames_per_second:.2f} frames/s), peak memory {report.peak_bytes // _MIB:,} MiB"
        )
        if report.share < 1:
            print(
                f"{report.share:.1%} of the residual blocks ran: {report.macs_per_frame / 1e9:.2f} GMAC and "
                f"{report.seconds / report.frames:.3f} s a frame (all of them: {report.full_macs_per_frame / 1e9:.2f} GMAC)"
            )


class JsonLines(Silent):
    """Progress at most once a second and the result at the end, one JSON object a line on standard output."""

    def __init__(self) -> None:
        self._shown = 0.0

    def update(self, progress: Progress) -> None:
        """Print an object with "event": "progress", if the last one is a second old."""
        now = time.monotonic()
        if now - self._shown >= 1.0:
            self._shown = now
            self._print("progress", asdict(progress))

    def notice(self, message: str) -> None:
        """Print an object with "event": "notice"."""
        self._print("notice", {"message": message})

    def report(self, report: UpscaleReport) -> None:
        """Print an object with "event": "done"."""
        self._print("done", {**asdict(report), "destination": str(report.destination)})

    def _print(self, event: str, values: dict[str, Any]) -> None:
        print(json.dumps({"event": event, **values}), flush=True)


def _display(args: argparse.Namespace) -> Display:
    if args.json:
        return JsonLines()
    return Silent() if args.quiet else Bar()


def _size(text: str) -> OutputSize:
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
