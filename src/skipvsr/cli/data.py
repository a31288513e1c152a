"""`skipvsr data check DIR`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from skipvsr.errors import DataError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    group = commands.add_parser("data", help="look after folders of clips").add_subparsers(
        required=True, metavar="COMMAND"
    )
    parser = group.add_parser(
        "check",
        help="what is in a folder of clips, what is missing, and what is broken",
        description="What is there, what is missing, which frames do not decode, and whether LR and HR agree in size "
        "and phase. Exits with an error where there is a fault.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--dataset", help="reds, vimeo, vid4, udm10, spmcs, folder ... (told by what is in the folder)")
    parser.add_argument("--quick", action="store_true", help="decode the first, middle and last image of a clip only")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Check a folder and print the report."""
    from skipvsr.data.check import check_folder

    with tqdm(unit=" clips", leave=False, disable=args.json or not sys.stderr.isatty()) as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        report = check_folder(args.folder, args.dataset, every_frame=not args.quick, on_clip=advance)
    if args.json:
        print(json.dumps({"event": "report", **asdict(report), "root": str(report.root)}))
    else:
        print(report)
    if not report.ok:
        raise DataError(f"{args.folder} has {report.count}; they are listed above")
