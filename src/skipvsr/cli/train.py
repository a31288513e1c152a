"""`skipvsr train CONFIG.toml`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skipvsr.errors import ConfigError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "train",
        help="train a network from clips: flow, backbone and skip stages",
        description="Run the stages of a configuration. Works under 'accelerate launch' and 'torchrun'.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a TOML file, such as configs/smoke.toml")
    parser.add_argument("--out", type=Path, help="folder of the run (runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on with the run that is in the folder")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override a key"
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU that is there")
    parser.add_argument("--json", action="store_true", help="print the result of each stage as JSON")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Train, and say what came of it."""
    try:
        from skipvsr.training.config import read_config
        from skipvsr.training.loop import train
    except ModuleNotFoundError as error:
        raise ConfigError(f"training needs the package {error.name!r}; install skipvsr[train]") from error
    config = read_config(args.config, args.overrides)
    for report in train(config, args.out or Path("runs") / config.name, resume=args.resume, cpu=args.cpu):
        if args.json:
            print(json.dumps({**asdict(report), "best": str(report.best)}))
            continue
        unit = "dB luma PSNR" if report.kind != "flow" else "levels of warping error (negative)"
        print(
            f"{report.kind}: {report.steps:,} steps, best {report.best_score:.3f} {unit}, {report.best}\n"
            f"  {report.wait_ratio:.1%} of the time spent waiting for data; {report.cache}"
        )
