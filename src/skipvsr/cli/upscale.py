"""`skipvsr upscale IN OUT`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skipvsr.cli.show import print_event
from skipvsr.cli.upscale_cluster import is_cluster, run_cluster
from skipvsr.cli.upscale_display import PIPE, Display, Silent, about, choose_display
from skipvsr.cli.upscale_dry_run import dry_run
from skipvsr.cli.upscale_options import add_arguments, job_options
from skipvsr.errors import BatchError, ConfigError

if TYPE_CHECKING:
    from skipvsr.upscale.batch import Outcome, Task


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "upscale",
        help="make a video or a folder of images two or four times larger",
        description="Super-resolve a video file or a folder of images, x4 or x2. Sound, subtitles, timestamps, colour "
        "description, rotation and pixel aspect are kept. The output appears whole or not at all.",
    )
    add_arguments(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Run the job and show how it goes."""
    if args.size is not None and args.height is not None:
        raise ConfigError("both --height and --size were given; give one of them")
    if PIPE in args.sources and len(args.sources) > 1:
        raise ConfigError("standard input (-) and other inputs do not go together; give one of them")
    if args.destination == PIPE and args.json:
        raise ConfigError("standard output carries the video; leave --json out")
    if is_cluster(args):
        run_cluster(args, job_options(args))
    elif args.dry_run:
        dry_run(args)
    elif PIPE not in args.sources and _is_batch(args.sources):
        _many(args)
    else:
        _one(args)


def _one(args: argparse.Namespace) -> None:
    from skipvsr.upscale.job import upscale_video

    display = choose_display(args)
    try:
        report = upscale_video(
            args.sources[0],
            args.destination,
            args.model,
            **job_options(args).to_keywords(),
            scale=args.scale,
            trace=args.trace,
            overlay=args.overlay,
            snapshot=args.snapshot,
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

    if args.trace is not None or args.overlay is not None or args.snapshot is not None:
        raise ConfigError("--trace, --overlay and --snapshot are files for one input; give one input")
    display: Display = Silent()

    def start(task: Task) -> None:
        nonlocal display
        display = choose_display(args, task.source)

    failed: list[Outcome] = []
    done = skipped = 0
    outcomes = upscale_many(
        args.sources,
        args.destination,
        args.model,
        on_start=start,
        on_progress=lambda progress: display.update(progress),
        **job_options(args).to_keywords(),
        scale=args.scale,
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
            print(f"skipvsr: {about(outcome.task.source, outcome.error)}", file=sys.stderr)
        raise BatchError(
            f"{len(failed)} of {done + skipped + len(failed)} files failed",
            [outcome.error.exit_code for outcome in failed if outcome.error is not None],
        )


def _say(args: argparse.Namespace, event: str, task: Task, message: str) -> None:
    if args.json:
        print_event(event, source=str(task.source), message=message)
    elif not args.quiet and event == "skipped":
        print(f"{task.destination}: skipped, {message}")
