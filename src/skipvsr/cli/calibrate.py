"""`skipvsr calibrate MODEL CLIPS`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skipvsr.cli.choices import DEGRADATIONS
from skipvsr.cli.show import add_json, print_event, progress_bar


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "calibrate",
        help="measure which threshold spends which budget",
        description="Run a model on clips, find the threshold at which it spends each budget, and store this table in the "
        "model. The clips are high-resolution ones, as for training; their low-resolution frames are made here.",
    )
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="a model folder with a router; it is changed in place"
    )
    parser.add_argument("clips", metavar="CLIPS", type=Path, help="a folder of clips")
    parser.add_argument("--max-clips", type=int, default=12, metavar="N", help="use at most N clips (%(default)s)")
    parser.add_argument("--frames", type=int, default=12, metavar="N", help="frames of each clip (%(default)s)")
    parser.add_argument(
        "--tile-size", type=int, default=24, metavar="PX", help="longest side of a tile in pixels (%(default)s)"
    )
    parser.add_argument(
        "--degradation", choices=DEGRADATIONS, default="bi", help="how low-resolution frames are made (%(default)s)"
    )
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Calibrate, store and show the table."""
    from skipvsr.checkpoints.native import build, read_folder, store_calibration
    from skipvsr.data.pairs import lr_clips
    from skipvsr.errors import ConfigError
    from skipvsr.evaluation.calibrate import calibrate

    if args.max_clips < 1 or args.frames < 1:
        raise ConfigError("--max-clips and --frames must be 1 or more")
    network = build(read_folder(args.model))
    clips = lr_clips(args.clips, args.degradation, frames=args.frames, most=args.max_clips, scale=network.scale)
    with progress_bar("passes", hidden=args.json) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if args.json:
                print_event("progress", done=done, total=total)

        table = calibrate(network, clips, args.tile_size, on_pass=advance)
    store_calibration(args.model, table)
    if args.json:
        print_event("report", model=str(args.model), **table.to_dict())
        return
    print(f"{args.model}: calibrated on {len(clips)} clips, with tiles of up to {table.tile_px} px")
    for budget, threshold in zip(table.budgets, table.thresholds, strict=True):
        print(f"  budget {budget:.2f}: threshold {threshold:.4g}")
