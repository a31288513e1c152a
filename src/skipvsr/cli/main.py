"""`skipvsr`: one tool, one command each for what the library does."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import NoReturn

from skipvsr.errors import SkipVSRError

_LOG = logging.getLogger("skipvsr")
# Everybody's way of saying which signal ended a program: 128 and its number.
INTERRUPTED = 128 + signal.SIGINT
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a request to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status: 0, or not 0 with one line on standard error."""
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    else:
        before = {}
    try:
        try:
            args = _parser().parse_args(arguments)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        sys.exit(run(args))
    finally:
        # After a signal the others stay ignored to the very end.
        for number, handler in before.items():
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The first signal stops the work; those after it must not stop the cleaning up."""
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def run(args: argparse.Namespace) -> int:
    """Run a parsed command; errors of ours become one line and an exit status, other errors keep their traceback."""
    notes: logging.Handler = _JsonNotes() if getattr(args, "json", False) is True else logging.StreamHandler()
    notes.setFormatter(logging.Formatter("skipvsr: note: %(message)s"))
    notes.setLevel(logging.ERROR if getattr(args, "quiet", False) else logging.WARNING)
    _LOG.addHandler(notes)
    try:
        return _run(args)
    finally:
        _LOG.removeHandler(notes)


class _JsonNotes(logging.Handler):
    """Prints notes as JSON objects on standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        print(json.dumps({"event": "notice", "message": record.getMessage()}), flush=True)


def _run(args: argparse.Namespace) -> int:
    try:
        args.command(args)
    except SkipVSRError as error:
        if args.debug:
            raise
        _complain(args, _with_notes(error), error.exit_code)
        return error.exit_code
    except KeyboardInterrupt as error:
        if args.debug:
            raise
        exit_code = getattr(error, "exit_code", INTERRUPTED)
        _complain(args, _with_notes(error, "interrupted; no output was left half-written"), exit_code)
        return exit_code
    except BrokenPipeError:
        # Whoever read our output has gone (`skipvsr models | head`).
        sys.stderr.close()
        return 1
    return 0


def _with_notes(error: BaseException, message: str | None = None) -> str:
    return "; ".join([message or str(error), *getattr(error, "__notes__", [])])


def _complain(args: argparse.Namespace, message: str, exit_code: int) -> None:
    piped = str(getattr(args, "destination", "")) == "-"
    if getattr(args, "json", False) is True and not piped:  # of `evaluate` it is a file
        print(json.dumps({"event": "error", "message": message, "exit_code": exit_code}), flush=True)
    print(f"skipvsr: {' '.join(message.split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    # Here, and not above: loading torch takes seconds, in which somebody may well press Ctrl-C.
    from skipvsr.cli import calibrate, compare, convert, data, evaluate, models, reproduce, train, upscale

    parser = argparse.ArgumentParser(prog="skipvsr", description="Video super-resolution x4 with a dial for compute.")
    parser.add_argument("--version", action="version", version=f"skipvsr {version('skipvsr')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (upscale, compare, evaluate, train, calibrate, reproduce, data, convert, models):
        command = module.add_parser(commands)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
