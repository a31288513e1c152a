"""`skipvsr upscale` on many machines: on Ray, or as one of several processes that share the work."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skipvsr.cli.choices import WARMUP, WORKER_CPUS
from skipvsr.cli.show import print_event
from skipvsr.cli.upscale_display import PIPE, choose_display, clock
from skipvsr.errors import BatchError, ConfigError

if TYPE_CHECKING:
    from tqdm import tqdm

    from skipvsr.cluster.outcome import ClusterProgress, FilmOutcome
    from skipvsr.upscale.options import JobOptions

_LOCAL = "local"


def add_cluster_arguments(group: Any) -> None:
    """Add the options of this module."""
    group.add_argument(
        "--ray", nargs="?", const=_LOCAL, metavar="ADDRESS",
        help="on all machines of the Ray cluster at this address (auto: the one of this machine; none given: a Ray of this "
        "machine alone)",
    )  # fmt: skip
    group.add_argument("--shard", metavar="I/N", help="do the part I, from 0 to N-1, of the work; no Ray is needed")
    group.add_argument("--exact", action="store_true", help="split videos at scene cuts only, as one machine would")
    group.add_argument(
        "--warmup", type=int, metavar="N", default=WARMUP,
        help="frames before a split within a scene from which the network starts (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--mixed-precision", action="store_true", help="let each machine take the precision that it is fastest with"
    )
    group.add_argument(
        "--worker-cpus", type=int, metavar="N", default=WORKER_CPUS,
        help="most cores of a Ray worker without a GPU (%(default)s)",
    )  # fmt: skip


def is_cluster(args: argparse.Namespace) -> bool:
    """Whether the work is shared, or goes through a store."""
    urls = any(isinstance(place, str) for place in (*args.sources, args.destination))
    return args.ray is not None or args.shard is not None or urls


def run_cluster(args: argparse.Namespace, options: JobOptions) -> None:
    """Do the work, or this process's part of it, and show how it goes; what failed is listed at the end.

    Args:
        args: of the command line.
        options: of every video.
    """
    _check(args)
    display = _Display(args)
    failed: list[FilmOutcome] = []
    counts = {"done": 0, "skipped": 0, "unfinished": 0}
    try:
        for outcome in _outcomes(args, options, display):
            display.close()
            if outcome.error is not None:
                failed.append(outcome)
                display.say("failed", outcome, str(outcome.error))
            elif outcome.report is not None:
                counts["done"] += 1
                choose_display(args, Path(outcome.task.source)).report(outcome.report)
            elif outcome.missing:
                counts["unfinished"] += 1
                display.say("unfinished", outcome, f"{outcome.missing} frames are left to other shards")
            else:
                counts["skipped"] += 1
                display.say("skipped", outcome, "its output exists already")
    finally:
        display.close()
    total = sum(counts.values()) + len(failed)
    if total > 1 and not (args.quiet or args.json):
        print(", ".join(f"{count} {word}" for word, count in [*counts.items(), ("failed", len(failed))]))
    if total == 1 and failed and failed[0].error is not None:
        raise failed[0].error
    if failed:
        for outcome in failed:
            print(f"skipvsr: {_about(outcome)}", file=sys.stderr)
        codes = [outcome.error.exit_code for outcome in failed if outcome.error is not None]
        raise BatchError(f"{len(failed)} of {total} files failed", codes)


def _check(args: argparse.Namespace) -> None:
    if args.ray is not None and args.shard is not None:
        raise ConfigError("both --ray and --shard were given; give one of them")
    if args.ray is not None and (Path(args.ray).exists() or Path(args.ray).suffix.lower() in (".mp4", ".mkv", ".mov")):
        raise ConfigError(f"--ray takes {args.ray} for the address of a cluster; write --ray last, or --ray local")
    if PIPE in (*args.sources, args.destination):
        raise ConfigError(
            "standard input and output (-) stay on one machine; give files, or leave out --ray and --shard"
        )
    if args.trace is not None or args.overlay is not None:
        raise ConfigError("--trace and --overlay are made on one machine; leave them out, or --ray and --shard")
    if args.dry_run:
        raise ConfigError(
            "--dry-run looks at one machine; leave it out, or --ray and --shard (docs/scale.md has a simulation)"
        )


def _outcomes(args: argparse.Namespace, options: JobOptions, display: _Display) -> Iterator[FilmOutcome]:
    from skipvsr.cluster.film_plan import FilmSettings

    settings = FilmSettings(
        **options.to_keywords(), exact=args.exact, warmup=args.warmup, mixed_precision=args.mixed_precision
    )
    if args.ray is not None:
        from skipvsr.cluster.on_ray import upscale_on_ray

        return upscale_on_ray(
            args.sources, args.destination, args.model, scale=args.scale, settings=settings, address=args.ray,
            worker_cpus=args.worker_cpus, on_progress=display.update,
        )  # fmt: skip
    from skipvsr.cluster.shard import Shard, upscale_shard

    shard = Shard.parse(args.shard or "0/1")
    return upscale_shard(
        args.sources,
        args.destination,
        args.model,
        scale=args.scale,
        shard=shard,
        settings=settings,
        on_progress=display.update,
    )


def _about(outcome: FilmOutcome) -> str:
    """What went wrong, with the film it is about."""
    text = str(outcome.error)
    return text if outcome.task.source in text else f"{outcome.task.source}: {text}"


class _Display:
    """A bar over all films and workers, or lines of JSON, or nothing."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._json, self._quiet = args.json, args.quiet
        self._shown = float("-inf")
        self._bar: tqdm[Any] | None = None

    def update(self, progress: ClusterProgress) -> None:
        """Show how far it is, about once a second."""
        now = time.monotonic()
        if self._quiet or now - self._shown < 1.0:
            return
        self._shown = now
        if self._json:
            print_event("progress", **asdict(progress))
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=progress.frames_total, bar_format="{desc}", dynamic_ncols=True)
        self._bar.set_description_str(in_words(progress))

    def close(self) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, event: str, outcome: FilmOutcome, message: str) -> None:
        """Say what became of a film that has no report."""
        if self._json:
            print_event(event, source=outcome.task.source, message=message)
        elif not self._quiet and event != "failed":
            print(f"{outcome.task.destination}: {event}, {message}")


def in_words(progress: ClusterProgress) -> str:
    """A moment of the job in a line."""
    total = "" if progress.frames_total is None else f"/{progress.frames_total:,}"
    parts = [f"{progress.frames_done:,}{total} frames"]
    if progress.films_total > 1:
        parts.append(f"{progress.films_done:,}/{progress.films_total:,} files")
    working = len(progress.workers)
    parts.append(f"{working} worker{'s' if working != 1 else ''} busy")
    if progress.frames_per_second:
        parts.append(f"{progress.frames_per_second:.3g} frames/s")
    if progress.seconds_left is not None:
        parts.append(f"{clock(progress.seconds_left)} left")
    return ", ".join(parts)
