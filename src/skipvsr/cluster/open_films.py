"""The films of a job on Ray that are in work: their readers, their chunks, and what becomes of them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from skipvsr.cluster.calls import Calls, in_one_line, lost_frames
from skipvsr.cluster.film_plan import FilmSettings, FilmTask, NetworkId
from skipvsr.cluster.outcome import ClusterMeter, FilmOutcome
from skipvsr.cluster.slots import Slot
from skipvsr.cluster.store import is_url, store_and_name
from skipvsr.cluster.workers import ChunkTicket, Failure, FilmOpened, FilmReader
from skipvsr.errors import DecodeError, ResourceError, SkipVSRError

# Times that a chunk is given to a worker, or a film to a reader, before the film counts as failed.
_TRIES = 4
# Films that one reader has open at a time.
_FILMS_PER_READER = 4


@dataclass(eq=False)
class ChunkWork:
    """A chunk on its way: waiting, with one worker or two, or being made safe."""

    film: OpenFilm
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
class OpenFilm:
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


class OpenFilms:
    """Opens films as workers need frames, begins them again where their readers are lost, and has them joined.

    Attributes:
        ready: chunks that wait for a worker.
        outcomes: of films that are over.
        meter: counts what is safe.

    Args:
        tasks: the films.
        settings: what is done.
        network: that is used.
        calls: under way.
    """

    def __init__(self, tasks: list[FilmTask], settings: FilmSettings, network: NetworkId, calls: Calls) -> None:
        self.ready: deque[ChunkWork] = deque()
        self.outcomes: deque[FilmOutcome] = deque()
        self.meter = ClusterMeter(len(tasks))
        self._settings, self._network, self._calls = settings, network, calls
        self._waiting: deque[tuple[int, FilmTask, int]] = deque((number, task, 0) for number, task in enumerate(tasks))
        self._open: dict[int, OpenFilm] = {}
        self._readers: list[_Reader] = []

    @property
    def over(self) -> bool:
        """Whether there is an outcome of every film."""
        return not self._waiting and not self._open

    @property
    def exhausted(self) -> bool:
        """Whether every chunk of every film has been handed out."""
        return not self._waiting and all(film.exhausted for film in self._open.values())

    def ask_for_chunks(self, workers: int, busy: int) -> None:
        """Have frames decoded for the workers, and a few chunks more than there are workers: nothing grows with the films.

        Args:
            workers: how many there are.
            busy: how many of them have a chunk.
        """
        workers = max(1, workers)
        wanted = workers + max(1, workers // 4)
        wanted -= len(self.ready) + busy + sum(film.asking for film in self._open.values())
        for film in list(self._open.values()):
            if wanted > 0 and film.opened is not None and not film.asking and not film.exhausted:
                film.asking = True
                wanted -= 1
                self._calls.then(
                    film.reader.actor.next_chunk.remote(film.number),
                    lambda ticket, film=film: self._chunk(film, ticket),
                )
        opening = sum(film.opened is None for film in self._open.values())
        while wanted > opening and self._waiting and opening < max(2, workers):
            number, task, tries = self._waiting.popleft()
            # One film by itself is refused where its output exists; of many, it is done already.
            if (self.meter.films_total > 1 or tries) and self._is_there(task):
                self.outcomes.append(FilmOutcome(task))
                continue
            self._open_film(number, task, tries)
            opening += 1

    def _is_there(self, task: FilmTask) -> bool:
        store, name = store_and_name(task.destination)
        return not self._settings.output.overwrite and store.exists(name)

    def _open_film(self, number: int, task: FilmTask, tries: int) -> None:
        reader = self._reader(task)
        reader.films += 1
        film = self._open[number] = OpenFilm(number, task, reader, tries, time.monotonic())
        self._calls.then(reader.actor.open.remote(number, task), lambda opened: self._opened(film, opened))

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

    def _opened(self, film: OpenFilm, opened: Any) -> None:
        if self._lost_reader(film, opened):
            return
        if isinstance(opened, Failure):
            self._end(film, FilmOutcome(film.task, error=opened.error))
            return
        film.opened = opened
        film.plan = ray.put(opened.plan)
        self.meter.safe[film.task.destination] = opened.safe
        self.meter.totals[film.task.destination] = opened.frame_count

    def _chunk(self, film: OpenFilm, ticket: Any) -> None:
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
            self.ready.append(ChunkWork(film, ticket))

    def _join_if_done(self, film: OpenFilm) -> None:
        if film.exhausted and not film.unsafe and not film.joining and not film.over:
            film.joining = True
            seconds = time.monotonic() - film.since
            self._calls.then(
                film.reader.actor.join.remote(film.number, seconds), lambda joined: self._joined(film, joined)
            )

    def _joined(self, film: OpenFilm, joined: Any) -> None:
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

    def _lost_reader(self, film: OpenFilm, result: Any) -> bool:
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
                lost = f"{film.task.source} was given up: its reader was lost {_TRIES} times ({in_one_line(result)})"
                self.outcomes.append(FilmOutcome(film.task, error=ResourceError(lost)))
        return True

    def _end(self, film: OpenFilm, outcome: FilmOutcome) -> None:
        self._drop(film)
        film.reader.actor.close.remote(film.number)
        self.outcomes.append(outcome)

    def _drop(self, film: OpenFilm) -> None:
        """Forget a film; what workers still do of it is not wanted any more."""
        film.over = True
        film.reader.films -= 1
        self._open.pop(film.number, None)
        self.ready = deque(work for work in self.ready if work.film is not film)

    def publish(self, work: ChunkWork, result: Any) -> None:
        """A worker has upscaled a chunk: have it made safe, unless another worker was earlier."""
        if work.finished or work.film.over:
            return
        work.finished = True
        reference = work.film.reader.actor.publish.remote(work.film.number, result)
        self._calls.then(reference, lambda answer: self._published(work, answer))

    def try_again(self, work: ChunkWork, result: RayError | Failure) -> None:
        """A worker has failed: give the chunk to another one, or give the film up after some tries."""
        if work.finished or work.film.over or work.slots:
            return
        if isinstance(result, RayError) and lost_frames(result):
            self._lost_reader(work.film, result)
            return
        work.tries += 1
        if work.tries < _TRIES:
            self.ready.appendleft(work)
            return
        first, last, source = work.ticket.first, work.ticket.first + work.ticket.frames - 1, work.film.task.source
        error = result.error if isinstance(result, Failure) else result
        kind = type(error) if isinstance(error, SkipVSRError) else ResourceError
        failed = kind(f"frames {first} to {last} of {source} failed {_TRIES} times: {in_one_line(error)}")
        self._end(work.film, FilmOutcome(work.film.task, error=failed))

    def _published(self, work: ChunkWork, result: Any) -> None:
        film = work.film
        if film.over:
            return
        if isinstance(result, RayActorError):
            self._lost_reader(film, result)
        elif isinstance(result, RayError):
            # The worker's machine went with the result before it had arrived.
            work.finished = False
            self.try_again(work, result)
        elif isinstance(result, Failure):
            self._end(film, FilmOutcome(film.task, error=result.error))
        else:
            film.unsafe.discard(work.ticket.first)
            self.meter.safe[film.task.destination] += work.ticket.frames
            self._join_if_done(film)
