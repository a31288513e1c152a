"""One film on many machines: its chunks, what is safe of them, and the file that they become."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, astuple
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

from skipvsr.cluster.chunks import Chunk, ChunkOptions, cut_into_chunks
from skipvsr.cluster.film_plan import FilmPlan, FilmSettings, FilmTask, NetworkId
from skipvsr.cluster.store import Store, is_url, name_of, parent_of, store_and_name
from skipvsr.cluster.work import ChunkReport, published, segments_of
from skipvsr.errors import ConfigError, DecodeError, InputError, OutputError
from skipvsr.upscale.checkpoint import identity
from skipvsr.upscale.request import default_segment_length
from skipvsr.video.files import hidden_name
from skipvsr.video.image_folder import ImageFolderReader, ImageFolderWriter, output_names
from skipvsr.video.open import Reader, check_output, open_reader, open_writer
from skipvsr.video.write import VideoWriter

_JOB = "job.json"


class Film:
    """A film open for reading, with its work folder: `.NAME.skipvsr-chunks` beside the output. A context manager.

    Attributes:
        plan: what workers have to know.
        done: the chunks that are safe, by the number of their first frame.
        total: frames, known when all chunks were seen.
        scenes: likewise.

    Args:
        task: from where to where.
        settings: what is done.
        network: with what.

    Raises:
        InputError: the source is missing, or no video.
        OutputError: the output exists or cannot be written, or there is work of another job beside it.
        ConfigError: impossible settings.
    """

    def __init__(self, task: FilmTask, settings: FilmSettings, network: NetworkId) -> None:
        self.task, self.settings = task, settings
        self.done: dict[int, ChunkReport] = {}
        self.total: int | None = None
        self.scenes = 1
        self.resumed_frames = 0
        self._stopped: DecodeError | None = None
        self._stack = ExitStack()
        try:
            self._open(network)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, network: NetworkId) -> None:
        settings, output = self.settings, self.settings.output
        self._check_destination()
        source = self._fetch()
        self.reader: Reader = self._stack.enter_context(
            open_reader(source, settings.start, settings.end, deinterlace=settings.deinterlace)
        )
        info, images = self.reader.info, isinstance(self.reader, ImageFolderReader)
        place = self._local_place(images=images)
        if place is not None:
            check_output(place, self.reader, overwrite=output.overwrite)
        elif images:
            raise ConfigError(f"images cannot be written to {self.task.destination}; give a path, or a file:// URL")
        windows = settings.stream.windows(network.config, info.height, info.width)
        length = output.segment_length or default_segment_length(network.config, info.height, info.width)
        self.plan = FilmPlan(
            info=info,
            size=output.size_of(info, network.config.scale),
            container="" if images else Path(name_of(self.task.destination)).suffix.lower(),
            encoding=output.encoding,
            chunks=ChunkOptions(
                length=length, warmup=settings.warmup, lookahead=windows.lookahead, exact=settings.exact,
                scene_detection=settings.stream.scene_detection,
                repeat_detection=settings.stream.repeat_detection,
            ),
            endings=self._endings(),
        )  # fmt: skip
        self.plan.encoder()  # what is wrong with the settings is said now
        self.window, self.lookahead = windows.window, windows.lookahead
        name = hidden_name(name_of(self.task.destination), "skipvsr-chunks")
        self.work = Store(f"{parent_of(self.task.destination)}/{name}")
        self._resume(self._identity(network))

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def chunks(self) -> Iterator[Chunk]:
        """All chunks, in order; each is to be read before the next is asked for. Damage at the end is kept for `join`."""
        total, scenes = 0, 1
        try:
            for chunk in cut_into_chunks(self.reader, self.plan.chunks):
                yield chunk
                for _ in chunk:
                    pass
                total, scenes = chunk.end, scenes + chunk.scenes
        except DecodeError as error:
            self._stopped = error
        self.total, self.scenes = total, scenes

    def refresh(self) -> None:
        """Look again which chunks are safe: others work on the film too."""
        self.done = published(self.work)

    def missing(self) -> int:
        """Frames that are not safe yet."""
        assert self.total is not None, "known when all chunks were seen"
        return self.total - sum(report.frames for report in self.done.values())

    def join(self) -> list[str]:
        """Make the output of the chunks, and delete the work folder; returns what could not be read of the source.

        Raises:
            OutputError: a chunk is missing or damaged, or the output cannot be written.
        """
        reports = [self.done[first] for first in sorted(self.done)]
        edges = [0, *(report.end for report in reports)]
        if [report.first for report in reports] != edges[:-1] or edges[-1] != self.total:
            raise OutputError(f"frames of {self.task.destination} are missing; give the same command again")
        final = self._local_place(images=bool(self.plan.endings))
        with tempfile.TemporaryDirectory(prefix=".join-", dir=self.work.local) as folder:
            place = final or Path(folder) / name_of(self.task.destination)
            with open_writer(
                place, self.plan.size[1], self.plan.size[0], self.reader,
                options=self.plan.encoding, sample_aspect_ratio=self.plan.sample_aspect_ratio,
                overwrite=self.settings.output.overwrite, work=Path(folder),
                segments=(segments := segments_of(self.work, reports, Path(folder))),
            ) as writer:  # fmt: skip
                if isinstance(writer, ImageFolderWriter):
                    for contents in chain.from_iterable(segment.contents() for segment in segments):
                        writer.write_contents(contents)
            if final is None:
                store, name = store_and_name(self.task.destination)
                store.put(place, name)
        self.work.delete()
        notes = [] if self._stopped is None else [str(self._stopped)]
        return [*notes, *([writer.stopped] if isinstance(writer, VideoWriter) and writer.stopped else [])]

    def _check_destination(self) -> None:
        store, name = store_and_name(self.task.destination)
        if store.exists(name) and not self.settings.output.overwrite:
            raise OutputError(f"{self.task.destination} exists already; choose another output, or give --overwrite")
        if is_url(self.task.destination):
            return
        folder = Path(self.task.destination).parent
        if not folder.is_dir():
            raise OutputError(f"the folder {folder} does not exist; make it first")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"the folder {folder} may not be written; choose another")

    def _fetch(self) -> Path:
        """The source on this machine: FFmpeg seeks in it, and it is read twice."""
        if not is_url(self.task.source):
            self._source_version = ""
            return Path(self.task.source)
        store, name = store_and_name(self.task.source)
        try:
            self._source_version = store.version(name)
            if store.local is not None:
                if (store.local / name).is_dir():
                    self._source_version = ""  # a folder's time says nothing of the images in it
                return store.local / name
            place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="skipvsr-"))) / name
            store.get(name, place)
        except FileNotFoundError as error:
            raise InputError(f"{self.task.source} does not exist; check the address") from error
        return place

    def _identity(self, network: NetworkId) -> dict[str, Any]:
        """All that determines the result, by names that a message can use."""
        settings, chunks = self.settings, self.plan.chunks
        compute = {name: value for name, value in asdict(settings.compute).items() if name != "device"}
        precision = "each machine's own" if settings.mixed_precision else settings.compute.precision
        return {
            "source": self._source_version or self._identity_of_source(),
            "part": [settings.start, settings.end],
            "deinterlacing": settings.deinterlace,
            "model": network.fingerprint,
            "window": self.window,
            "chunks": asdict(chunks),
            "size": astuple(settings.output.size),
            **compute,
            "precision": precision,
            **asdict(settings.output.encoding),
            "version": [version(name) for name in ("skipvsr", "av")],
        }

    def _local_place(self, *, images: bool) -> Path | None:
        """Where the output is written at once; None: made elsewhere, and sent."""
        if not is_url(self.task.destination):
            return Path(self.task.destination)
        store, name = store_and_name(self.task.destination)
        return store.local / name if images and store.local is not None else None

    def _endings(self) -> tuple[str, ...]:
        """Of the files that the images of a folder become."""
        if not isinstance(self.reader, ImageFolderReader):
            return ()
        return tuple(Path(name).suffix for name in output_names(self.reader.names))

    def _identity_of_source(self) -> str:
        path = self.reader.path
        return identity(path, self.reader.files if isinstance(self.reader, ImageFolderReader) else None)

    def _resume(self, job: dict[str, Any]) -> None:
        """Find what is safe already, unless it is another job's."""
        job = json.loads(json.dumps(job))
        if not self.settings.output.resume:
            self.work.delete()
        self.work.make()
        try:
            before = json.loads(self.work.read(_JOB))
        except (FileNotFoundError, ValueError):
            before = None
        if before is None:
            self.work.write(_JOB, json.dumps(job).encode())
            return
        if before != job:
            other = next(name for name in {**before, **job} if before.get(name) != job.get(name))
            raise OutputError(
                f"parts of {self.task.destination} are there from another run, whose {other} was {before.get(other)!r} and not "
                f"{job.get(other)!r}; give what it had to go on with it, or --no-resume to start over"
            )
        self.refresh()
        self.resumed_frames = sum(report.frames for report in self.done.values())
