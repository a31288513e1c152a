"""Jobs: skipvsr commands that wait, run, are paused or have ended. They survive the server."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from skipvsr.web.command import JobSettings, arguments, command_line

# What the command line says of sound that the container does not hold; the page has the same choice under another name.
_SOUND_ADVICE = re.compile(r"convert its sound with --audio \w+(?: \([^)]*\))?")


class State(StrEnum):
    """Of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)


class Kind(StrEnum):
    """Of a job: a whole film; a short section with its bicubic counterpart; a small copy that browsers play."""

    FILM = "film"
    SECTION = "section"
    COPY = "copy"


@dataclass(frozen=True)
class Run:
    """One process of a job: `python -m module words`, which writes `result` whole or not at all."""

    module: str
    words: tuple[str, ...]
    result: Path


@dataclass
class Job:
    """One job.

    Args:
        id: opaque.
        person: whose it is.
        kind: what it makes.
        source_id: of the open video, or of the job whose result is copied.
        source: the file.
        name: of the source, to be shown.
        folder: its own, in the work folder.
        result: what it makes.
        reference: the bicubic counterpart of a section.
        settings: how.
        command: to be shown.
        state: where it stands.
        message: of the command line, where it failed or has something to say.
        report: of the command line, when it is done.
        process: id and start of its process, to find it again after a crash of the server.
        progress: the latest, while it runs; not kept.
    """

    id: str
    person: str
    kind: Kind
    source_id: str
    source: Path
    name: str
    folder: Path
    result: Path
    settings: JobSettings
    reference: Path | None = None
    command: str = ""
    state: State = State.WAITING
    message: str = ""
    report: dict[str, Any] | None = None
    process: tuple[int, float] | None = None
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def snapshot(self) -> Path:
        """An image of the newest frame, while it runs."""
        return self.folder / "snapshot.jpg"

    def runs(self, device: str) -> list[Run]:
        """The processes, one after the other. They go on where they were when they are started again."""
        place = [] if device == "auto" else ["--device", device]
        if self.kind is Kind.COPY:
            return [Run("skipvsr.web.copy", (str(self.source), str(self.result)), self.result)]
        words = [*arguments(self.source, self.result, self.settings), "--json", *place]
        if self.kind is Kind.FILM:
            return [Run("skipvsr", (*words, "--snapshot", str(self.snapshot)), self.result)]
        assert self.reference is not None
        plain = JobSettings(**{**self.settings.to_dict(), "model": "bicubic", "budget": None})
        before = arguments(self.source, self.reference, plain)
        return [Run("skipvsr", (*before, "--json"), self.reference), Run("skipvsr", tuple(words), self.result)]

    def shown(self) -> dict[str, Any]:
        """What its person sees of it: no paths."""
        return {
            "id": self.id,
            "kind": self.kind,
            "source": self.source_id,
            "name": self.name,
            "result_name": self.result.name,
            "settings": self.settings.to_dict(),
            "command": self.command,
            "state": self.state,
            "message": self.message,
            "report": self.report,
            "progress": self.progress,
            "snapshot": self._snapshot_time(),
            "result_bytes": self.result.stat().st_size if self.state is State.DONE and self.result.is_file() else None,
        }

    def _snapshot_time(self) -> int | None:
        """When the newest frame was shown, in nanoseconds; None: not yet."""
        try:
            return self.snapshot.stat().st_mtime_ns if self.kind is Kind.FILM else None
        except OSError:
            return None

    def to_record(self) -> dict[str, Any]:
        """Plain values, for `from_record`."""
        record = asdict(self)
        del record["progress"]
        paths = ("source", "folder", "result", "reference")
        return {**record, **{name: None if record[name] is None else str(record[name]) for name in paths}}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Job:
        """The inverse of `to_record`. Raises KeyError, TypeError and ValueError for what it did not make."""
        return cls(
            **{
                **record,
                "kind": Kind(record["kind"]),
                "state": State(record["state"]),
                "settings": JobSettings(**record["settings"]),
                "source": Path(record["source"]),
                "folder": Path(record["folder"]),
                "result": Path(record["result"]),
                "reference": None if record["reference"] is None else Path(record["reference"]),
                "process": None if record["process"] is None else tuple(record["process"]),
            }
        )

    def in_words(self, message: str) -> str:
        """A message of the command line, with names in the place of paths."""
        for path, name in ((self.result, self.result.name), (self.source, self.name), (self.folder, "the work folder")):
            message = message.replace(str(path), name)
        return _SOUND_ADVICE.sub("choose another sound under Encoding, and start it again", message)


def shown_command(source: str, name: str, settings: JobSettings) -> str:
    """The equivalent command line, to be typed in the folder of the source."""
    return command_line(source, name, settings)
