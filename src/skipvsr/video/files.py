"""Files by their names: which are videos, which are images, and in which order they come; and files that appear whole."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from skipvsr.video.errors import writing

# What counts as a video in a folder; a file that is given by its name is always tried.
VIDEO_SUFFIXES = frozenset(
    {
        ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
        ".vob", ".webm", ".wmv", ".y4m",
    }
)  # fmt: skip
# Images that are written, and those that are read.
WRITTEN_IMAGE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
IMAGE_SUFFIXES = (*WRITTEN_IMAGE_SUFFIXES, ".webp")
# Of names of our own: few enough for every file system, encrypted ones (143) too.
_MAX_NAME_BYTES = 120
# In a work folder: which file it was that became the output.
_MARK = "finished"


def is_video(path: Path) -> bool:
    """Whether a name is that of a video; hidden files are none."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def is_image(path: Path) -> bool:
    """Whether a name is that of an image; hidden files are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def natural_key(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort key of a name in which runs of digits are numbers: im2.png before im10.png."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def hidden_name(name: str, ending: str) -> str:
    """The name of what is unfinished of an output, which stands beside it: ".NAME.ENDING".

    File systems take names of 255 bytes, which are 85 characters of Chinese. A long name is cut, and told from others by its
    hash.
    """
    whole = f".{name}.{ending}"
    if len(whole.encode()) <= _MAX_NAME_BYTES:
        return whole
    rest = f"-{hashlib.sha256(name.encode()).hexdigest()[:12]}.{ending}"
    start = f".{name}".encode()[: _MAX_NAME_BYTES - len(rest)].decode(errors="ignore")
    return start + rest


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written that appears as a whole, or leaves what was there before, whatever happens.

    Raises:
        OutputError: it cannot be written.
    """
    work = path.with_name(hidden_name(path.name, f"{os.getpid()}.part"))
    with writing(path):
        try:
            with work.open("wb") as file:
                yield file
                sync(file)
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)


def write_whole(path: Path, contents: str | bytes) -> None:
    """Write a small file as `whole_file` does; text as UTF-8."""
    with whole_file(path) as file:
        file.write(contents.encode() if isinstance(contents, str) else contents)


def move_into_place(whole: Path, path: Path, work: Path) -> None:
    """Move what is finished into its place, and leave in the work folder that this was it: a job that is killed before the
    folder is gone is known to have been done (`is_result_of`)."""
    (work / _MARK).write_text(_mark(whole))
    whole.replace(path)


def is_result_of(path: Path, work: Path) -> bool:
    """Whether an output was moved into its place from this folder."""
    try:
        return (work / _MARK).read_text() == _mark(path)
    except OSError:
        return False


def _mark(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev} {status.st_ino} {status.st_mtime_ns}"


def sync(file: BinaryIO) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())
