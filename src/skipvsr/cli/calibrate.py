"""`skipvsr calibrate MODEL CLIPS...`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from skipvsr.checkpoints.native import build, read_folder, store_calibration


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "calibrate",
        help="measure which threshold spends which budget, and store it in the model",
        description="Run a model on clips and store in it the threshold for each budget. The clips are high-resolution "
        "ones, as for training; they are made small as the model expects.",
    )
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="a model folder with a router; it is changed in place"
    )
    parser.add_argument("clips", metavar="DIR", type=Path, help="a folder of clips")
    parser.add_argument("--frames", type=int, default=12, metavar="N", help="of each clip (%(default)s)")
    parser.add_argument("--clips", type=int, default=12, metavar="N", dest="most", help="at most (%(default)s)")
    parser.add_argument(
        "--tile-size", type=int, default=24, metavar="PX", help="most pixels a side of a tile (%(default)s)"
    )
    parser.add_argument("--degradation", default="bi", help="bi, bd, bd-duf or video (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Calibrate, store, show."""
    from skipvsr.data.pairs import lr_clips
    from skipvsr.evaluation.calibrate import calibrate

    network = build(read_folder(args.model))
    clips = lr_clips(args.clips, args.degradation, frames=args.frames, most=args.most)
    with tqdm(unit=" passes", leave=False, disable=args.json or not sys.stderr.isatty()) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        table = calibrate(network, clips, args.tile_size, on_pass=advance)
    store_calibration(args.model, table)
    if args.json:
        print(json.dumps({"event": "report", **table.to_dict()}))
        return
    print(f"{args.model}: tiles of at most {table.tile_px} px")
    for budget, threshold in zip(table.budgets, table.thresholds, strict=True):
        print(f"  budget {budget:.2f}: threshold {threshold:.4g}")
