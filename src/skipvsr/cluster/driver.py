"""The driver of a job on Ray: hands chunks to workers, and notices which of them are lost or slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ray.exceptions import RayActorError, RayError

from skipvsr.cluster.calls import Calls
from skipvsr.cluster.film_plan import FilmSettings, FilmTask, NetworkId
from skipvsr.cluster.open_films import ChunkWork, OpenFilms
from skipvsr.cluster.outcome import ClusterProgress, FilmOutcome
from skipvsr.cluster.slots import Slot, Slots
from skipvsr.cluster.stragglers import worth_repeating

_TICK_SECONDS = 0.5
_POLL_SECONDS = 1.0


class Driver:
    """Does all films of a job on the workers of a Ray cluster that this process is connected to.

    Args:
        tasks: the films.
        settings: what is done.
        network: that is used.
        slots: the workers.
    """

    def __init__(self, tasks: list[FilmTask], settings: FilmSettings, network: NetworkId, slots: Slots) -> None:
        self._calls, self._slots = Calls(), slots
        self._films = OpenFilms(tasks, settings, network, self._calls)
        self._polled = 0.0
        self._asked: set[tuple[str, int]] = set()

    def run(self, on_progress: Callable[[ClusterProgress], object] | None = None) -> Iterator[FilmOutcome]:
        """Yield what becomes of each film, as it is done.

        Raises:
            ResourceError: no worker is left.
        """
        films, calls = self._films, self._calls
        while not films.over:
            for slot in self._slots.look():
                calls.then(slot.actor.hello.remote(), lambda hello, slot=slot: self._hello(slot, hello))
            films.ask_for_chunks(len(self._slots.all), len(self._slots.busy()))
            self._hand_out()
            self._poll()
            if calls:
                calls.wait(_TICK_SECONDS)
            else:
                time.sleep(_TICK_SECONDS)
            if on_progress is not None:
                on_progress(self._progress())
            while films.outcomes:
                films.meter.films_done += 1
                yield films.outcomes.popleft()

    def _hello(self, slot: Slot, hello: Any) -> None:
        if isinstance(hello, RayError):
            self._slots.lose(slot, str(hello))
        else:
            self._slots.introduce(slot, hello)

    def _hand_out(self) -> None:
        """Give work to whoever waits; when there is none left, what slow workers still have, to faster ones."""
        for slot in self._slots.idle():
            work = self._films.ready.popleft() if self._films.ready else self._straggler(slot)
            if work is None:
                return
            slot.work, slot.since, slot.frames_now = work, time.monotonic(), 0
            work.slots.append(slot)
            said, result = slot.actor.upscale.options(num_returns=2).remote(work.film.plan, work.ticket)
            self._calls.then(
                said, lambda failure, slot=slot, work=work, result=result: self._upscaled(slot, work, result, failure)
            )

    def _straggler(self, idle: Slot) -> ChunkWork | None:
        """The chunk that this worker would be done with much before the one that has it."""
        typical = self._slots.seconds_per_frame()
        if typical is None or not self._films.exhausted:
            return None
        for slot in sorted(self._slots.busy(), key=lambda slot: slot.since):
            work: ChunkWork = slot.work
            if work.finished or work.film.over or len(work.slots) > 1:
                continue
            frames = work.ticket.frames
            expected = frames * (slot.seconds_per_frame or typical)
            if worth_repeating(time.monotonic() - slot.since, expected, frames * (idle.seconds_per_frame or typical)):
                return work
        return None

    def _upscaled(self, slot: Slot, work: ChunkWork, result: Any, failure: Any) -> None:
        seconds = time.monotonic() - slot.since
        slot.work, slot.frames_now = None, 0
        if slot in work.slots:
            work.slots.remove(slot)
        if isinstance(failure, RayActorError) and slot.key in self._slots.all:
            self._slots.lose(slot, str(failure))
        if failure is not None:
            self._films.try_again(work, failure)
            return
        slot.frames, slot.seconds = slot.frames + work.ticket.frames, slot.seconds + seconds
        self._films.publish(work, result)

    def _poll(self) -> None:
        """Ask the workers how far they are, those that have answered the last time."""
        if time.monotonic() - self._polled < _POLL_SECONDS:
            return
        self._polled = time.monotonic()
        for slot in self._slots.busy():
            if slot.key not in self._asked:
                self._asked.add(slot.key)
                reference = slot.actor.frames_done.options(concurrency_group="status").remote()
                self._calls.then(reference, lambda frames, slot=slot: self._told(slot, frames))

    def _told(self, slot: Slot, frames: Any) -> None:
        self._asked.discard(slot.key)
        if isinstance(frames, int) and slot.work is not None:
            slot.frames_now = frames

    def _progress(self) -> ClusterProgress:
        return self._films.meter.now({slot.name: slot.frames_now for slot in self._slots.busy()})
