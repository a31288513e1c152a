"""`skipvsr export MODEL --onnx DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skipvsr.cli.show import add_json, print_event


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "export",
        help="write a model as ONNX graphs",
        description="Write flow, one step of each recurrence and the reconstruction of a model as ONNX graphs, for frames of "
        "any size. The router is left out: every residual block runs, or the first of each recurrence (--blocks).",
    )
    parser.add_argument("model", metavar="MODEL", help="packaged name, folder, checkpoint or Hub id")
    parser.add_argument("--onnx", metavar="DIR", type=Path, required=True, help="the folder to make")
    parser.add_argument("--blocks", type=int, metavar="N", help="residual blocks of each recurrence (all)")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if it is an export")
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Export, and say what was written."""
    from skipvsr.checkpoints.export import export_onnx
    from skipvsr.checkpoints.load import load_model

    model = load_model(args.model, device="cpu")
    folder = export_onnx(model, args.onnx, blocks=args.blocks, name=args.model, overwrite=args.overwrite)
    files = sorted(folder.iterdir())
    if args.json:
        print_event("report", folder=str(folder), files={path.name: path.stat().st_size for path in files})
        return
    for path in files:
        print(f"{path} ({path.stat().st_size:,} bytes)")
