"""`upscale_shard`: one of N processes that share the work of films, with nothing between them but a folder."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skipvsr.cluster.catalogue import films
from skipvsr.cluster.film import Film
from skipvsr.cluster.film_plan import FilmSettings, FilmTask, NetworkId
from skipvsr.cluster.network import network_for, network_id, one_precision
from skipvsr.cluster.outcome import ClusterMeter, FilmOutcome, OnProgress, film_report
from skipvsr.cluster.store import is_url, store_and_name
from skipvsr.cluster.work import list_path, publish, upscale_chunk
from skipvsr.errors import ConfigError, DecodeError, OutputError, SkipVSRError
from skipvsr.inference.options import AUTO
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.choose import AUTO_MODEL


@dataclass(frozen=True)
class Shard:
    """One of several processes that share the work.

    Args:
        index: which, from 0.
        count: how many there are.

    Raises:
        ConfigError: an index that is not from 0 to count - 1.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"shard {self.index}/{self.count} does not exist; shards are counted from 0: 0/{self.count} to "
                f"{max(self.count - 1, 0)}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "I/N". Raises ConfigError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None:
            raise ConfigError(f"the shard is {text!r}; give I/N, as in 0/4 for the first of four")
        return cls(int(match[1]), int(match[2]))

    def takes(self, index: int) -> bool:
        """Whether a piece of work is this shard's."""
        return index % self.count == self.index


def upscale_shard(
    sources: Sequence[str | Path],
    destination: str | Path,
    model: AnyModel | str | Path = AUTO_MODEL,
    *,
    scale: int | None = None,
    shard: Shard,
    settings: FilmSettings,
    on_progress: OnProgress | None = None,
) -> Iterator[FilmOutcome]:
    """Do one shard's part of the work. All shards are given the same arguments but for `shard`; each may run anywhere, at any
    time, and again after it was stopped, also with another number of shards.

    Where there are at least as many films as shards, each shard takes whole films; otherwise it takes chunks of every film,
    and the shard that finds all chunks of a film safe joins it. What a shard has finished lies in a hidden folder beside the
    output.

    Args:
        sources: videos, folders of images, and folders with those below them; paths, or URLs (of videos) that fsspec knows.
        destination: a video for one video, otherwise a folder; where all shards can reach it.
        model, scale: as for `upscale_video`; one model for all films.
        shard: which part.
        settings: what is done.
        on_progress: called now and then.

    Yields:
        An outcome for each film of which this shard had to do something.

    Raises:
        InputError, ConfigError, OutputError, ModelError: before the first film.
    """
    if shard.count > 1 and (settings.output.overwrite or not settings.output.resume):
        raise ConfigError(
            "shards cannot tell what another shard has just made from what was there before; delete the outputs and their "
            "hidden folders first, and leave out --overwrite and --no-resume"
        )
    if shard.count > 1 and settings.compute.precision == AUTO:
        raise ConfigError(
            "shards know nothing of each other, and each would settle the precision by its own machine; give one, or leave it "
            "out for that of the model (fp32)"
        )
    tasks = films(sources, destination)
    compute = settings.compute
    network = network_for(tasks, model, scale=scale, size=settings.output.size, device=compute.torch_device)
    settings = one_precision(settings, network)
    whole = len(tasks) >= shard.count
    if whole:
        tasks = [task for index, task in enumerate(tasks) if shard.takes(index)]
    upscaler = Upscaler(network, settings.compute, settings.stream)
    worker = _ShardWorker(
        upscaler, network_id(upscaler.model, upscaler.compute), settings,
        takes=(lambda index: True) if whole else shard.takes, name=f"shard {shard.index}",
    )  # fmt: skip
    meter = ClusterMeter(len(tasks))
    for task in tasks:
        store, name = store_and_name(task.destination)
        if store.exists(name) and not settings.output.overwrite:
            yield FilmOutcome(task)
            continue
        try:
            yield worker.run(task, meter, on_progress)
        except ConfigError:
            raise
        except SkipVSRError as error:
            yield FilmOutcome(task, error=error)
        meter.films_done += 1


@dataclass
class _ShardWorker:
    """Does a shard's chunks of one film after the other."""

    upscaler: Upscaler
    network: NetworkId
    settings: FilmSettings
    takes: Callable[[int], bool]
    name: str

    def run(self, task: FilmTask, meter: ClusterMeter, on_progress: OnProgress | None) -> FilmOutcome:
        """Do what is to be done of a film, and join it if nothing is missing then."""
        start = time.monotonic()
        if not is_url(task.destination):
            Path(task.destination).parent.mkdir(parents=True, exist_ok=True)
        with Film(task, self.settings, self.network) as film, tempfile.TemporaryDirectory(prefix="skipvsr-") as folder:
            resumed = film.resumed_frames
            meter.safe[task.destination], meter.totals[task.destination] = resumed, film.plan.info.frame_count
            for chunk in film.chunks():
                if chunk.first in film.done or not self.takes(chunk.index):
                    continue
                frames = 0

                def on_frame() -> None:
                    nonlocal frames
                    frames += 1
                    if on_progress is not None:
                        on_progress(meter.now({self.name: frames}))

                segment, report = upscale_chunk(
                    chunk, self.upscaler, film.plan.encoder(), Path(folder) / "chunk.packets",
                    index=chunk.index, first=chunk.first, worker=self.name, on_frame=on_frame,
                )  # fmt: skip
                publish(film.work, segment.path, list_path(segment).read_bytes(), report)
                segment.delete()
                film.done[report.first] = report
                meter.safe[task.destination] += report.frames
            film.refresh()
            missing = film.missing()
            if missing:
                return FilmOutcome(task, missing=missing)
            reports = list(film.done.values())
            notes = _join(film)
            report = film_report(film, reports, self.network, time.monotonic() - start, resumed)
        if notes:
            raise DecodeError(
                f"{'; '.join(notes)}; the {report.frames} frames that could be read are in {task.destination}"
            )
        return FilmOutcome(task, report=report)


def _join(film: Film) -> list[str]:
    """Join a film; another shard that found it complete may do the same at the same time, with the same result."""
    try:
        return film.join()
    except (OutputError, OSError):
        store, name = store_and_name(film.task.destination)
        if store.exists(name) and not film.work.exists():
            return []
        raise
