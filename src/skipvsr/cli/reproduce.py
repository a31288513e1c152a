"""`skipvsr reproduce NAME...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from skipvsr.cli.choices import REPRODUCED, SIZES_OF_REPRODUCTION
from skipvsr.cli.show import add_json, print_event
from skipvsr.errors import ConfigError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "reproduce",
        help="make the paper's tables and figures",
        description="Make the paper's tables and figures. The networks that they need are trained and measured first and "
        "kept in the output folder, so that an interrupted run continues where it stopped. Under 'accelerate launch' or "
        "'torchrun' several processes share the clips.",
    )
    parser.add_argument(
        "names", nargs="+", choices=(*REPRODUCED, "all"), metavar="NAME", help=f"{', '.join(REPRODUCED)}, or all"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data (docs/datasets.md)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for networks, numbers, tables and figures (runs/reproduce-PRESET)",
    )
    parser.add_argument(
        "--preset",
        choices=SIZES_OF_REPRODUCTION,
        default="mini",
        help="paper: the full protocol; mini: a night on two cores; smoke: a minute, numbers mean nothing (%(default)s)",
    )
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        default=[],
        metavar="VARIANT=MODEL",
        help="use these trained models instead of training them, as in backbone=runs/base/best; networks of columns with "
        "other training data have it in their name, as in backbone-vimeo-bd",
    )
    parser.add_argument(
        "--trained-only",
        action="store_true",
        help="train nothing: leave out variants and seeds that are not trained to their end yet",
    )
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Make them, and list the files."""
    try:
        import torch

        from skipvsr.evaluation.results import ProcessGroup
        from skipvsr.report.experiment import Experiment
        from skipvsr.report.presets import find_preset
        from skipvsr.report.reproduce import reproduce
    except ModuleNotFoundError as error:
        raise ConfigError(f"this needs the package {error.name!r}; install skipvsr[research,train]") from error

    def say(text: str) -> None:
        if args.json:
            print_event("progress", message=text)
        else:
            print(text, file=sys.stderr, flush=True)

    out = args.out or Path("runs") / f"reproduce-{args.preset}"
    group = ProcessGroup.of_launcher(cpu=not torch.cuda.is_available())
    experiment = Experiment(
        find_preset(args.preset), args.data, out, _checkpoints(args.checkpoints), say, group, args.trained_only
    )
    files = [str(path) for path in reproduce(args.names, experiment)]
    if group.index:
        return  # of several processes, the first shows
    if args.json:
        print_event("report", files=files)
    else:
        print("\n".join(files))


def _checkpoints(texts: list[str]) -> dict[str, Path]:
    found = {}
    for text in texts:
        variant, separator, model = text.partition("=")
        if not separator:
            raise ConfigError(f"--checkpoints {text!r} is not VARIANT=MODEL, as in backbone=runs/base/best")
        found[variant] = Path(model)
    return found
