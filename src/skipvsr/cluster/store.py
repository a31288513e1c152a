"""A folder on a disk, in a shared folder or in an object store (`s3://`, `gs://`), through fsspec."""

from __future__ import annotations

import os
import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from skipvsr.errors import ConfigError, OutputError, SkipVSRError
from skipvsr.video.files import sync

# Where an object appears when all of it has been sent, so that it needs no second name meanwhile.
_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "memory"}


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL: then every machine can reach it. A plain path is one of this machine alone."""
    return "://" in str(place)


def as_text(place: str | Path) -> str:
    """A place as it is written everywhere: a URL as it is, a path absolute."""
    return str(place) if is_url(place) else str(Path(place).absolute())


def name_of(place: str) -> str:
    """The last part of a place."""
    return posixpath.basename(place.rstrip("/"))


def parent_of(place: str) -> str:
    """The folder that holds a place."""
    return posixpath.dirname(place.rstrip("/"))


class Store:
    """A folder, wherever it is. Files in it appear whole or not at all.

    Args:
        place: a path, or a URL of any kind that fsspec knows.

    Raises:
        ConfigError: a kind of URL that is not known, or whose package is missing.
        OutputError: from all methods: the store cannot be reached, or refuses.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = as_text(place)
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.place, **_options(self.place))
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{self.place} cannot be reached ({error}); install what it needs") from error
        self.local = Path(self._root) if isinstance(self._files, LocalFileSystem) else None

    def path(self, name: str) -> str:
        """Of a file, as fsspec takes it."""
        return posixpath.join(self._root, name) if name else self._root

    def make(self) -> None:
        """Make the folder, where there are folders."""
        with self._reached(writing=True):
            self._files.makedirs(self._root, exist_ok=True)

    def exists(self, name: str = "") -> bool:
        """Whether a file is there; without a name, the folder itself."""
        with self._reached():
            self._files.invalidate_cache()
            return self._files.exists(self.path(name))

    def names(self) -> list[str]:
        """Of the files in it."""
        with self._reached():
            self._files.invalidate_cache()
            if not self._files.exists(self._root):
                return []
            return sorted(posixpath.basename(path) for path in self._files.ls(self._root, detail=False))

    def tree(self) -> list[str]:
        """Of all files in it and below, relative to it."""
        with self._reached():
            self._files.invalidate_cache()
            paths = self._files.find(self._root)
        return sorted(posixpath.relpath(path, self._root) for path in paths)

    def read(self, name: str) -> bytes:
        """The contents of a file. Raises FileNotFoundError where it is not there."""
        with self._reached():
            return self._files.cat_file(self.path(name))

    def write(self, name: str, contents: bytes) -> None:
        """Write a small file."""
        with self._reached(writing=True), self._published(name) as path:
            if self.local is None:
                self._files.pipe_file(path, contents)
                return
            with open(path, "wb") as file:
                file.write(contents)
                sync(file)

    def put(self, source: Path, name: str) -> None:
        """Copy a file of this machine into the store."""
        with self._reached(writing=True), self._published(name) as path:
            self._files.put_file(str(source), path)
            if self.local is not None:
                with open(path, "rb+") as file:
                    sync(file)

    def get(self, name: str, destination: Path) -> None:
        """Copy a file of the store to this machine. Raises FileNotFoundError where it is not there."""
        with self._reached():
            self._files.get_file(self.path(name), str(destination))

    def delete(self) -> None:
        """The folder and what is in it; others may delete it at the same time."""
        with self._reached():
            try:
                self._files.rm(self._root, recursive=True)
            except FileNotFoundError:
                return

    def version(self, name: str) -> str:
        """What changes when a file does: its size and, as far as the store says, its time or checksum."""
        with self._reached():
            info: dict[str, Any] = self._files.info(self.path(name))
        stamp = next((info[key] for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified") if key in info), "")
        return f"{info.get('size')} {stamp}"

    @contextmanager
    def _published(self, name: str) -> Iterator[str]:
        """A path to write to; what was written there gets its name afterwards."""
        protocols = self._files.protocol
        if _WHOLE_OBJECTS & {protocols, *(protocols if isinstance(protocols, tuple) else ())}:
            yield self.path(name)
            return
        work = self.path(f".{name}.{uuid.uuid4().hex[:8]}.part")
        try:
            yield work
            if self.local is not None:
                os.replace(work, self.path(name))
            else:
                self._files.mv(work, self.path(name))
        finally:
            if self._files.exists(work):
                self._files.rm_file(work)

    @contextmanager
    def _reached(self, *, writing: bool = False) -> Iterator[None]:
        """Errors of the store become ours, but for files that are not there when they are read."""
        try:
            yield
        except SkipVSRError:
            raise
        except FileNotFoundError as error:
            if not writing:
                raise
            raise OutputError(
                f"{self.place} cannot be written: there is no such folder or bucket; make it first"
            ) from error
        except Exception as error:  # each kind of store raises its own
            raise OutputError(
                f"{self.place} cannot be reached ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
                "check the address and the credentials"
            ) from error


def store_and_name(place: str | Path) -> tuple[Store, str]:
    """The folder that holds a file, and the file's name in it."""
    text = as_text(place)
    return Store(parent_of(text)), name_of(text)


def _options(place: str) -> dict[str, Any]:
    """Listings are never remembered: others write there too."""
    protocol = place.partition("://")[0] if is_url(place) else "file"
    return {"use_listings_cache": False} if protocol in {"s3", "s3a", "gs", "gcs"} else {}
