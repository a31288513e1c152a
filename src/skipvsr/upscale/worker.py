"""The child process of an `IsolatedJob`: reads the job from standard input, writes progress and result to standard output."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import traceback
from threading import Lock, Thread
from types import FrameType
from typing import Any, BinaryIO, NoReturn

import torch

from skipvsr.allocation import keep_freed_memory
from skipvsr.errors import SkipVSRError
from skipvsr.inference.upscaler import Upscaler
from skipvsr.upscale.isolated import Defect, Failure, Interruption, IsolatedJob, Note
from skipvsr.upscale.job import upscale_video

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main() -> NoReturn:
    """Do one job. Without a whole one (standard input ends) there is nothing to do."""
    keep_freed_memory()
    replies = Replies(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever else prints must not garble the replies
    try:
        job: IsolatedJob = pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):
        # The parent has ended, perhaps in the middle of it.
        os._exit(0)
    Thread(target=_end_with_parent, daemon=True).start()
    replies.send(_outcome(job, replies))
    # Native code that is taken down may crash, after all is done.
    os._exit(0)


class Replies(logging.Handler):
    """Sends objects to the parent; as a log handler, what is logged."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(logging.WARNING)
        self._stream = stream
        self._one_at_a_time = Lock()

    def send(self, message: Any) -> None:
        """Send one object, at once."""
        with self._one_at_a_time:
            pickle.dump(message, self._stream)
            self._stream.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log record."""
        self.send(Note(record.levelno, record.getMessage()))


def _outcome(job: IsolatedJob, replies: Replies) -> Any:
    """Do the job, and return the last message about it."""
    logging.getLogger("skipvsr").addHandler(replies)
    try:
        for number in _SIGNALS:
            signal.signal(number, _interrupt)
        torch.set_num_threads(job.threads)
        model = pickle.loads(job.model)
        try:
            Upscaler(model, job.options.compute, job.options.stream)
        except SkipVSRError as error:
            return Failure(error, of_options=True)
        return upscale_video(job.source, job.destination, model, **job.options.to_keywords(), on_progress=replies.send)
    except SkipVSRError as error:
        return Failure(error)
    except KeyboardInterrupt as error:
        return Interruption(tuple(getattr(error, "__notes__", ())))
    except Exception as error:  # noqa: BLE001 - the parent says what it was
        return Defect(" ".join(f"{type(error).__name__}: {error}".split()), traceback.format_exc())


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The first signal stops the job; later ones must not interrupt the clean-up."""
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """End where the parent has ended, in whatever way: finished parts stay, as after a crash."""
    while os.read(0, 1):
        continue
    os._exit(1)
