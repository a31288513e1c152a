"""`skipvsr compare A B [C...] OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skipvsr.cli.show import add_json, print_event


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "compare",
        help="put videos beside one another, to look at them",
        description="Put two or more videos or folders of images beside one another, or two into one frame with a moving "
        "line between them (--wipe). All must have the same number of frames; smaller ones are enlarged to the largest. "
        "OUT is a video, or a single image if it ends in .png or .jpg.",
    )
    parser.add_argument("sources", nargs="+", metavar="IN", type=Path, help="two or more videos or folders of images")
    parser.add_argument(
        "destination", metavar="OUT", type=Path, help="a video, a folder for images, or one image (.png, .jpg)"
    )
    parser.add_argument(
        "--frame", type=int, metavar="N", help="if OUT is an image: which frame, from 0 (the middle one)"
    )
    parser.add_argument(
        "--wipe", action="store_true", help="both in one frame, with a line between them that moves across"
    )
    parser.add_argument(
        "--crop", type=_crop, metavar="X,Y,W,H", help="show only this part, in pixels of the largest input"
    )
    parser.add_argument("--zoom", type=int, default=1, metavar="N", help="enlarge each pixel N times (%(default)s)")
    parser.add_argument(
        "--diff", action="store_true", help="also show how much each input differs from the first, in colour"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Compare, and say which input is where."""
    from skipvsr.report.compare import CompareOptions, compare

    options = CompareOptions(wipe=args.wipe, crop=args.crop, zoom=args.zoom, diff=args.diff)
    count = compare(args.sources, args.destination, options, frame=args.frame, overwrite=args.overwrite)
    panels = [" / ".join(map(str, args.sources))] if args.wipe else list(map(str, args.sources))
    if args.diff:
        panels += [f"{source} - {args.sources[0]}" for source in args.sources[1:]]
    if args.json:
        print_event("report", destination=str(args.destination), frames=count, panels=panels)
        return
    print(f"{args.destination}: {count:,} frame{'s' if count != 1 else ''}; from left to right: {' | '.join(panels)}")


def _crop(text: str) -> tuple[int, int, int, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,WIDTH,HEIGHT, as in 100,50,64,64")
    left, top, width, height = (int(part) for part in parts)
    return left, top, width, height
