"""`skipvsr`: the command line, with one module for each command."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from skipvsr.allocation import keep_freed_memory
from skipvsr.cli import (
    benchmark,
    calibrate,
    compare,
    convert,
    data,
    evaluate,
    export,
    models,
    push,
    reproduce,
    serve,
    train,
    upscale,
)
from skipvsr.cli.parser import CommandParser
from skipvsr.cli.show import print_event
from skipvsr.errors import SkipVSRError

_LOG = logging.getLogger("skipvsr")
# The usual exit status of a program that a signal ended: 128 plus the number of the signal.
INTERRUPTED = 128 + signal.SIGINT
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a request to end (SIGTERM, SIGHUP)."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status: 0, or another number with one line on standard error."""
    keep_freed_memory()
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    else:
        before = {}
    try:
        try:
            args = make_parser().parse_args(arguments)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        sys.exit(run(args))
    finally:
        # After a signal, further ones stay ignored until the process ends.
        for number, handler in before.items():
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The first signal stops the work; later ones must not interrupt the clean-up."""
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def run(args: argparse.Namespace) -> int:
    """Run a parsed command; a SkipVSRError becomes one line and an exit status, other errors keep their traceback."""
    notes: logging.Handler = _JsonNotes() if args.json else logging.StreamHandler()
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
        print_event("notice", message=record.getMessage())


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
        # The reader of our output has exited (`skipvsr models | head`).
        sys.stderr.close()
        return 1
    return 0


def _with_notes(error: BaseException, message: str | None = None) -> str:
    return "; ".join([message or str(error), *getattr(error, "__notes__", [])])


def _complain(args: argparse.Namespace, message: str, exit_code: int) -> None:
    piped = str(getattr(args, "destination", "")) == "-"
    if args.json and not piped:
        print_event("error", message=message, exit_code=exit_code)
    print(f"skipvsr: {' '.join(message.split())}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. Making it imports nothing heavy: `skipvsr --help` must not wait for torch."""
    parser = CommandParser(prog="skipvsr", description="Video super-resolution x4 with adjustable compute.")
    parser.add_argument("-V", "--version", action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (
        upscale,
        serve,
        compare,
        evaluate,
        train,
        calibrate,
        reproduce,
        data,
        convert,
        export,
        models,
        push,
        benchmark,
    ):
        command = module.add_parser(commands)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class _Version(argparse.Action):
    """Prints the version, which is looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"skipvsr {version('skipvsr')}")
        parser.exit()
