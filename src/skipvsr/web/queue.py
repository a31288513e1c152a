"""The queue: films one after the other in the order in which they were added; short jobs run beside them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from skipvsr.errors import ConfigError, DecodeError, OutputError
from skipvsr.web.child import Child, Ending, Event, end, signal_words
from skipvsr.web.jobs import Job, Kind, State
from skipvsr.web.settings import Limits
from skipvsr.web.store import Store

_RECORDS = "jobs"


class Queue:
    """All jobs of all persons. At most one film and one short job (a section, a copy) run at a time.

    Args:
        store: the work folder.
        limits: how many a person may have.
        device: on which they run.
        changed: called with the person for whom something is new.
        may_read: whether a file may be read: folders may be allowed no longer.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        device: str,
        changed: Callable[[str], None],
        may_read: Callable[[Path], bool],
    ) -> None:
        self._store, self._limits, self._device, self._changed = store, limits, device, changed
        self._may_read = may_read
        self._jobs: list[Job] = []
        self._children: dict[str, Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def open(self) -> None:
        """Find the jobs of before, end what still runs of them, and go on."""
        for record in self._store.read(_RECORDS):
            with contextlib.suppress(KeyError, TypeError, ValueError, ConfigError):
                self._jobs.append(Job.from_record(record))
        for job in self._jobs:
            await asyncio.to_thread(_end_left_over, job)
            job.process = None
            if job.state is State.RUNNING:
                job.state = State.WAITING
        known = {job.folder for job in self._jobs}
        for folder in self._store.results.iterdir():
            if folder not in known:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._save()
        self._next()

    async def close(self) -> None:
        """Stop what runs; it goes on when the server is started again."""
        self._closing = True
        tasks = list(self._tasks.values())
        await asyncio.gather(*(child.stop() for child in self._children.values()))
        await asyncio.gather(*tasks, return_exceptions=True)
        self._save()

    def of(self, person: str) -> list[Job]:
        """A person's jobs, in order."""
        return [job for job in self._jobs if job.person == person]

    def get(self, person: str, id: str) -> Job:
        """One of them. Raises KeyError."""
        for job in self.of(person):
            if job.id == id:
                return job
        raise KeyError(id)

    def uses(self, path: Path) -> bool:
        """Whether an unfinished job reads a file."""
        return any(job.source == path and not job.state.finished for job in self._jobs)

    def add(self, job: Job) -> Job:
        """Put a job at the end, unless the person has the very same one already, unfinished or done: then that one.

        Raises:
            ConfigError: the person has as many as can be.
            OutputError: its folder cannot be made.
        """
        for other in self.of(job.person):
            same = (other.kind, other.source, other.settings) == (job.kind, job.source, job.settings)
            alive = not other.state.finished or (other.state is State.DONE and other.result.exists())
            if same and alive:
                return other
        if sum(not other.state.finished for other in self.of(job.person)) >= self._limits.jobs:
            raise ConfigError(
                f"{self._limits.jobs} jobs are unfinished, which is as many as can be; wait, or cancel some"
            )
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the work folder cannot be written ({error.strerror})") from error
        self._jobs.append(job)
        self._tell(job)
        self._next()
        return job

    async def pause(self, job: Job) -> None:
        """Let it stand still where it is; it blocks the person's jobs behind it, so that the machine rests."""
        if job.state is State.RUNNING:
            child = self._children.get(job.id)
            if child is not None:
                child.suspend()
        elif job.state is not State.WAITING:
            raise ConfigError(f"a job that is {job.state} cannot be paused")
        job.state = State.PAUSED
        self._tell(job)

    async def resume(self, job: Job) -> None:
        """Let it go on."""
        if job.state is not State.PAUSED:
            raise ConfigError(f"a job that is {job.state} cannot be resumed")
        if job.id in self._tasks:
            job.state = State.RUNNING
            child = self._children.get(job.id)
            if child is not None:
                child.resume()
        else:
            job.state = State.WAITING
        self._tell(job)
        self._next()

    async def cancel(self, job: Job) -> None:
        """End it and throw away what it has made."""
        if job.state.finished:
            raise ConfigError(f"a job that is {job.state} cannot be cancelled")
        job.state = State.CANCELLED
        self._tell(job)
        await self._stop(job)
        await asyncio.to_thread(_empty, job.folder)
        self._next()

    async def retry(self, job: Job) -> None:
        """Try again what failed or was cancelled."""
        if job.state not in (State.FAILED, State.CANCELLED):
            raise ConfigError(f"a job that is {job.state} cannot be tried again")
        if "--no-resume" in job.message:  # what is unfinished belongs to another version of the program
            await asyncio.to_thread(_empty, job.folder)
        job.state, job.message, job.progress = State.WAITING, "", {}
        self._jobs.remove(job)
        self._jobs.append(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        self._tell(job)
        self._next()

    async def move(self, job: Job, step: int) -> None:
        """Change places with the person's unfinished job before it (-1) or behind it (1)."""
        own = [each for each in self.of(job.person) if each.kind is job.kind and not each.state.finished]
        place = own.index(job) if job in own else -1
        if place < 0 or not 0 <= place + step < len(own):
            return
        one, two = self._jobs.index(job), self._jobs.index(own[place + step])
        self._jobs[one], self._jobs[two] = self._jobs[two], self._jobs[one]
        self._tell(job)
        self._next()

    async def remove(self, job: Job) -> None:
        """Forget a job, with all that it has made."""
        if not job.state.finished:
            await self.cancel(job)
        if job in self._jobs:
            self._jobs.remove(job)
        self._tell(job)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    def _next(self) -> None:
        """Start what may start now."""
        if self._closing:
            return
        for lane in ((Kind.FILM,), (Kind.SECTION, Kind.COPY)):
            if any(job.kind in lane and job.id in self._tasks and job.state is State.RUNNING for job in self._jobs):
                continue
            job = self._first_waiting(lane)
            if job is not None:
                job.state = State.RUNNING
                self._tasks[job.id] = asyncio.create_task(self._run(job))

    def _first_waiting(self, lane: tuple[Kind, ...]) -> Job | None:
        resting: set[str] = set()
        for job in self._jobs:
            if job.kind not in lane or job.person in resting:
                continue
            if job.state is State.PAUSED:
                resting.add(job.person)
            elif job.state is State.WAITING and job.id not in self._tasks:
                return job
        return None

    async def _run(self, job: Job) -> None:
        ending = Ending(1, f"{job.name} is in no folder that may be read")
        job.message, job.progress, errors = "", {}, []
        try:
            runs = job.runs(self._device) if self._may_read(job.source) else []
            for number, run in enumerate(runs):
                if run.result.exists():
                    ending = Ending(0, "")
                    continue  # made before the server was stopped
                job.progress = {"run": number, "runs": len(runs)}
                child = Child(run.module, run.words, lambda event: self._hear(job, event, errors))
                self._children[job.id] = child
                process = await child.start()
                with contextlib.suppress(psutil.Error):
                    job.process = (process.pid, process.create_time())
                self._tell(job)
                if job.state is not State.RUNNING:  # paused or cancelled while it was started
                    await self._stop(job) if job.state is State.CANCELLED else child.suspend()
                ending = await child.wait()
                if ending.code or not run.result.exists():
                    break
        except OSError as error:
            ending = Ending(1, f"the job could not be started ({error.strerror})")
        finally:
            self._children.pop(job.id, None)
            self._tasks.pop(job.id, None)
            job.process = None
            self._conclude(job, ending, errors)
            self._tell(job)
            self._next()

    def _conclude(self, job: Job, ending: Ending, errors: list[str]) -> None:
        if job.state is State.CANCELLED:
            return
        if job.result.exists() and ending.code in (0, DecodeError.exit_code):
            job.state = State.DONE
            job.message = job.in_words(errors[-1]) if ending.code and errors else ""
        elif self._closing:
            job.state = State.WAITING if job.state is State.RUNNING else job.state
        else:
            words = signal_words(ending.code) if ending.code < 0 else ending.words or "it ended without a result"
            job.state, job.message = State.FAILED, job.in_words(errors[-1] if errors else words)

    def _hear(self, job: Job, event: Event, errors: list[str]) -> None:
        kind = event.pop("event", None)
        if kind == "progress":
            job.progress = {**job.progress, **event}
        elif kind == "report":
            job.report = {name: value for name, value in event.items() if name != "destination"}
        elif kind in ("error", "notice"):
            if kind == "error":
                errors.append(str(event.get("message", "")))
            job.message = job.in_words(str(event.get("message", "")))
        self._changed(job.person)

    async def _stop(self, job: Job) -> None:
        task, child = self._tasks.get(job.id), self._children.get(job.id)
        if child is not None:
            await child.stop()
        if task is not None and task is not asyncio.current_task():
            await asyncio.gather(task, return_exceptions=True)

    def _tell(self, job: Job) -> None:
        self._save()
        self._changed(job.person)

    def _save(self) -> None:
        records: list[dict[str, Any]] = [job.to_record() for job in self._jobs]
        with contextlib.suppress(OutputError):  # a full disk must not stop the queue; the next change tries again
            self._store.write(_RECORDS, records)


def _end_left_over(job: Job) -> None:
    """A process that a killed server left behind would write the same output as the one that is started now."""
    if job.process is None:
        return
    number, created = job.process
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(number)
        if abs(process.create_time() - created) < 1:
            end(process)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
