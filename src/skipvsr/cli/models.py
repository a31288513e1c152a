"""`skipvsr models`."""

from __future__ import annotations

import argparse
from typing import Any

from skipvsr.checkpoints.load import packaged_models


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser("models", help="the packaged models, with their numbers and where they come from")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """List the packaged models."""
    for model in packaged_models():
        print(model)
