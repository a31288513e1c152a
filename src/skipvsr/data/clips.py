"""A clip: frames from a folder of images, a video file or one photograph, with or without its LR frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from skipvsr.errors import DataError, InputError
from skipvsr.video.files import is_image, natural_key
from skipvsr.video.open import open_reader, probe, read_clip, to_8_bit


@dataclass(frozen=True)
class Clip:
    """Frames in order, and how to read them.

    Attributes:
        name: how messages call it; unique within a list of clips.
        gt: ground truth: a folder of images, a video file, or an image file (a still: a clip of one frame).
        length: how many frames it has.
        lr: the dataset's own LR frames of the same kind, where there are any.
    """

    name: str
    gt: Path
    length: int
    lr: Path | None = None

    def read(self, start: int = 0, frames: int | None = None) -> np.ndarray:
        """HR frames start to start + frames (to the end by default), (T, H, W, 3) uint8.

        Raises:
            DataError: a frame that is missing or does not decode; the message names file and frame.
        """
        return read_frames(self.gt, start, self.length - start if frames is None else frames)

    def read_lr(self, start: int = 0, frames: int | None = None) -> np.ndarray:
        """The dataset's own LR frames, as `read` gives the HR ones."""
        if self.lr is None:
            raise DataError(f"clip {self.name} has no LR frames of its own; make them with a degradation, such as bi")
        return read_frames(self.lr, start, self.length - start if frames is None else frames)


def read_frames(source: Path, start: int, frames: int) -> np.ndarray:
    """Frames start to start + frames of a folder, a video or an image: (T, H, W, 3) uint8.

    Raises:
        DataError: fewer frames than asked for, sizes that differ, or a frame that does not decode.
    """
    if not source.is_dir():
        try:
            return read_clip(source, start=start, frames=frames)
        except InputError as error:
            raise DataError(f"{source}: frame {_first_broken(source)} does not decode: {error}") from error
    files = image_files(source)
    if start < 0 or start + frames > len(files):
        raise DataError(f"{source}: frames {start} to {start + frames - 1} were asked for; it has {len(files)} images")
    images = []
    for index, file in enumerate(files[start : start + frames], start):
        try:
            image = read_clip(file)[0]
        except InputError as error:
            raise DataError(f"{file}: frame {index} does not decode: {error}") from error
        if images and image.shape != images[0].shape:
            raise DataError(
                f"{file}: frame {index} is {image.shape[1]}x{image.shape[0]}, "
                f"frame {start} is {images[0].shape[1]}x{images[0].shape[0]}; all frames of a clip have one size"
            )
        images.append(image)
    return np.stack(images)


def stream_frames(source: Path, frames: int) -> Iterator[np.ndarray]:
    """The first frames of a folder, a video or an image, one by one: (H, W, 3) uint8; a video is decoded once.

    Raises:
        DataError: fewer frames than asked for, or a frame that does not decode.
    """
    if source.is_dir() or is_image(source):
        for index in range(frames):
            yield read_frames(source, index, 1)[0]
        return
    done = 0
    try:
        with open_reader(source) as reader:
            for frame in islice(reader, frames):
                done += 1
                yield to_8_bit(frame.pixels)
    except InputError as error:
        raise DataError(f"{source}: frame {done} does not decode: {error}") from error
    if done < frames:
        raise DataError(f"{source}: it has only {done} frames, and {frames} were asked for")


def count_frames(source: Path) -> int:
    """How many frames a folder of images, a video file or an image has.

    What the container of a video says is believed; a video that says nothing is decoded and counted.

    Raises:
        DataError: nothing there, or nothing that can be read.
    """
    if source.is_dir():
        return len(image_files(source))
    if is_image(source):
        return 1
    try:
        said = probe(source).frame_count
        return len(read_clip(source)) if said is None else said
    except InputError as error:
        raise DataError(str(error)) from error


def image_files(folder: Path) -> tuple[Path, ...]:
    """The images of a folder in natural order (im2 before im10); hidden and other files are passed over."""
    return _image_files(folder, folder.stat().st_mtime_ns) if folder.is_dir() else ()


@lru_cache(maxsize=4096)
def _image_files(folder: Path, _modified_ns: int) -> tuple[Path, ...]:
    return tuple(sorted((path for path in folder.iterdir() if is_image(path)), key=natural_key))


def _first_broken(source: Path) -> int:
    """The index of the first frame of a video that does not come."""
    decoded = 0
    try:
        with open_reader(source) as reader:
            for _ in reader:
                decoded += 1
    except InputError:
        pass
    return decoded
