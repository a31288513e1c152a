"""Files as parts of equal size with an index, for ways that take small pieces only; together they are the files again.

Nothing is lost on the way: files go as they are, and are compared by SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath

# Beside the parts: which files they hold, and whatever notes go along.
INDEX = "index.json"


def write_parts(
    files: list[tuple[str, Path]], to: Path, part_bytes: int, notes: dict, *, in_folders: bool = False
) -> dict:
    """Write files one after another into parts of equal size, and an index beside them, or beside each in its own folder."""
    if part_bytes < 1:
        raise ValueError("a part must have at least one byte")
    to.mkdir(parents=True, exist_ok=True)
    index = {"notes": notes, "files": [], "parts": []}
    part, room = None, 0
    for name, path in files:
        content = path.read_bytes()
        index["files"].append({"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        while content:
            if part is None or room == 0:
                number = f"part{len(index['parts']):03d}"
                part, room = to / number / number if in_folders else to / number, part_bytes
                part.parent.mkdir(exist_ok=True)
                part.write_bytes(b"")
                index["parts"].append({"name": number, "size": 0})
            piece, content = content[:room], content[room:]
            with part.open("ab") as file:
                file.write(piece)
            room -= len(piece)
            index["parts"][-1]["size"] += len(piece)
    places = [to / part["name"] for part in index["parts"]] if in_folders else [to]
    for place in places:
        (place / INDEX).write_text(json.dumps(index))
    return index


def read_parts(folders: list[Path], to: Path) -> list[str]:
    """Put files together from parts in some folders of one packing.

    Returns:
        The names of the files that are not whole because parts are missing; all others are written.

    Raises:
        ValueError: no index, folders of different packings, or contents that are not those that were packed.
    """
    indices = [json.loads((folder / INDEX).read_text()) for folder in folders if (folder / INDEX).exists()]
    if not indices:
        raise ValueError(f"no {INDEX} in {', '.join(map(str, folders))}; give the folders that hold the parts")
    if any(index != indices[0] for index in indices):
        raise ValueError("the folders hold parts of different rounds; give those of one")
    found = {path.name: path for folder in folders for path in folder.iterdir() if path.name != INDEX}
    stream = Stream([(found.get(part["name"]), part["size"]) for part in indices[0]["parts"]])
    missing = []
    for entry in indices[0]["files"]:
        content = stream.read(entry["size"])
        name = PurePosixPath(entry["name"])
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"{name} would be written outside of {to}")
        if content is None:
            missing.append(entry["name"])
            continue
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError(f"{name} is not what was packed: its SHA-256 differs; bring its parts again")
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(content)
    return missing


class Stream:
    """Parts read as one; of a part that is missing, or not of its size, every byte is."""

    def __init__(self, parts: list[tuple[Path | None, int]]) -> None:
        self._parts = iter(parts)
        self._content: bytes | None = b""
        self._left = 0

    def read(self, size: int) -> bytes | None:
        """The next bytes; None where some are missing."""
        pieces: list[bytes] = []
        whole = True
        while size:
            if self._left == 0:
                path, self._left = next(self._parts)
                content = path.read_bytes() if path is not None else None
                self._content = content if content is not None and len(content) == self._left else None
            taken = min(size, self._left)
            if self._content is None:
                whole = False
            else:
                start = len(self._content) - self._left
                pieces.append(self._content[start : start + taken])
            self._left -= taken
            size -= taken
        return b"".join(pieces) if whole else None
