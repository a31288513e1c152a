"""`skipvsr reproduce NAME...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from skipvsr.errors import ConfigError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "reproduce",
        help="the paper's tables and figures, with its numbers beside ours",
        description="Make tables and figures of the paper. What they need is trained and measured first, kept in the "
        "folder, and used again: an interrupted run goes on where it stopped.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="table1 ... table6, fig1, fig4, fig5, fig6, or all")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data (docs/results.md)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where all of it goes (runs/reproduce-PRESET)")
    parser.add_argument(
        "--preset",
        default="mini",
        help="paper: the full protocol; mini: hours on two cores; smoke: a minute (%(default)s)",
    )
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        default=[],
        metavar="VARIANT=MODEL",
        help="trained models, instead of training these",
    )
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Make them, and say where they are."""
    try:
        from skipvsr.report.experiment import Experiment
        from skipvsr.report.presets import find_preset
        from skipvsr.report.reproduce import reproduce
    except ModuleNotFoundError as error:
        raise ConfigError(f"this needs the package {error.name!r}; install skipvsr[research,train]") from error
    given = {}
    for text in args.checkpoints:
        variant, separator, model = text.partition("=")
        if not separator:
            raise ConfigError(f"--checkpoints {text!r} is not VARIANT=MODEL, as in backbone=runs/base/best")
        given[variant] = Path(model)
    preset = find_preset(args.preset)
    out = args.out or Path("runs") / f"reproduce-{args.preset}"
    experiment = Experiment(preset, args.data, out, given, lambda text: print(text, file=sys.stderr, flush=True))
    for path in reproduce(args.names, experiment):
        print(path)
