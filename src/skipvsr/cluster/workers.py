"""Ray's side of the work: actors that read films, and actors that upscale chunks."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from skipvsr.cluster.chunks import Chunk, ChunkFrame, Role
from skipvsr.cluster.film import Film
from skipvsr.cluster.film_plan import FilmPlan, FilmSettings, FilmTask, NetworkId
from skipvsr.cluster.outcome import film_report
from skipvsr.cluster.store import is_url
from skipvsr.cluster.work import ChunkReport, list_path, publish, upscale_chunk
from skipvsr.errors import OutputError, SkipVSRError
from skipvsr.inference.options import Precision
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.request import UpscaleReport
from skipvsr.version import installed_version
from skipvsr.video.frame import Frame

# Frames that travel as one object: few enough that no machine holds much of a chunk at a time.
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class FrameBlock:
    """Frames of a chunk, one after the other, as they travel.

    Args:
        pixels: (N, H, W, 3), uint8 or uint16.
        times: pts and duration of each, in units of the film's time base.
        roles: of each.
        alphas: opacity of each; None where it has none.
    """

    pixels: np.ndarray
    times: list[tuple[int, int | None]]
    roles: list[Role]
    alphas: list[np.ndarray | None]


@dataclass(frozen=True)
class ChunkTicket:
    """A chunk that is ready to be upscaled.

    Args:
        film: number of the film.
        index, first, frames: of the chunk; frames of its body.
        blocks: references to its `FrameBlock`s in Ray's object store.
    """

    film: int
    index: int
    first: int
    frames: int
    blocks: list[Any]


@dataclass(frozen=True)
class EncodedChunk:
    """An upscaled chunk as it travels from the worker to the reader: its packets, the list of them, and what was done."""

    packets: bytes
    rows: bytes
    report: ChunkReport


@dataclass(frozen=True)
class FilmOpened:
    """What the driver has to know of a film: frames that are safe already, and frames that the container promised."""

    plan: FilmPlan
    safe: int
    frame_count: int | None


@dataclass(frozen=True)
class Failure:
    """An error of ours as it travels: those of Ray would hide its class."""

    error: SkipVSRError


class FilmReader:
    """A Ray actor that decodes films, stores their finished chunks and joins them. Several films may be open.

    Args:
        settings, network: as of `Film`.
    """

    def __init__(self, settings: FilmSettings, network: NetworkId) -> None:
        # It decodes beside a worker that has the machine's cores.
        torch.set_num_threads(1)
        self._settings, self._network = settings, network
        self._films: dict[int, Film] = {}
        self._chunks: dict[int, Iterator[Chunk]] = {}

    def open(self, number: int, task: FilmTask) -> FilmOpened | Failure:
        """Open a film, and find what is safe of it."""
        try:
            if not is_url(task.destination):
                Path(task.destination).parent.mkdir(parents=True, exist_ok=True)
            self.close(number)
            film = Film(task, self._settings, self._network)
        except (SkipVSRError, OSError) as error:
            return _failure(error)
        self._films[number], self._chunks[number] = film, film.chunks()
        return FilmOpened(film.plan, film.resumed_frames, film.plan.info.frame_count)

    def next_chunk(self, number: int) -> ChunkTicket | Failure | None:
        """Decode a film's next chunk that is not safe yet, into Ray's object store; None: there is none."""
        done = self._films[number].done
        try:
            for chunk in self._chunks[number]:
                if chunk.first not in done:
                    blocks = [ray.put(block) for block in _blocks(chunk)]
                    return ChunkTicket(number, chunk.index, chunk.first, chunk.end - chunk.first, blocks)
        except (SkipVSRError, OSError) as error:
            return _failure(error)
        return None

    def publish(self, number: int, chunk: EncodedChunk) -> Failure | None:
        """Make an upscaled chunk safe. The same chunk may come twice."""
        film = self._films[number]
        try:
            if chunk.report.first not in film.done:
                publish(film.work, chunk.packets, chunk.rows, chunk.report)
                film.done[chunk.report.first] = chunk.report
        except (SkipVSRError, OSError) as error:
            return _failure(error)
        return None

    def join(self, number: int, seconds: float) -> tuple[UpscaleReport, list[str]] | Failure:
        """Join a film; its report, and what could not be read of it."""
        film = self._films[number]
        reports = list(film.done.values())
        try:
            notes = film.join()
        except (SkipVSRError, OSError) as error:
            return _failure(error)
        return film_report(film, reports, self._network, seconds, film.resumed_frames), notes

    def close(self, number: int) -> None:
        """Let go of a film."""
        film = self._films.pop(number, None)
        if film is not None:
            del self._chunks[number]
            film.__exit__(None, None, None)


class ChunkWorker:
    """A Ray actor with a network: upscales one chunk at a time, and can be asked meanwhile how far it is.

    Args:
        model: on the CPU.
        settings: what is done.
        cpus: threads to compute with.
    """

    def __init__(self, model: AnyModel, settings: FilmSettings, cpus: int) -> None:
        torch.set_num_threads(max(1, cpus))
        compute = settings.compute
        if compute.runtime == "torch":
            device = "cuda" if torch.cuda.is_available() and str(compute.device) != "cpu" else "cpu"
            precision = best_precision(device) if settings.mixed_precision else compute.precision
            compute = replace(compute, device=device, precision=precision)
        self._upscaler = Upscaler(model, compute, settings.stream)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._frames = 0

    def hello(self) -> tuple[str, int, str]:
        """Its name, its process, and the version of this package."""
        return self._name, os.getpid(), installed_version()

    def frames_done(self) -> int:
        """Of the chunk in work; answered while it is in work."""
        return self._frames

    def upscale(self, plan: FilmPlan, ticket: ChunkTicket) -> tuple[Failure | None, EncodedChunk | None]:
        """Upscale a chunk: what went wrong, and the result. The driver looks at the first and hands the second on."""
        self._frames = 0

        def on_frame() -> None:
            self._frames += 1

        try:
            with tempfile.TemporaryDirectory(prefix="skipvsr-") as folder:
                segment, report = upscale_chunk(
                    _frames_of(ticket, plan), self._upscaler, plan.encoder(), Path(folder) / "chunk.packets",
                    index=ticket.index, first=ticket.first, worker=self._name, on_frame=on_frame,
                )  # fmt: skip
                return None, EncodedChunk(segment.path.read_bytes(), list_path(segment).read_bytes(), report)
        except (SkipVSRError, OSError) as error:
            return _failure(error), None
        finally:
            self._frames = 0


def best_precision(device: str) -> Precision:
    """What a device is fastest with: bf16 where a GPU computes it, otherwise fp32."""
    return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _blocks(chunk: Chunk) -> Iterator[FrameBlock]:
    """The frames of a chunk, in blocks, each of one type: the images of a folder may differ in depth."""
    items: list[ChunkFrame] = []
    size = 0
    for item in chunk:
        if items and item.frame.pixels.dtype != items[0].frame.pixels.dtype:
            yield _block(items)
            items, size = [], 0
        items.append(item)
        size += item.frame.pixels.nbytes
        if size >= _BLOCK_BYTES:
            yield _block(items)
            items, size = [], 0
    if items:
        yield _block(items)


def _block(items: list[ChunkFrame]) -> FrameBlock:
    return FrameBlock(
        np.stack([item.frame.pixels for item in items]),
        [(item.frame.pts, item.frame.duration) for item in items],
        [item.role for item in items],
        [item.frame.alpha for item in items],
    )


def _frames_of(ticket: ChunkTicket, plan: FilmPlan) -> Iterator[ChunkFrame]:
    """The frames of a chunk, one block at a time."""
    for reference in ticket.blocks:
        block: FrameBlock = ray.get(reference)
        parts = zip(block.pixels, block.times, block.roles, block.alphas, strict=True)
        for pixels, (pts, duration), role, alpha in parts:
            yield ChunkFrame(Frame(pixels, pts, duration, plan.info.time_base, alpha), role)


def _failure(error: SkipVSRError | OSError) -> Failure:
    return Failure(error if isinstance(error, SkipVSRError) else OutputError(f"{error}"))
