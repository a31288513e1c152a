"""`skipvsr data check DIR`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skipvsr.cli.choices import DATASETS, FAMILIES
from skipvsr.cli.show import add_json, print_event, progress_bar
from skipvsr.errors import DataError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    description = "Check folders of training and test clips."
    group = commands.add_parser("data", help="check folders of clips", description=description).add_subparsers(
        required=True, metavar="COMMAND"
    )
    parser = group.add_parser(
        "check",
        help="list what is in a folder of clips, what is missing, and what is broken",
        description="List what is in a folder of clips, what is missing, which frames do not decode, and whether "
        "low-resolution and high-resolution frames agree in size and phase. The exit status is not 0 if there is a error.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder of a dataset, or any folder of clips")
    names = (*FAMILIES, *DATASETS)
    parser.add_argument(
        "--dataset", choices=names, metavar="NAME", help=f"{', '.join(names)} (told by what is in the folder)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="decode only the first, middle and last image of each folder"
    )
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Check a folder and print the report."""
    from skipvsr.data.check import check_folder

    with progress_bar("clips", hidden=args.json) as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()
            if args.json:
                print_event("progress", clip=name)

        report = check_folder(args.folder, args.dataset, every_frame=not args.quick, on_clip=advance)
    if args.json:
        print_event("report", **{**asdict(report), "root": str(report.root)})
    else:
        print(report)
    if not report.ok:
        raise DataError(f"{args.folder} has {report.count}; see the list above")
