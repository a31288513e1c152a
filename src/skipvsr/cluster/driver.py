"""The driver of a job on Ray: hands chunks to workers, notices what is lost, and has films joined."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OwnerDiedError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from skipvsr.cluster.film_plan import FilmSettings, FilmTask, NetworkId
from skipvsr.cluster.outcome import ClusterMeter, ClusterProgress, FilmOutcome
from skipvsr.cluster.slots import Slot, Slots
from skipvsr.cluster.store import is_url, store_and_name
from skipvsr.cluster.stragglers import worth_repeating
from skipvsr.cluster.workers import ChunkTicket, Failure, FilmOpened, FilmReader
from skipvsr.errors import DecodeError, ResourceError, SkipVSRError

# Times that a chunk is given to a worker, or a film to a reader, before the film counts as failed.
_TRIES = 4
# Films that one reader has open at a time.
_FILMS_PER_READER = 4
_TICK_SECONDS = 0.5
_POLL_SECONDS = 1.0


@dataclass(eq=False)
class _Work:
    """A chunk on its way: waiting, with one worker or two, or being made safe."""

    film: _OpenFilm
    ticket: ChunkTicket
    tries: int = 0
    slots: list[Slot] = field(default_factory=list)
    finished: bool = False


@dataclass(eq=False)
class _Reader:
    """A reader actor, and the films that it has."""

    actor: Any
    films: int = 0


@dataclass(eq=False)
class _OpenFilm:
    """A film that is being worked on."""

    number: int
    task: FilmTask
    reader: _Reader
    tries: int
    since: float
    opened: FilmOpened | None = None
    plan: Any = None
    asking: bool = False
    exhausted: bool = False
    joining: bool = False
    over: bool = False
    unsafe: set[int] = field(default_factory=set)


class Driver:
    """Does all films of a job on the workers of a Ray cluster that this process is connected to.

    Args:
        tasks: the films.
        settings: what is done.
        network: that is used.
        slots: the workers.
    """

    def __init__(self, tasks: list[FilmTask], settings: FilmSettings, network: NetworkId, slots: Slots) -> None:
        self._settings, self._network, self._slots = settings, network, slots
        self._waiting: deque[tuple[int, FilmTask, int]] = deque((number, task, 0) for number, task in enumerate(tasks))
        self._open: dict[int, _OpenFilm] = {}
        self._ready: deque[_Work] = deque()
        self._pending: dict[Any, Callable[[Any], None]] = {}
        self._readers: list[_Reader] = []
        self._outcomes: deque[FilmOutcome] = deque()
        self._meter = ClusterMeter(len(tasks))
        self._polled = 0.0
        self._asked: set[tuple[str, int]] = set()

    def run(self, on_progress: Callable[[ClusterProgress], object] | None = None) -> Iterator[FilmOutcome]:
        """Yield what becomes of each film, as it is done.

        Raises:
            ResourceError: no worker is left.
        """
        while self._waiting or self._open:
            for slot in self._slots.look():
                self._then(slot.actor.hello.remote(), lambda hello, slot=slot: self._hello(slot, hello))
            self._ask_for_chunks()
            self._hand_out()
            self._poll()
            if not self._pending:
                time.sleep(_TICK_SECONDS)
                continue
            done, _ = ray.wait(list(self._pending), num_returns=1, timeout=_TICK_SECONDS, fetch_local=False)
            for reference in done:
                self._pending.pop(reference)(_fetched(reference))
            if on_progress is not None:
                on_progress(self._progress())
            while self._outcomes:
                self._meter.films_done += 1
                yield self._outcomes.popleft()

    def _then(self, reference: Any, handle: Callable[[Any], None]) -> None:
        """Call `handle` with the result when it is there, or with the RayError in its place."""
        self._pending[reference] = handle

    def _hello(self, slot: Slot, hello: Any) -> None:
        if isinstance(hello, RayError):
            self._slots.lose(slot, str(hello))
        else:
            self._slots.introduce(slot, hello)

    # Films and their chunks.

    def _ask_for_chunks(self) -> None:
        """Have frames decoded for the workers, and a few chunks more than there are workers: nothing grows with the films."""
        workers = max(1, len(self._slots.all))
        wanted = workers + max(1, workers // 4)
        wanted -= len(self._ready) + len(self._slots.busy()) + sum(film.asking for film in self._open.values())
        for film in list(self._open.values()):
            if wanted > 0 and film.opened is not None and not film.asking and not film.exhausted:
                film.asking = True
                wanted -= 1
                self._then(
                    film.reader.actor.next_chunk.remote(film.number),
                    lambda ticket, film=film: self._chunk(film, ticket),
                )
        opening = sum(film.opened is None for film in self._open.values())
        while wanted > opening and self._waiting and opening < max(2, workers):
            number, task, tries = self._waiting.popleft()
            # One film by itself is refused where its output exists; of many, it is done already.
            if (self._meter.films_total > 1 or tries) and self._is_there(task):
                self._outcomes.append(FilmOutcome(task))
                continue
            self._open_film(number, task, tries)
            opening += 1

    def _is_there(self, task: FilmTask) -> bool:
        store, name = store_and_name(task.destination)
        return not self._settings.output.overwrite and store.exists(name)

    def _open_film(self, number: int, task: FilmTask, tries: int) -> None:
        reader = self._reader(task)
        reader.films += 1
        film = self._open[number] = _OpenFilm(number, task, reader, tries, time.monotonic())
        self._then(reader.actor.open.remote(number, task), lambda opened: self._opened(film, opened))

    def _reader(self, task: FilmTask) -> _Reader:
        """A reader that has room: on this machine for its own paths, anywhere for URLs."""
        free = [reader for reader in self._readers if reader.films < _FILMS_PER_READER]
        if free:
            return min(free, key=lambda reader: reader.films)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        anywhere = is_url(task.source) and is_url(task.destination)
        options = {"num_cpus": 0, "scheduling_strategy": "SPREAD" if anywhere else here}
        actor = ray.remote(FilmReader).options(**options).remote(self._settings, self._network)
        self._readers.append(_Reader(actor))
        return self._readers[-1]

    def _opened(self, film: _OpenFilm, opened: Any) -> None:
        if self._lost_reader(film, opened):
            return
        if isinstance(opened, Failure):
            self._end(film, FilmOutcome(film.task, error=opened.error))
            return
        film.opened = opened
        film.plan = ray.put(opened.plan)
        self._meter.safe[film.task.destination] = opened.safe
        self._meter.totals[film.task.destination] = opened.frame_count

    def _chunk(self, film: _OpenFilm, ticket: Any) -> None:
        film.asking = False
        if film.over or self._lost_reader(film, ticket):
            return
        if isinstance(ticket, Failure):
            self._end(film, FilmOutcome(film.task, error=ticket.error))
        elif ticket is None:
            film.exhausted = True
            self._join_if_done(film)
        else:
            film.unsafe.add(ticket.first)
            self._ready.append(_Work(film, ticket))

    def _join_if_done(self, film: _OpenFilm) -> None:
        if film.exhausted and not film.unsafe and not film.joining and not film.over:
            film.joining = True
            seconds = time.monotonic() - film.since
            self._then(film.reader.actor.join.remote(film.number, seconds), lambda joined: self._joined(film, joined))

    def _joined(self, film: _OpenFilm, joined: Any) -> None:
        if self._lost_reader(film, joined):
            return
        if isinstance(joined, Failure):
            self._end(film, FilmOutcome(film.task, error=joined.error))
            return
        report, notes = joined
        error = None
        if notes:
            place = film.task.destination
            error = DecodeError(f"{'; '.join(notes)}; the {report.frames} frames that could be read are in {place}")
        self._end(film, FilmOutcome(film.task, report=None if error else report, error=error))

    def _lost_reader(self, film: _OpenFilm, result: Any) -> bool:
        """Where the reader of a film is gone, begin the film again: what is safe of it stays."""
        if not isinstance(result, RayError):
            return False
        if isinstance(result, RayActorError) and film.reader in self._readers:
            self._readers.remove(film.reader)
        if not film.over:
            self._drop(film)
            if film.tries + 1 < _TRIES:
                self._waiting.appendleft((film.number, film.task, film.tries + 1))
            else:
                lost = f"{film.task.source} was given up: its reader was lost {_TRIES} times ({_in_one_line(result)})"
                self._outcomes.append(FilmOutcome(film.task, error=ResourceError(lost)))
        return True

    def _end(self, film: _OpenFilm, outcome: FilmOutcome) -> None:
        self._drop(film)
        film.reader.actor.close.remote(film.number)
        self._outcomes.append(outcome)

    def _drop(self, film: _OpenFilm) -> None:
        """Forget a film; what workers still do of it is not wanted any more."""
        film.over = True
        film.reader.films -= 1
        self._open.pop(film.number, None)
        self._ready = deque(work for work in self._ready if work.film is not film)

    # Workers.

    def _hand_out(self) -> None:
        """Give work to whoever waits; when there is none left, what slow workers still have, to faster ones."""
        for slot in self._slots.idle():
            work = self._ready.popleft() if self._ready else self._straggler(slot)
            if work is None:
                return
            slot.work, slot.since, slot.frames_now = work, time.monotonic(), 0
            work.slots.append(slot)
            said, result = slot.actor.upscale.options(num_returns=2).remote(work.film.plan, work.ticket)
            self._then(
                said, lambda failure, slot=slot, work=work, result=result: self._upscaled(slot, work, result, failure)
            )

    def _straggler(self, idle: Slot) -> _Work | None:
        """The chunk that this worker would be done with much before the one that has it."""
        typical = self._slots.seconds_per_frame()
        if typical is None or self._waiting or not all(film.exhausted for film in self._open.values()):
            return None
        for slot in sorted(self._slots.busy(), key=lambda slot: slot.since):
            work: _Work = slot.work
            if work.finished or work.film.over or len(work.slots) > 1:
                continue
            frames = work.ticket.frames
            expected = frames * (slot.seconds_per_frame or typical)
            if worth_repeating(time.monotonic() - slot.since, expected, frames * (idle.seconds_per_frame or typical)):
                return work
        return None

    def _upscaled(self, slot: Slot, work: _Work, result: Any, failure: Any) -> None:
        seconds = time.monotonic() - slot.since
        slot.work, slot.frames_now = None, 0
        if slot in work.slots:
            work.slots.remove(slot)
        if isinstance(failure, RayActorError) and slot.key in self._slots.all:
            self._slots.lose(slot, str(failure))
        if failure is not None:
            self._try_again(work, failure)
            return
        slot.frames, slot.seconds = slot.frames + work.ticket.frames, slot.seconds + seconds
        if work.finished or work.film.over:
            return
        work.finished = True
        film = work.film
        published = film.reader.actor.publish.remote(film.number, result)
        self._then(published, lambda result: self._published(work, result))

    def _try_again(self, work: _Work, result: RayError | Failure) -> None:
        if work.finished or work.film.over or work.slots:
            return
        if isinstance(result, RayError) and _lost_frames(result):
            self._lost_reader(work.film, result)
            return
        work.tries += 1
        if work.tries < _TRIES:
            self._ready.appendleft(work)
            return
        first, last, source = work.ticket.first, work.ticket.first + work.ticket.frames - 1, work.film.task.source
        error = result.error if isinstance(result, Failure) else result
        kind = type(error) if isinstance(error, SkipVSRError) else ResourceError
        failed = kind(f"frames {first} to {last} of {source} failed {_TRIES} times: {_in_one_line(error)}")
        self._end(work.film, FilmOutcome(work.film.task, error=failed))

    def _published(self, work: _Work, result: Any) -> None:
        film = work.film
        if film.over:
            return
        if isinstance(result, RayActorError):
            self._lost_reader(film, result)
        elif isinstance(result, RayError):
            # The worker's machine went with the result before it had arrived.
            work.finished = False
            self._try_again(work, result)
        elif isinstance(result, Failure):
            self._end(film, FilmOutcome(film.task, error=result.error))
        else:
            film.unsafe.discard(work.ticket.first)
            self._meter.safe[film.task.destination] += work.ticket.frames
            self._join_if_done(film)

    # How far it is.

    def _poll(self) -> None:
        """Ask the workers how far they are, those that have answered the last time."""
        if time.monotonic() - self._polled < _POLL_SECONDS:
            return
        self._polled = time.monotonic()
        for slot in self._slots.busy():
            if slot.key not in self._asked:
                self._asked.add(slot.key)
                reference = slot.actor.frames_done.options(concurrency_group="status").remote()
                self._then(reference, lambda frames, slot=slot: self._told(slot, frames))

    def _told(self, slot: Slot, frames: Any) -> None:
        self._asked.discard(slot.key)
        if isinstance(frames, int) and slot.work is not None:
            slot.frames_now = frames

    def _progress(self) -> ClusterProgress:
        return self._meter.now({slot.name: slot.frames_now for slot in self._slots.busy()})


def _fetched(reference: Any) -> Any:
    """A result, or the RayError in its place."""
    try:
        return ray.get(reference)
    except RayError as error:
        return error


def _lost_frames(error: RayError) -> bool:
    """Whether a worker failed because the frames went with their reader."""
    lost = ObjectLostError | OwnerDiedError
    return isinstance(error, lost) or isinstance(getattr(error, "cause", None), lost)


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
