"""Unfinished work beside an output: a job that was stopped goes on from there, and two jobs never share an output."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from skipvsr.errors import OutputError
from skipvsr.inference.options import Precision
from skipvsr.video.errors import writing
from skipvsr.video.files import hidden_name, is_result_of, write_whole
from skipvsr.video.segments import Segment

_END_BYTES = 1 << 20
_MIB = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """How far a job has come, with all that is needed to resume it.

    Args:
        frames: finished, safe on the disk.
        segments: names of the finished parts of a video.
        numbers: by name: what ran so far, and what the controller of the budget knows.
        tensors: by name: the forward state, and what the router's policy remembers. Kept in a file of their own.
    """

    frames: int
    segments: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


class UnfinishedJob:
    """The hidden folder beside an output in which it is made. A context manager, which only one job can enter at a time.

    Left normally, the folder goes. Left by an exception, it stays if there is a checkpoint in it; after a crash it is there
    too. The same job then finds its checkpoint.

    Args:
        destination: the output.
        job: everything that determines the result: plain values by name.
        resume: False: throw away what is there, whatever it is.

    Raises:
        OutputError: another job writes this output now, or what is there belongs to a job with other settings.
    """

    def __init__(self, destination: Path, job: dict[str, Any], *, resume: bool = True) -> None:
        self.destination = destination
        self.folder = work_folder(destination)
        self.checkpoint: Checkpoint | None = None
        # As it comes back from the manifest.
        self._job = json.loads(json.dumps(job))
        self._resume = resume
        self._lock = FileLock(self.folder / "lock")
        self._manifest = self.folder / "manifest.json"

    def __enter__(self) -> UnfinishedJob:
        with writing(self.destination):
            if not self.folder.parent.is_dir():
                raise OutputError(f"the folder {self.destination.parent} does not exist; make it first")
            self._acquire()
        try:
            if self._resume:
                self.checkpoint = self._read()
            if self.checkpoint is None:
                self._empty()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or self.checkpoint is None:
                shutil.rmtree(self.folder, ignore_errors=True)
            elif error is not None:
                error.add_note(
                    f"the first {self.checkpoint.frames} frames are kept: the same command goes on from there"
                )
        finally:
            self._lock.release()

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, whose frames are safe on the disk already. The one before is forgotten.

        Raises:
            OutputError: it cannot be written, or the disk has no room for joining what is there.
        """
        tensors = f"state-{checkpoint.frames}.safetensors"
        before = self.checkpoint
        with writing(self.destination):
            write_whole(
                self.folder / tensors, save({name: _plain(value) for name, value in checkpoint.tensors.items()})
            )
            values = {
                "frames": checkpoint.frames,
                "segments": checkpoint.segments,
                "numbers": checkpoint.numbers,
                "tensors": tensors,
            }
            write_whole(self._manifest, json.dumps({"job": self._job, "checkpoint": values}))
            self.checkpoint = checkpoint
            if before is not None and before.frames != checkpoint.frames:
                (self.folder / f"state-{before.frames}.safetensors").unlink(missing_ok=True)
        self._check_room()

    def segments(self) -> list[Segment]:
        """The finished parts of a video."""
        return [Segment(self.folder / name) for name in (self.checkpoint.segments if self.checkpoint else [])]

    def _acquire(self) -> None:
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
            except Timeout as error:
                raise OutputError(
                    f"another skipvsr is writing {self.destination}; wait for it, or choose another output"
                ) from error
            # A job that has just ended takes its folder with it.
            if Path(self._lock.lock_file).exists():
                return
            self._lock.release()

    def _read(self) -> Checkpoint | None:
        """The checkpoint that is there; None where there is none, or it is damaged."""
        try:
            manifest = json.loads(self._manifest.read_text())
            job, values = manifest["job"], manifest["checkpoint"]
        except (OSError, ValueError, KeyError):
            return None
        if job != self._job:
            other = next(name for name in {**job, **self._job} if job.get(name) != self._job.get(name))
            raise OutputError(
                f"{values['frames']} frames of {self.destination} are there from another run, whose {other} was "
                f"{job.get(other)!r} and not {self._job.get(other)!r}; give what it had to go on with it, or --no-resume to "
                "start over"
            )
        try:
            tensors = load_file(self.folder / values["tensors"])
            for name in values["segments"]:
                Segment(self.folder / name).packets()
            return Checkpoint(**{**values, "tensors": tensors})
        except (OSError, ValueError, SafetensorError):
            return None

    def _empty(self) -> None:
        with writing(self.destination):
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != "lock":
                    path.unlink()

    def _check_room(self) -> None:
        """The finished video takes as much again as its parts."""
        used = sum(segment.path.stat().st_size for segment in self.segments())
        with writing(self.destination):
            free = shutil.disk_usage(self.folder).free
        if free < used:
            raise OutputError(
                f"the disk is nearly full: {self.destination} needs at least {used // _MIB + 1} MiB more to be finished, and "
                f"{free // _MIB} MiB are free; free some space"
            )


def unfinished_precision(destination: Path) -> Precision | None:
    """The precision of the work that lies unfinished beside an output; None where there is none."""
    try:
        found = json.loads((work_folder(destination) / "manifest.json").read_text())["job"]["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found in get_args(Precision) else None


def forget_finished(*destinations: Path | None) -> None:
    """Remove what jobs have left beside outputs that they had finished when they were killed. Other work is left alone."""
    for destination in destinations:
        if destination is None or not is_result_of(destination, work_folder(destination)):
            continue
        with suppress(Timeout, OSError), FileLock(work_folder(destination) / "lock", timeout=0):
            shutil.rmtree(work_folder(destination), ignore_errors=True)


def work_folder(destination: Path) -> Path:
    """Where an output is made: a hidden folder beside it."""
    place = destination.absolute()
    return place.with_name(hidden_name(place.name, "skipvsr"))


def identity(path: Path, files: list[Path] | None = None) -> str:
    """What tells a source from another: of a file its size, time and both ends, of a folder the names, sizes and times.

    Args:
        path: the source.
        files: of a folder.
    """
    digest = hashlib.sha256()
    for file in [path] if files is None else files:
        status = file.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns} {'' if files is None else file.name}\n".encode())
    if files is None:
        with path.open("rb") as contents:
            digest.update(contents.read(_END_BYTES))
            contents.seek(max(0, path.stat().st_size - _END_BYTES))
            digest.update(contents.read(_END_BYTES))
    return digest.hexdigest()[:16]


def _plain(values: Tensor) -> Tensor:
    """On the CPU, in one piece, row by row."""
    return values.detach().cpu().contiguous()
