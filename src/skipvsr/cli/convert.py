"""`skipvsr convert SRC DST`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skipvsr.cli.show import add_json, print_event


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "convert",
        help="turn a BasicVSR checkpoint into a model folder",
        description="Convert a BasicVSR checkpoint of BasicSR or mmagic (also the backbone of RealBasicVSR) into a model "
        "folder in the layout of the Hugging Face Hub. Code in the file is never run.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="a .pth or .safetensors file")
    parser.add_argument("destination", metavar="DST", type=Path, help="the model folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Convert, and say what the checkpoint held."""
    from skipvsr.checkpoints.convert import convert

    checkpoint = convert(args.source, args.destination, overwrite=args.overwrite)
    config = checkpoint.config
    if args.json:
        print_event(
            "report", destination=str(args.destination), network=config.to_dict(), provenance=checkpoint.provenance
        )
        return
    print(
        f"{args.destination}: converted from {args.source} ({config.channels} channels, {config.blocks} residual blocks "
        f"per direction); use it with --model {args.destination}"
    )
