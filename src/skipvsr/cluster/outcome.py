"""The outcome of a film, and the progress of a job on many machines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from skipvsr.cluster.film import Film
from skipvsr.cluster.film_plan import FilmTask, NetworkId
from skipvsr.cluster.work import ChunkReport
from skipvsr.errors import SkipVSRError
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.upscale.request import UpscaleReport

_MEMORY_SECONDS = 60.0


@dataclass(frozen=True)
class FilmOutcome:
    """What became of a film: a report, or an error, or neither where its output was there already or others still work on it.

    Args:
        task: the film.
        report: of the finished film.
        error: why it failed.
        missing: frames that others have yet to do; the last of them joins the film.
    """

    task: FilmTask
    report: UpscaleReport | None = None
    error: SkipVSRError | None = None
    missing: int = 0


@dataclass(frozen=True)
class ClusterProgress:
    """A moment of a job on many machines.

    Args:
        frames_done: finished, or in work with a result.
        frames_total: of all films that were opened; None while some were not.
        films_done, films_total: finished, and all.
        workers: that work now, with the process that each is: (machine and process, frames done of its chunk).
        seconds: since the start.
        frames_per_second: of all workers together, over the last minute.
        seconds_left: an estimate; None where nothing is known.
    """

    frames_done: int
    frames_total: int | None
    films_done: int
    films_total: int
    workers: dict[str, int]
    seconds: float
    frames_per_second: float
    seconds_left: float | None


OnProgress: TypeAlias = Callable[[ClusterProgress], object]


@dataclass
class ClusterMeter:
    """Counts over all films and workers.

    Args:
        films_total: how many there are.
    """

    films_total: int
    films_done: int = 0
    # By the film's output: frames that are safe, and frames that there are.
    safe: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._start = time.monotonic()
        self._history: deque[tuple[float, int]] = deque()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def now(self, workers: dict[str, int]) -> ClusterProgress:
        """How far the job is.

        Args:
            workers: by name: frames done of its chunk.
        """
        now, done = time.monotonic(), sum(self.safe.values()) + sum(workers.values())
        self._history.append((now, done))
        while now - self._history[0][0] > _MEMORY_SECONDS and len(self._history) > 2:
            self._history.popleft()
        then, before = self._history[0]
        # A chunk that is done again because its worker was lost takes frames back.
        rate = max(0, done - before) / max(now - then, 1e-9) if now > then else 0.0
        totals = list(self.totals.values())
        known = len(totals) + self.films_done >= self.films_total and None not in totals
        total = sum(count or 0 for count in totals) if known else None
        left = max(total - done, 0) / rate if total is not None and rate > 0 else None
        return ClusterProgress(
            done, total, self.films_done, self.films_total, workers, now - self._start, rate, left
        )  # fmt: skip


def film_report(
    film: Film, reports: Iterable[ChunkReport], network: NetworkId, seconds: float, resumed: int
) -> UpscaleReport:
    """The report of a film, as one machine gives it.

    Args:
        film: joined.
        reports: of its chunks.
        network: that ran.
        seconds: since its work began.
        resumed: frames that were safe before.
    """
    reports = list(reports)
    info, (height, width) = film.plan.info, film.plan.size
    passes = sum(report.passes for report in reports)
    ratio = sum(report.ratios for report in reports) / passes if passes else 1.0
    full = cost_per_frame(network.config, info.height, info.width)
    cost = cost_per_frame(network.running, info.height, info.width)
    frames = sum(report.frames for report in reports)
    precisions = {report.precision for report in reports}
    return UpscaleReport(
        destination=Path(film.task.destination),
        frames=frames,
        resumed_at=resumed,
        scenes=film.scenes,
        input_size=(info.width, info.height),
        output_size=(width, height),
        window=film.window,
        lookahead=film.lookahead,
        seconds=seconds,
        frames_per_second=(frames - resumed) / max(seconds, 1e-9),
        peak_bytes=max(report.peak_bytes for report in reports),
        active_ratio=ratio,
        macs_per_frame=cost.at_ratio(ratio),
        full_macs_per_frame=full.total,
        precision=precisions.pop() if len(precisions) == 1 else "",
    )
