"""`skipvsr models`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from skipvsr.checkpoints.load import packaged_names, read_checkpoint
from skipvsr.checkpoints.native import Checkpoint
from skipvsr.evaluation.cost import cost_per_frame


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser("models", help="the packaged models, with their numbers and where they come from")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """List the packaged models."""
    models = {name: describe(read_checkpoint(name)) for name in packaged_names()}
    if args.json:
        print(json.dumps(models, indent=2))
        return
    for name, values in models.items():
        print(name)
        for key, value in values.items():
            print(f"  {key.replace('_', ' '):<34} {value}")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Size, cost and provenance of a model, flat enough to print."""
    config = checkpoint.config
    cost = cost_per_frame(config, 180, 320)
    shown = {
        "network": f"{config.channels} channels, {config.blocks} blocks a direction, {config.flow} flow, "
        f"{config.reconstruction} reconstruction",
        "parameters": sum(tensor.numel() for tensor in checkpoint.weights.values()),
        "gmacs_per_180x320_frame": round(cost.total / 1e9, 2),
    }
    for key, value in checkpoint.provenance.items():
        if isinstance(value, dict):
            shown |= {f"{key} {inner}": number for inner, number in value.items() if not isinstance(number, dict)}
        else:
            shown[key] = value
    return shown
