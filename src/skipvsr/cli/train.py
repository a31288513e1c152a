"""`skipvsr train CONFIG.toml`."""

from __future__ import annotations

import argparse
import os
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
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a TOML file, such as configs/smoke.toml")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run that is in the folder")
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
    try:
        from skipvsr.training.config import read_config
        from skipvsr.training.loop import train
    except ModuleNotFoundError as error:
        raise ConfigError(f"training needs the package {error.name!r}; install skipvsr[train]") from error
    config = read_config(args.config, args.overrides)
    reports = train(config, args.out or Path("runs") / config.name, resume=args.resume, cpu=args.cpu)
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes, the first shows
    if args.json:
        print_event("report", stages=[{**asdict(report), "best": str(report.best)} for report in reports])
        return
    for report in reports:
        print(
            f"{report.kind}: {report.steps:,} steps, best {report.best_score:.3f} {report.score_unit}, {report.best}\n"
            f"  {report.wait_ratio:.1%} of the time was spent waiting for data; {report.cache}"
        )
