"""The work folder: what lies where, what it takes on the disk, and records that survive the program."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from skipvsr.errors import OutputError
from skipvsr.video.segments import write_whole
from skipvsr.web.settings import Limits

_GIB = 1 << 30
_FOLDERS = ("uploads", "results", "cache")


class Store:
    """A work folder, which one server uses at a time.

    Args:
        folder: made if it is missing.
        limits: of what may lie in it.

    Raises:
        OutputError: it cannot be written, or another server uses it.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self._limits = folder.absolute(), limits
        self._lock = FileLock(self.folder / "lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in _FOLDERS:
                (self.folder / name).mkdir(exist_ok=True)
            self._lock.acquire(blocking=False)
            self.secret = self._secret("secret")
        except Timeout as error:
            raise OutputError(
                f"another 'skipvsr serve' uses {self.folder}; stop it, or give another folder with --work"
            ) from error
        except OSError as error:
            raise OutputError(
                f"the work folder {self.folder} cannot be used ({error.strerror}); give another with --work"
            ) from error
        self.uploads, self.results, self.cache = (self.folder / name for name in _FOLDERS)
        for unfinished in self.uploads.glob("*.part"):
            unfinished.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another server use it."""
        self._lock.release()

    def token(self) -> str:
        """A token for the page, the same every time."""
        return self._secret("token")

    def read(self, name: str) -> list[dict[str, Any]]:
        """The records of a kind; none where they were never written or are damaged."""
        try:
            records = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []

    def write(self, name: str, records: list[dict[str, Any]]) -> None:
        """Replace the records of a kind, whole or not at all. Raises OutputError."""
        write_whole(self.folder / f"{name}.json", json.dumps(records, indent=1))

    def id_of(self, path: Path) -> str:
        """An opaque name for a path, that nobody else can make."""
        return hmac.new(self.secret.encode(), os.fsencode(path), hashlib.sha256).hexdigest()[:24]

    def check_room(self, more: int = 0) -> None:
        """Raise OutputError where so many bytes more do not fit within the limits."""
        free = shutil.disk_usage(self.folder).free
        if free - more < self._limits.free_bytes:
            raise OutputError(
                f"the disk is nearly full: {free / _GIB:.1f} GiB are free, and {self._limits.free_bytes / _GIB:.1f} GiB must "
                "stay free; delete results or videos that you do not need"
            )
        if more + self.used_bytes() > self._limits.disk_bytes:
            raise OutputError(
                f"the work folder would be larger than {self._limits.disk_bytes / _GIB:.1f} GiB, which is what it may take; "
                "delete results or videos that you do not need"
            )

    def used_bytes(self) -> int:
        """What the work folder takes."""
        total = 0
        for place, _, names in os.walk(self.folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(place, name)).st_size
                except OSError:
                    continue  # it went meanwhile
        return total

    def _secret(self, name: str) -> str:
        path = self.folder / name
        try:
            found = path.read_text(encoding="ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            found = ""
        if len(found) >= 32:
            return found
        path.unlink(missing_ok=True)
        made = secrets.token_hex(24)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(made)
        return made


def new_id() -> str:
    """A name that cannot be guessed."""
    return secrets.token_hex(12)


def plain_name(name: str, otherwise: str = "video") -> str:
    """What is left of a file name when it is to be shown and used as a name again: one part, no control characters."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(character for character in last if character.isprintable() and character not in '<>:"|?*').strip(
        " ."
    )
    if len(kept) > 120:
        stem, dot, ending = kept.rpartition(".")
        kept = f"{stem[:110]}.{ending}" if dot and len(ending) <= 8 else kept[:120]
    return kept.lstrip(".-") or otherwise
