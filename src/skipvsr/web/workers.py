"""The processes that decode files and run previews, and what happens when one of them dies."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from skipvsr.errors import InputError, SkipVSRError
from skipvsr.web import look

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Worker:
    """A process that calls functions for the server, one at a time; a new one takes its place if it dies."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def call(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """What the function returns there, or raises.

        Raises:
            InputError: the process died: of a crash, or because memory ran out.
        """
        pool = self._pool = self._pool or _pool()
        try:
            return await asyncio.wrap_future(pool.submit(function, *args, **kwargs))
        except BrokenProcessPool as error:
            if self._pool is pool:
                self._pool = None
            raise InputError(
                "the program that looked at this file crashed or ran out of memory; the file may be damaged"
            ) from error
        except SkipVSRError:
            raise
        except (MemoryError, RuntimeError) as error:
            raise InputError(f"this could not be done: {' '.join(str(error).split())[:300]}") from error

    def close(self) -> None:
        """End the process, whatever it does."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


class Workers:
    """One process for looking into files, one for previews, so that the filmstrip does not wait for the network."""

    def __init__(self) -> None:
        self.files = Worker()
        self.previews = Worker()

    def close(self) -> None:
        """End both."""
        self.files.close()
        self.previews.close()


class Latest:
    """Lets only the newest request of each person through: older ones that still wait are answered without being computed."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._newest: dict[str, int] = {}

    async def turn(self, person: str) -> bool:
        """Wait for a turn, to be ended by `done`; False: a newer request has come, and there is no turn."""
        number = self._newest[person] = self._newest.get(person, 0) + 1
        await self._lock.acquire()
        if self._newest[person] == number:
            return True
        self._lock.release()
        return False

    def done(self) -> None:
        """The turn has ended."""
        self._lock.release()


def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=look.prepare)
