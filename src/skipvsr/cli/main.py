"""`skipvsr`: one tool, one command each for what the library does."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version

from skipvsr.cli import calibrate, convert, data, models, train, upscale
from skipvsr.errors import SkipVSRError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status: 0, or not 0 with one line on standard error."""
    args = _parser().parse_args(arguments)
    sys.exit(run(args))


def run(args: argparse.Namespace) -> int:
    """Run a parsed command; errors of ours become one line and an exit status, other errors keep their traceback."""
    try:
        args.command(args)
    except SkipVSRError as error:
        if args.debug:
            raise
        _complain(args, str(error), error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        if args.debug:
            raise
        _complain(args, "interrupted; no output was left half-written", INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`skipvsr models | head`).
        sys.stderr.close()
        return 1
    return 0


def _complain(args: argparse.Namespace, message: str, exit_code: int) -> None:
    if getattr(args, "json", False):
        print(json.dumps({"event": "error", "message": message, "exit_code": exit_code}), flush=True)
    print(f"skipvsr: {' '.join(message.split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skipvsr", description="Video super-resolution x4 with a dial for compute.")
    parser.add_argument("--version", action="version", version=f"skipvsr {version('skipvsr')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (upscale, train, calibrate, data, convert, models):
        command = module.add_parser(commands)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
