"""Folders of images: read as a video of one frame each, written under the same names."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from skipvsr.errors import DecodeError, InputError, OutputError
from skipvsr.video.errors import reading, writing
from skipvsr.video.files import (
    IMAGE_SUFFIXES,
    WRITTEN_IMAGE_SUFFIXES,
    hidden_name,
    is_image,
    move_into_place,
    natural_key,
    sync,
)
from skipvsr.video.frame import Frame
from skipvsr.video.images import describe_image, read_image_and_alpha, write_image
from skipvsr.video.probe import VideoInfo

_LOG = logging.getLogger("skipvsr")
# Where profiles stand: before the pixels, but for large EXIF previews.
_HEADER_BYTES = 1 << 18


class ImageFolderReader:
    """The images of a folder in the order of their names (2 before 10), as an iterator of frames. A context manager.

    Raises:
        InputError: no images, a number missing from a numbered sequence, or a first image that cannot be used.
        DecodeError: while iterating, at an image that does not decode or has another size than the first.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = _image_files(self.path)
        _check_numbers(self.path, self.files)
        info = describe_image(self.files[0])
        if _has_colour_profile(self.files[0]):
            _LOG.warning(
                "%s has a colour profile (ICC): its values are upscaled as they are, and the profile is not in the output",
                self.files[0].name,
            )
        self.info: VideoInfo = replace(
            info,
            path=self.path,
            time_base=Fraction(1),
            frame_rate=None,
            frame_count=len(self.files),
            duration_seconds=None,
        )

    @property
    def names(self) -> list[str]:
        """File names, in order."""
        return [file.name for file in self.files]

    def __enter__(self) -> ImageFolderReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between frames."""

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self.files):
            try:
                pixels, alpha = read_image_and_alpha(file)
            except InputError as error:
                raise DecodeError(f"image {index + 1} of {self.path} does not decode: {error}") from error
            if pixels.shape[:2] != (self.info.height, self.info.width):
                raise DecodeError(
                    f"{file} is {pixels.shape[1]}x{pixels.shape[0]}, the images before it are "
                    f"{self.info.width}x{self.info.height}; a folder must hold images of one size"
                )
            yield Frame(pixels, pts=index, duration=1, time_base=Fraction(1), alpha=alpha)


class ImageFolderWriter:
    """A folder of images that takes frames. A context manager: left normally, the folder is moved into its place; left by
    an exception, nothing is left behind but finished images that were asked for.

    Args:
        path: the folder to make.
        names: file names, one for each frame; endings that cannot be written become .png.
        work: an existing folder for the images, on the same disk as `path`, which is left to the caller; None: one of our
            own, which goes at the end.
        done: images in it that are finished already; the frames to come follow them.
    """

    def __init__(self, path: str | Path, names: list[str], *, work: Path | None = None, done: int = 0) -> None:
        self.path = Path(path)
        names = output_names(names)
        self._names = iter(names[done:])
        place = self.path.absolute()
        self._own_work = None if work is not None else place.with_name(hidden_name(place.name, f"{os.getpid()}.part"))
        self._work = (work or self._own_work or place) / "images"
        self._before = place.with_name(hidden_name(place.name, f"{os.getpid()}.before"))
        self._unsafe: list[Path] = []
        with writing(self.path):
            if not self.path.parent.is_dir():
                raise OutputError(f"the folder {self.path.parent} does not exist; make it first")
            if self._own_work is not None:
                shutil.rmtree(self._own_work, ignore_errors=True)
            self._work.mkdir(parents=True, exist_ok=True)
            for name in names[done:]:
                (self._work / name).unlink(missing_ok=True)

    def __enter__(self) -> ImageFolderWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.end_segment()
                with writing(self.path):
                    self._move_into_place()
        finally:
            if self._own_work is not None:
                shutil.rmtree(self._own_work, ignore_errors=True)

    def _move_into_place(self) -> None:
        """What was there goes only when the new folder is in its place."""
        if not (self.path.exists() or self.path.is_symlink()):
            move_into_place(self._work, self.path, self._work.parent)
            return
        self.path.replace(self._before)
        try:
            move_into_place(self._work, self.path, self._work.parent)
        except BaseException:
            self._before.replace(self.path)
            raise
        if self._before.is_symlink():
            self._before.unlink()
        else:
            shutil.rmtree(self._before, ignore_errors=True)

    def write(self, frame: Frame) -> None:
        """Write a frame under the next name."""
        place = self._work / next(self._names)
        write_image(place, frame.pixels, frame.alpha)
        self._unsafe.append(place)

    def write_contents(self, contents: bytes) -> None:
        """Write a frame that is an image file already under the next name."""
        place = self._work / next(self._names)
        with writing(self.path):
            place.write_bytes(contents)
        self._unsafe.append(place)

    def end_segment(self) -> None:
        """Make what was written so far safe on the disk."""
        with writing(self.path):
            for place in self._unsafe:
                with place.open("rb") as file:
                    sync(file)
        self._unsafe = []


def check_replaceable(folder: Path) -> None:
    """Raise OutputError unless a folder holds nothing but images, so that replacing it loses nothing else."""
    with writing(folder):
        other = next((path for path in sorted(folder.iterdir()) if not (is_image(path) and path.is_file())), None)
    if other is not None:
        raise OutputError(
            f"{folder} holds more than images ({other.name}); empty it yourself, or choose another output"
        )


def _image_files(folder: Path) -> list[Path]:
    with reading(folder):
        files = [file for file in folder.iterdir() if is_image(file) and file.is_file()]
    if not files:
        raise InputError(f"{folder} holds no images; give a folder of {', '.join(IMAGE_SUFFIXES)} files")
    return sorted(files, key=natural_key)


def _has_colour_profile(path: Path) -> bool:
    """Whether a PNG or JPEG names an ICC profile before its pixels."""
    with reading(path), path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    return b"iCCP" in start[: start.find(b"IDAT")] or b"ICC_PROFILE\0" in start


def _check_numbers(folder: Path, files: list[Path]) -> None:
    """Names that differ only in one number are a sequence, and a sequence has no holes."""
    numbered = [re.fullmatch(r"(.*?)(\d+)", file.stem) for file in files]
    if not all(numbered) or len({match[1] for match in numbered if match}) != 1:
        return
    numbers = [int(match[2]) for match in numbered if match]
    for earlier, later in pairwise(numbers):
        if later == earlier:
            raise InputError(f"{folder} holds two images of number {later}; keep one of them")
        if later != earlier + 1:
            raise InputError(
                f"{folder} has no image {earlier + 1} (after {earlier} comes {later}); add it, or renumber"
            )


def output_names(names: list[str]) -> list[str]:
    """Names of the files that images become; endings that cannot be written become .png. Raises OutputError."""
    renamed = [
        name if Path(name).suffix.lower() in WRITTEN_IMAGE_SUFFIXES else f"{Path(name).stem}.png" for name in names
    ]
    if len(set(renamed)) != len(renamed):
        twice = next(name for name in renamed if renamed.count(name) > 1)
        raise OutputError(f"two of the images would be written as {twice}; rename one of them")
    return renamed
