"""Jobs in processes of their own: a crash of native code, memory that runs out or a hang costs one job, and no other."""

from __future__ import annotations

import copy
import logging
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any

import psutil

from skipvsr.errors import CrashError, SkipVSRError
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.options import JobOptions
from skipvsr.upscale.progress import Progress
from skipvsr.upscale.request import UpscaleReport

_LOG = logging.getLogger("skipvsr")
STALL_SECONDS = 1800.0
_TICK_SECONDS = 1.0
# How long a job that is told to stop has for what it leaves behind.
_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class IsolatedJob:
    """What `upscale_video` takes, in a form that can be handed to another process.

    Args:
        source, destination: as for `upscale_video`.
        model: as `packed_model` makes it.
        options: with the device that is to be used, not "auto".
        threads: of torch on the CPU.
    """

    source: Path
    destination: Path
    model: bytes
    options: JobOptions
    threads: int


def packed_model(model: AnyModel) -> bytes:
    """A model as bytes, with its weights on the CPU; the model itself stays where it is."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return pickle.dumps(model if on_cpu else copy.deepcopy(model).cpu())


@dataclass(frozen=True)
class Note:
    """A log record of the process that does the job."""

    level: int
    message: str


@dataclass(frozen=True)
class Failure:
    """An error that ended a job. Pickling leaves out what an error was raised from, and keeps its notes.

    Args:
        error: what was raised.
        of_options: it concerns the options, and so every job that has them.
    """

    error: SkipVSRError
    of_options: bool = False


@dataclass(frozen=True)
class Defect:
    """An unexpected exception: a defect of this package."""

    summary: str
    traceback: str


@dataclass(frozen=True)
class Interruption:
    """The job was told to stop. `notes`: what is kept of it."""

    notes: tuple[str, ...]


class OptionsRefused(Exception):  # noqa: N818 - not an error of its own
    """Carries an error that concerns every job with these options."""

    def __init__(self, error: SkipVSRError) -> None:
        super().__init__(str(error))
        self.error = error


class JobProcess:
    """A process that waits for a job, does it and ends. A context manager: once it is left, the process is gone.

    It has imported everything when the job comes, so that the next one can get ready while another works.
    """

    def __init__(self) -> None:
        # Ctrl-C reaches all processes of a terminal; here the parent says what is to be done about it.
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            f"sys.path[:] = {sys.path!r}; from skipvsr.upscale.worker import main; main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=-1
        )
        self._messages: SimpleQueue[Any] = SimpleQueue()
        self._activity: object = None

    def __enter__(self) -> JobProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waiting(self) -> bool:
        """Whether it can still be given a job."""
        return self._process.poll() is None

    def run(
        self,
        job: IsolatedJob,
        on_progress: Callable[[Progress], object] | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> UpscaleReport:
        """Have the job done; called once.

        Args:
            job: what is to be done.
            on_progress: called in the calling thread, as for `upscale_video`.
            stall_seconds: the job is given up where for so long no progress was made and no byte was read or written.

        Raises:
            SkipVSRError: as `upscale_video` does.
            CrashError: the process ended without a result, or hung.
            OptionsRefused: the model cannot follow the options, whatever the source.
        """
        try:
            self._send(job)
            self._activity = self._bytes_moved()
            while True:
                message = self._next_message(job, stall_seconds)
                if isinstance(message, Progress):
                    if on_progress is not None:
                        on_progress(message)
                elif isinstance(message, Note):
                    _LOG.log(message.level, "%s", message.message)
                else:
                    return _result(job, message, self._process)
        except SkipVSRError:
            raise
        except BaseException as error:
            for note in self._interrupt():
                error.add_note(note)
            raise

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # a job that nobody takes any more
                    continue

    def _send(self, job: IsolatedJob) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(job, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is noticed below
        Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                self._messages.put(pickle.load(self._process.stdout))
        except (EOFError, pickle.UnpicklingError, OSError, ValueError):
            self._messages.put(None)

    def _next_message(self, job: IsolatedJob, stall_seconds: float) -> Any:
        """The next message; None where the process has ended.

        Seconds are counted one by one, so that those in which this program was stopped (Ctrl-Z, a sleeping machine) do not
        count.
        """
        waited = 0.0
        while True:
            try:
                return self._messages.get(timeout=min(_TICK_SECONDS, stall_seconds))
            except Empty:
                waited += min(_TICK_SECONDS, stall_seconds)
            if waited >= stall_seconds:
                if not self._has_moved_bytes():
                    self.close()
                    raise CrashError(
                        f"{job.source} was given up: for {_duration(stall_seconds)} nothing got any further, so a decoder or "
                        "an encoder hangs; convert the file first, or leave it out"
                    )
                waited = 0.0

    def _has_moved_bytes(self) -> bool:
        """Whether the process has read or written anything since the last look: it decodes what a job has done before it
        was stopped, or joins the parts of a long video."""
        before, self._activity = self._activity, self._bytes_moved()
        return self._activity != before

    def _bytes_moved(self) -> object:
        try:
            return psutil.Process(self._process.pid).io_counters()  # pyright: ignore[reportAttributeAccessIssue]
        except (psutil.Error, AttributeError, OSError):  # not on every system
            return None

    def _interrupt(self) -> tuple[str, ...]:
        """Tell the job to stop, wait for it, and return what it says of what is kept."""
        notes: tuple[str, ...] = ()
        self._process.terminate()
        try:
            while (message := self._messages.get(timeout=_GRACE_SECONDS)) is not None:
                if isinstance(message, Interruption):
                    notes = message.notes
        except Empty:
            notes = ()
        self.close()
        return notes


def _result(job: IsolatedJob, message: Any, process: subprocess.Popen[bytes]) -> UpscaleReport:
    """The report; or what went wrong, raised."""
    if isinstance(message, UpscaleReport):
        return message
    if isinstance(message, Failure):
        if message.of_options:
            raise OptionsRefused(message.error)
        raise message.error
    if isinstance(message, Defect):
        raise CrashError(
            f"{job.source} met a defect of skipvsr ({message.summary}); please report it, and leave the file out until then"
        ) from RuntimeError(message.traceback)
    raise CrashError(f"{job.source} {_how_it_ended(process.wait())}")


def _how_it_ended(status: int) -> str:
    """In words that follow the name of the file."""
    if status >= 0:
        return f"ended the process that worked on it (status {status}); please report it with the file"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return (
            "was not finished: the system ended its process (SIGKILL), most likely because memory ran out; close other "
            "programs, or choose a smaller window"
        )
    return f"crashed the process that worked on it ({name}); convert the file first, and please report it with the file"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
