"""The videos that are open: those that were uploaded, and those picked from the folders that the command allowed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skipvsr.errors import ConfigError, InputError
from skipvsr.video.files import natural_key
from skipvsr.web.settings import Limits
from skipvsr.web.store import Store, new_id, plain_name

# Entries of a folder that are shown, and paths whose ids are remembered.
MAX_ENTRIES = 2000
_REMEMBERED = 50_000


@dataclass(frozen=True)
class Source:
    """An open video.

    Args:
        id: opaque.
        person: whose it is.
        path: where it is.
        name: to be shown.
        uploaded: whether it lies in the work folder, and goes when it is closed.
        found: what is in it (`look.found`).
    """

    id: str
    person: str
    path: Path
    name: str
    uploaded: bool
    found: dict[str, Any]

    def shown(self) -> dict[str, Any]:
        """What its person sees of it."""
        return {"id": self.id, "name": self.name, "uploaded": self.uploaded, "found": self.found}


class Sources:
    """All open videos, and the folders from which more can be picked.

    Args:
        store: the work folder.
        roots: folders; nothing outside them is ever listed or opened.
        limits: how many a person may have.
    """

    def __init__(self, store: Store, roots: Iterable[Path], limits: Limits) -> None:
        self._store, self._limits = store, limits
        self._roots = [root.resolve() for root in roots]
        self._paths: OrderedDict[str, Path] = OrderedDict()
        self._sources: dict[str, Source] = {}
        for record in store.read("sources"):
            with contextlib.suppress(KeyError, TypeError):
                source = Source(**{**record, "path": Path(record["path"])})
                if source.path.is_file() and (source.uploaded or self._allowed(source.path)):
                    self._sources[source.id] = source
        known = {source.path for source in self._sources.values()}
        for path in store.uploads.iterdir():
            if path not in known:
                path.unlink(missing_ok=True)
        for folder in store.cache.iterdir():
            if folder.name not in self._sources:
                shutil.rmtree(folder, ignore_errors=True)

    def of(self, person: str) -> list[Source]:
        """A person's open videos, in the order in which they were opened."""
        return [source for source in self._sources.values() if source.person == person]

    def get(self, person: str, id: str) -> Source:
        """One of them. Raises KeyError."""
        source = self._sources[id]
        if source.person != person:
            raise KeyError(id)
        return source

    def check_count(self, person: str) -> None:
        """Raise ConfigError where a person may open no more."""
        if len(self.of(person)) >= self._limits.sources:
            raise ConfigError(f"{self._limits.sources} videos are open, which is as many as can be; close some")

    def add(self, person: str, path: Path, name: str, found: dict[str, Any], *, uploaded: bool) -> Source:
        """Open a video; one from a folder that is open already stays as it is."""
        self.check_count(person)
        for source in self.of(person):
            if source.path == path:
                return source
        source = Source(new_id(), person, path, name, uploaded, found)
        self._sources[source.id] = source
        self._save()
        return source

    def close(self, source: Source) -> None:
        """Close a video; an uploaded one is deleted."""
        del self._sources[source.id]
        self._save()
        if source.uploaded:
            source.path.unlink(missing_ok=True)
        shutil.rmtree(self._store.cache / source.id, ignore_errors=True)

    def may_read(self, path: Path) -> bool:
        """Whether a file lies in the work folder or in an allowed one, also where links lead."""
        return path.resolve().is_relative_to(self._store.folder.resolve()) or self._allowed(path)

    def file(self, id: str) -> Path:
        """The video of a listing, by its id. Raises KeyError, and InputError where it is not there any more."""
        path = self._paths[id]
        if not path.is_file() or not self._allowed(path):
            raise InputError(f"{path.name} is not there any more; open the folder again")
        return path.resolve()

    def listing(self, id: str | None, endings: tuple[str, ...]) -> dict[str, Any]:
        """What a folder holds: folders and videos, by opaque ids; None: the allowed folders themselves.

        Raises:
            KeyError: there is no such folder.
            InputError: it cannot be read.
        """
        if id is None:
            folders = [{"id": self._remember(root), "name": root.name or str(root)} for root in self._roots]
            return {"name": None, "parents": [], "folders": folders, "files": [], "left_out": 0}
        folder = self._paths[id]
        if not self._allowed(folder):
            raise KeyError(id)
        folders, files, left_out = [], [], 0
        for path in _entries(folder):
            if not self._allowed(path):
                continue
            is_folder = path.is_dir()
            if not is_folder and (path.suffix.lower() not in endings or not path.is_file()):
                continue
            if len(folders) + len(files) >= MAX_ENTRIES:
                left_out += 1
            elif is_folder:
                folders.append({"id": self._remember(path), "name": path.name})
            else:
                files.append({"id": self._remember(path), "name": path.name, "bytes": path.stat().st_size})
        return {
            "name": folder.name,
            "parents": [{"id": self._remember(path), "name": path.name} for path in self._parents(folder)],
            "folders": folders,
            "files": files,
            "left_out": left_out,
        }

    def shown_path(self, path: Path) -> str:
        """A path as a person may see it: from the name of the allowed folder on."""
        for root in self._roots:
            if path.is_relative_to(root):
                return str(path.relative_to(root))
        return path.name

    def _parents(self, folder: Path) -> list[Path]:
        root = next(root for root in self._roots if folder.resolve().is_relative_to(root))
        resolved = folder.resolve()
        return [path for path in reversed(resolved.parents) if path.is_relative_to(root)]

    def _allowed(self, path: Path) -> bool:
        """Whether a path lies in an allowed folder, also where links lead, and nothing on the way is hidden."""
        try:
            resolved = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return False
        for root in self._roots:
            if resolved.is_relative_to(root):
                return not any(part.startswith(".") for part in resolved.relative_to(root).parts)
        return False

    def _remember(self, path: Path) -> str:
        id = self._store.id_of(path)
        self._paths[id] = path
        self._paths.move_to_end(id)
        while len(self._paths) > _REMEMBERED:
            self._paths.popitem(last=False)
        return id

    def _save(self) -> None:
        records = [{**asdict(source), "path": str(source.path)} for source in self._sources.values()]
        self._store.write("sources", records)


def upload_path(store: Store, name: str) -> Path:
    """Where an upload will lie: under a name of ours, with an ending that looks like one."""
    ending = Path(plain_name(name)).suffix.lower()
    return store.uploads / f"{new_id()}{ending if re.fullmatch(r'[.][a-z0-9]{1,5}', ending) else '.bin'}"


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            paths = [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder.name} cannot be read ({error.strerror})") from error
    return sorted(paths, key=natural_key)
