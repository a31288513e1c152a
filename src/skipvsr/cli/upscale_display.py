"""How `skipvsr upscale` shows a job to whoever started it: a bar, lines of JSON, or nothing."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from skipvsr.cli.show import print_event

if TYPE_CHECKING:
    from tqdm import tqdm

    from skipvsr.upscale.progress import Progress
    from skipvsr.upscale.request import UpscaleReport

PIPE = Path("-")
_MIB = 1 << 20
# Pieces of the bar.
_PIECES = 1000
_DRAWN_EVERY_SECONDS = 0.1


class Display(Protocol):
    """Shows a job to whoever started it."""

    def update(self, progress: Progress) -> None:
        """A step is done."""

    def close(self) -> None:
        """The job has ended, one way or the other."""

    def report(self, report: UpscaleReport) -> None:
        """The job has ended well."""


class Silent:
    """Shows nothing (`--quiet`)."""

    def update(self, progress: Progress) -> None:
        """A step is done."""

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
        self._name = "" if source is None else f"{source.name}: "
        self._report_to = report_to
        self._stage, self._drawn = "", 0.0

    def update(self, progress: Progress) -> None:
        """Move the bar on."""
        if self._bar is None:
            from tqdm import tqdm

            form = "{desc}" if progress.fraction is None else "{percentage:3.0f}%|{bar}| {desc}"
            self._bar = tqdm(total=_PIECES, bar_format=form, dynamic_ncols=True)
        self._bar.set_description_str(self._name + describe(progress), refresh=False)
        self._bar.n = int(_PIECES * (progress.fraction or 0))
        now = time.monotonic()
        if progress.stage != self._stage or now - self._drawn >= _DRAWN_EVERY_SECONDS:
            self._stage, self._drawn = progress.stage, now
            self._bar.refresh()

    def close(self) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()

    def report(self, report: UpscaleReport) -> None:
        """Print what was done, for a person."""
        width, height = report.input_size
        scenes = f"{report.scenes} scene{'s' if report.scenes != 1 else ''}"
        precision = f" in {report.precision}" if report.precision else ""
        print(
            f"{report.destination}: {report.frames:,} frames in {scenes}, {width}x{height} -> "
            f"{report.output_size[0]}x{report.output_size[1]}, {report.seconds:.1f} s "
            f"({report.frames_per_second:.2f} frames/s{precision}), peak memory {report.peak_bytes // _MIB:,} MiB",
            file=self._report_to,
        )
        if report.model_reason:
            print(f"model {report.model}: {report.model_reason}", file=self._report_to)
        if report.active_ratio < 1:
            print(
                f"{report.active_ratio:.1%} of the residual blocks ran: {report.macs_per_frame / 1e9:.2f} GMAC and "
                f"{1 / report.frames_per_second:.3f} s a frame (all of them: {report.full_macs_per_frame / 1e9:.2f} GMAC)",
                file=self._report_to,
            )


class JsonLines(Silent):
    """Progress about once a second and the result at the end, one JSON object a line on standard output.

    Args:
        source: named in each object, where there are several.
    """

    def __init__(self, source: Path | None = None) -> None:
        self._shown = 0.0
        self._stage = ""
        self._named = {} if source is None else {"source": str(source)}

    def update(self, progress: Progress) -> None:
        """Print an object with "event": "progress", if a stage begins or the last object is a second old."""
        now = time.monotonic()
        if progress.stage != self._stage or now - self._shown >= 1.0:
            self._shown, self._stage = now, progress.stage
            print_event("progress", **self._named, **asdict(progress))

    def report(self, report: UpscaleReport) -> None:
        """Print an object with "event": "report"."""
        print_event("report", **self._named, **{**asdict(report), "destination": str(report.destination)})


def choose_display(args: argparse.Namespace, source: Path | None = None) -> Display:
    """The display that was asked for; `source`: of several, the one that is upscaled now."""
    if args.json:
        return JsonLines(source)
    if args.quiet:
        return Silent()
    return Bar(source, report_to=sys.stderr if args.destination == PIPE else None)


def describe(progress: Progress) -> str:
    """A moment of a job in a line: frames, speed, and how long it will still take."""
    total = "" if progress.frames_total is None else f"/{progress.frames_total:,}"
    parts = [f"{progress.frames_done:,}{total} frames"]
    if progress.stage not in ("starting", "upscaling", "done"):
        parts.append(progress.stage)
    if progress.frames_per_second:
        parts.append(f"{progress.frames_per_second:.3g} frames/s")
    if progress.seconds_left is not None and progress.stage != "done":
        parts.append(f"{clock(progress.seconds_left)} left")
    return ", ".join([*parts, f"{progress.memory_bytes // _MIB:,} MiB"])


def clock(seconds: float) -> str:
    """A duration to be read: 0:05, 12:34, 3:45:00, 2 days, 3:00:00."""
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0") if text.startswith("0:0") else text.removeprefix("0:")


def about(source: Path, error: Exception | None) -> str:
    """What went wrong, with the file it is about."""
    return str(error) if str(source) in str(error) else f"{source}: {error}"
