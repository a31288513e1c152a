"""`skipvsr compare A B [C...] OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skipvsr.report.compare import Look, compare


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "compare",
        help="two or more videos beside one another, to look at",
        description="Put videos or folders of images of one length side by side, or two with a wipe: as a video, or, if OUT is "
        "an image, one frame of it. Ours or not; those smaller than the largest are resized to it.",
    )
    parser.add_argument("sources", nargs="+", metavar="IN", type=Path, help="two or more videos or folders of images")
    parser.add_argument("destination", metavar="OUT", type=Path, help="a video, a folder, or an image (.png)")
    parser.add_argument("--frame", type=int, metavar="N", help="of an image, counted from 0 (the middle one)")
    parser.add_argument("--wipe", action="store_true", help="both in one picture, with a line between them")
    parser.add_argument("--crop", type=_crop, metavar="X,Y,W,H", help="show this part only")
    parser.add_argument("--zoom", type=int, default=1, metavar="N", help="enlarge its pixels (%(default)s)")
    parser.add_argument("--diff", action="store_true", help="add how much each differs from the first, in colour")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Compare, and say what is where."""
    look = Look(wipe=args.wipe, crop=args.crop, zoom=args.zoom, diff=args.diff)
    count = compare(args.sources, args.destination, look, frame=args.frame, overwrite=args.overwrite)
    names = (" | " if not args.wipe else " / ").join(source.name for source in args.sources)
    heat = ", then how each differs from the first" if args.diff else ""
    print(f"{args.destination}: {count:,} frame{'s' if count != 1 else ''}, from the left: {names}{heat}")


def _crop(text: str) -> tuple[int, int, int, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,WIDTH,HEIGHT, as in 100,50,64,64")
    left, top, width, height = (int(part) for part in parts)
    return left, top, width, height
