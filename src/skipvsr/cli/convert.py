"""`skipvsr convert SRC DST`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skipvsr.checkpoints.convert import convert


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "convert",
        help="a BasicSR or mmagic checkpoint of BasicVSR -> a model folder",
        description="Convert a BasicVSR checkpoint of BasicSR or mmagic (also the backbone of RealBasicVSR) into a model "
        "folder in the layout of the Hugging Face Hub. No code in the file is ever run.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="a .pth or .safetensors file")
    parser.add_argument("destination", metavar="DST", type=Path, help="the folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Convert, and say what the checkpoint held."""
    convert(args.source, args.destination, overwrite=args.overwrite)
    print(f"{args.destination}: converted; use it with --model {args.destination}")
