"""`skipvsr train CONFIG.toml`."""

from __future__ import annotations

import argparse
import os
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skipvsr.cli.show import add_json, print_event
from skipvsr.errors import ConfigError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "train",
        help="train a network: flow, backbone and skip stages",
        description="Run the training stages of a configuration. Works under 'accelerate launch' and 'torchrun'.",
        epilog="Exit status: 0 when all stages are done; 75 when it stopped at the time limit or was asked to by SIGTERM, "
        "saved, and goes on with --resume; another number after an error.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a TOML file, such as configs/smoke.toml")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run that is in the folder")
    parser.add_argument(
        "--time-limit", type=_duration, metavar="TIME",
        help="stop after the last step that leaves time to save before this is over, counted from the start of the command, "
        "as in 90s, 8m or 1h30m; go on with --resume",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the configuration, as in seed=1; may be repeated",
    )  # fmt: skip
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU, even if there is one")
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Train, and show the result of each stage."""
    began = time.monotonic()
    try:
        from skipvsr.training.config import read_config
        from skipvsr.training.loop import train
    except ModuleNotFoundError as error:
        raise ConfigError(f"training needs the package {error.name!r}; install skipvsr[train]") from error
    config = read_config(args.config, args.overrides)
    reports = train(
        config,
        args.out or Path("runs") / config.name,
        resume=args.resume,
        cpu=args.cpu,
        time_limit=args.time_limit,
        began=began,
    )
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes, the first shows
    if args.json:
        print_event("report", stages=[{**asdict(report), "best": str(report.best)} for report in reports])
        return
    for report in reports:
        print(
            f"{report.kind}: {report.steps:,} steps, best {report.best_score:.3f} {report.score_unit}, {report.best}\n"
            f"  {report.wait_ratio:.1%} of the time was spent waiting for data; {report.cache}\n"
            f"  {report.seconds / 3600:.1f} hours on {report.machine}"
        )


def _duration(text: str) -> float:
    """Seconds of "90s", "8m", "1h30m", or of a plain number."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    seconds = 0.0
    if match is not None:
        hours, minutes, rest = match.groups()
        seconds = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest or 0)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give more than 0 in h, m and s, as in 90s, 8m or 1h30m")
    return seconds
