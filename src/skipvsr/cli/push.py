"""`skipvsr push DIR owner/name`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skipvsr.cli.show import add_json, print_event


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "push",
        help="upload a model folder to the Hugging Face Hub",
        description="Upload a model folder (config.json, model.safetensors, README.md) to the Hugging Face Hub as one commit. "
        "It is read whole first. Log in once with 'hf auth login', or set HF_TOKEN.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the model folder")
    parser.add_argument("repository", metavar="OWNER/NAME", help="where it goes; made if it does not exist")
    parser.add_argument("--message", default="", metavar="TEXT", help="of the commit (which folder was uploaded)")
    parser.add_argument("--tag", metavar="NAME", help="name this commit, as in v1")
    parser.add_argument("--private", action="store_true", default=None, help="a repository that is made is private")
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Upload, and say how to load what was uploaded."""
    from skipvsr.checkpoints.hub import push

    pinned = push(args.folder, args.repository, message=args.message, private=args.private, tag=args.tag)
    if args.json:
        print_event("report", repository=args.repository, revision=pinned.partition("@")[2], tag=args.tag)
        return
    print(f"{args.folder} is {pinned} now; use it with --model {args.repository}, or pinned with --model {pinned}")
