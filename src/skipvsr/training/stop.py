"""Stopping before the end: at a time limit, or when a signal asks for it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, NoReturn, Self, TypeAlias

import torch
from accelerate import Accelerator

from skipvsr.errors import ConfigError, PausedError

Piece: TypeAlias = Literal["step", "validation", "checkpoint"]

_LOG = logging.getLogger(__name__)
# How long a piece of work takes is the longest of the last so many.
_REMEMBERED = 10
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]


class Stop:
    """Says before each piece of work (a step, a validation) whether a run stops there; all processes say the same.

    It stops where that piece and a checkpoint would not be done by the time limit, as far as the last ones tell, but not before
    the first piece, so that a run that is taken up again and again comes to its end; or where a signal came. While it is
    entered, signals wait for the piece that is running: SIGTERM is like the time limit, SIGINT (Ctrl-C) and SIGHUP do after
    the checkpoint what they did before. A second Ctrl-C does it at once, unless there are several processes, which may get each
    signal twice: from the terminal and from their launcher.

    Args:
        accelerator: of the run.
        limit_seconds: from `began` on; None: no limit.
        began: when the run began, by the clock; None: now.
        clock: seconds that only grow.

    Raises:
        ConfigError: a limit that is not positive, or no number.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        limit_seconds: float | None = None,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if limit_seconds is not None and not limit_seconds > 0:
            raise ConfigError(f"the time limit is {limit_seconds} seconds; it must be more than 0")
        self.limit_seconds = limit_seconds
        self._accelerator = accelerator
        self.now = clock  # seconds, for whoever times something
        self._began = clock() if began is None else began
        self._seconds: dict[Piece, deque[float]] = {}
        self._too_late_here = False
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                # A signal that is ignored, as nohup does, stays ignored; SIGTERM would kill.
                if callable(handler) or (number == signal.SIGTERM and handler == signal.SIG_DFL):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    @contextmanager
    def timed(self, piece: Piece) -> Iterator[None]:
        """What runs inside is such a piece."""
        began = self.now()
        yield
        self._seconds.setdefault(piece, deque(maxlen=_REMEMBERED)).append(self.now() - began)

    def surprised_by(self, piece: Piece) -> bool:
        """Whether such a piece may take longer than is left: there is a limit, and none was timed yet."""
        return self.limit_seconds is not None and piece not in self._seconds

    def before(self, piece: Piece) -> bool:
        """Whether to stop instead of beginning such a piece; every process must ask."""
        self._too_late_here = self._too_late(piece)
        stop = self._signal is not None or self._too_late_here
        if self._accelerator.num_processes == 1:
            return stop
        said = self._accelerator.reduce(torch.tensor(float(stop), device=self._accelerator.device), reduction="sum")
        assert isinstance(said, torch.Tensor)
        return said.item() > 0

    def end(self, where: str) -> NoReturn:
        """Leave the run, whose checkpoint is written; `where` says how far it came.

        Raises:
            PausedError: at the time limit, after SIGTERM, or because another process stopped.
            KeyboardInterrupt: after Ctrl-C or SIGHUP, where these raise it.
        """
        before = self._before.get(self._signal) if self._signal is not None else None
        asked, saved = self._signal, f"{where} is saved; go on with the same command and --resume"
        self.__exit__()
        if asked is not None and asked != signal.SIGTERM and callable(before):
            try:
                before(asked, None)
            except KeyboardInterrupt as interrupt:
                interrupt.add_note(saved)
                raise
        reason = "another process" if asked is None else signal.Signals(asked).name
        if asked is None and self._too_late_here and self.limit_seconds is not None:
            reason = f"the time limit of {spoken(self.limit_seconds)}"
        raise PausedError(f"stopped by {reason}; {saved}")

    def _too_late(self, piece: Piece) -> bool:
        if self.limit_seconds is None or not self._seconds.keys() & {"step", "validation"}:
            return False
        needed = sum(max(self._seconds.get(each, [0.0])) for each in (piece, "checkpoint"))
        return self.now() - self._began + needed > self.limit_seconds

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self._signal = self._signal is not None, self._signal or number
        before = self._before[number]
        if again and number == signal.SIGINT and self._accelerator.num_processes == 1 and callable(before):
            self.__exit__()
            before(number, frame)
        if not again and self._accelerator.is_main_process:
            hint = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            _LOG.warning("finishing this step and saving%s", hint)


def spoken(seconds: float) -> str:
    """A duration as the command line takes it: 90 s, 8m, 1h30m."""
    whole = round(seconds)
    if whole != seconds or whole % 60:
        return f"{seconds:g} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h" * (hours > 0) + f"{minutes}m" * (minutes > 0)
