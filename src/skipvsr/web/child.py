"""A skipvsr command in a child process, which reports its progress as JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psutil

# A line of JSON is short; what is longer is no such line.
_LINE_BYTES = 1 << 20
_KEPT_LINES = 20
_PATIENCE_SECONDS = 20.0
Event = dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """How a process ended: its exit status (negative: the signal), and its last words."""

    code: int
    words: str


class Child:
    """A running process.

    Args:
        module: that Python runs (`python -m`).
        words: its arguments.
        on_event: called with each object that it prints.
    """

    def __init__(self, module: str, words: Sequence[str], on_event: Callable[[Event], None]) -> None:
        self._command = [sys.executable, "-m", module, *words]
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: deque[str] = deque(maxlen=_KEPT_LINES)

    async def start(self) -> psutil.Process:
        """Start it, in a process group of its own: Ctrl-C is for the server, which ends it properly."""
        group: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            **group,
        )
        return psutil.Process(self._process.pid)

    async def wait(self) -> Ending:
        """Hand on what it prints until it has ended."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        await asyncio.gather(self._read_events(process.stdout), self._read_words(process.stderr))
        code = await process.wait()
        return Ending(code, self._stderr[-1] if self._stderr else "")

    def suspend(self) -> None:
        """Let it and its own children stand still, with all that they hold in memory."""
        _each(self._family(), "suspend")

    def resume(self) -> None:
        """Let them go on."""
        _each(self._family(), "resume")

    async def stop(self) -> None:
        """Ask it to end, which keeps what is finished; kill it if it does not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        family = self._family()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        _each(family, "resume")  # what stands still hears nothing
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE_SECONDS)
        except TimeoutError:
            _each(family, "kill")

    def _family(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    async def _read_events(self, stream: asyncio.StreamReader) -> None:
        async for line in _lines(stream):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self._on_event(event)

    async def _read_words(self, stream: asyncio.StreamReader) -> None:
        async for line in _lines(stream):
            text = line.decode(errors="replace").strip()
            if text:
                self._stderr.append(text)


def end(process: psutil.Process) -> None:
    """End a process that an earlier server left behind, suspended or not: asked first, killed later."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _each(family, "resume")
        try:
            process.wait(_PATIENCE_SECONDS)
        except psutil.TimeoutExpired:
            _each(family, "kill")


def signal_words(code: int) -> str:
    """What a negative exit status means."""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; memory may have run out" if name == "SIGKILL" else ""
    return f"the program that upscaled this was ended from outside or crashed ({name}{hint})"


def _each(family: list[psutil.Process], action: Literal["suspend", "resume", "kill"]) -> None:
    for process in family:
        with contextlib.suppress(psutil.Error):
            getattr(process, action)()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the limit: thrown away
            continue
        if not line:
            return
        yield line
