"""`skipvsr calibrate MODEL CLIPS`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skipvsr.cli.choices import DEGRADATIONS
from skipvsr.cli.show import add_json, print_event, progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from skipvsr.models.vsr import SkipVSR

OnPass = Callable[[int, int], object]
# For a person, and for --json.
Shown = tuple[list[str], dict[str, Any]]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "calibrate",
        help="measure which threshold spends which budget, or the ranges for 8 bit",
        description="Run a model on clips, find the threshold at which it spends each budget, and store this table in the "
        "model; or, with --int8, the ranges that 8-bit convolutions need. The clips are "
        "high-resolution ones, as for training; their low-resolution frames are made here.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="a model folder; it is changed in place")
    parser.add_argument("clips", metavar="CLIPS", type=Path, help="a folder of clips")
    parser.add_argument("--max-clips", type=int, default=12, metavar="N", help="use at most N clips (%(default)s)")
    parser.add_argument("--frames", type=int, default=12, metavar="N", help="frames of each clip (%(default)s)")
    parser.add_argument(
        "--tile-size", type=int, default=24, metavar="PX", help="longest side of a tile in pixels (%(default)s)"
    )
    parser.add_argument(
        "--degradation", choices=DEGRADATIONS, default="bi", help="how low-resolution frames are made (%(default)s)"
    )
    parser.add_argument(
        "--least-backward", type=int, metavar="N",
        help="blocks that budgets leave to the backward trunk; 0: one threshold for both trunks (as in the model)",
    )  # fmt: skip
    parser.add_argument(
        "--lean-budget", type=float, metavar="B",
        help="budgets up to this one run with the model's lean parts; 0: none does (as in the model)",
    )  # fmt: skip
    parser.add_argument("--int8", action="store_true", help="measure the ranges for 8 bit; thresholds stay as they are")
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Calibrate, store and show the table."""
    from skipvsr.checkpoints.native import build, read_folder
    from skipvsr.data.pairs import lr_clips
    from skipvsr.errors import ConfigError

    if args.max_clips < 1 or args.frames < 1:
        raise ConfigError("--max-clips and --frames must be 1 or more")
    network = build(read_folder(args.model))
    clips = lr_clips(args.clips, args.degradation, frames=args.frames, most=args.max_clips, scale=network.scale)
    with progress_bar("clips" if args.int8 else "passes", hidden=args.json) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if args.json:
                print_event("progress", done=done, total=total)

        lines, values = (_ranges if args.int8 else _thresholds)(args, network, clips, advance)
    if args.json:
        print_event("report", model=str(args.model), **values)
    else:
        print("\n".join(lines))


def _thresholds(args: argparse.Namespace, network: SkipVSR, clips: list[Tensor], advance: OnPass) -> Shown:
    from skipvsr.checkpoints.native import store_table
    from skipvsr.evaluation.calibrate import calibrate

    table = calibrate(
        network, clips, args.tile_size,
        least_backward=args.least_backward, lean_budget=args.lean_budget, on_pass=advance,
    )  # fmt: skip
    store_table(args.model, table)
    lines = [f"{args.model}: calibrated on {len(clips)} clips, with tiles of up to {table.tile_px} px"]
    for budget, threshold in zip(table.budgets, table.thresholds, strict=True):
        lines.append(f"  budget {budget:.2f}: threshold {threshold:.4g}")
    return lines, table.to_dict()


def _ranges(args: argparse.Namespace, network: SkipVSR, clips: list[Tensor], advance: OnPass) -> Shown:
    from skipvsr.checkpoints.native import store_table
    from skipvsr.evaluation.ranges import measure_ranges

    table = measure_ranges(network, clips, advance)
    store_table(args.model, table)
    count = len(table.ranges)
    lines = [f"{args.model}: ranges of {count} convolutions, measured on {len(clips)} clips; use --precision int8"]
    return lines, table.to_dict()
