"""Decoding a clip to its end only to see what decodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skipvsr.data.clips import count_frames, image_files, read_frames
from skipvsr.errors import DataError, InputError
from skipvsr.video.open import open_reader


@dataclass(frozen=True)
class Stream:
    """How many frames a source has, the sizes (width, height) of those that decode, and what is wrong with others."""

    frames: int
    sizes: tuple[tuple[int, int], ...]
    errors: tuple[str, ...]


def decode_all(source: Path, every_frame: bool = True) -> Stream:
    """Decode a folder of images or a video and note what fails, file and frame; nothing is raised.

    A broken image does not hide the images after it; a video ends at its first broken frame. With `every_frame` off,
    only the first, middle and last image of a folder are decoded; videos always are, to their end.
    """
    return _images(source, every_frame) if source.is_dir() else _file(source)


def _images(folder: Path, every_frame: bool) -> Stream:
    count = len(image_files(folder))
    if not count:
        return Stream(0, (), (f"{folder}: no images in it",))
    sizes: set[tuple[int, int]] = set()
    errors = []
    for index in range(count) if every_frame else sorted({0, count // 2, count - 1}):
        try:
            pixels = read_frames(folder, index, 1)
        except DataError as error:
            errors.append(str(error))
        else:
            sizes.add((pixels.shape[2], pixels.shape[1]))
    return Stream(count, tuple(sorted(sizes)), tuple(errors))


def _file(source: Path) -> Stream:
    sizes: set[tuple[int, int]] = set()
    frames = 0
    try:
        said = count_frames(source)
        with open_reader(source) as reader:
            for frame in reader:
                sizes.add((frame.pixels.shape[1], frame.pixels.shape[0]))
                frames += 1
    except (InputError, DataError) as error:
        error = f"{source}: frame {frames} does not decode: {error}" if frames else str(error)
        return Stream(frames, tuple(sorted(sizes)), (error,))
    errors = () if frames == said else (f"{source}: {frames} frames decode; the file says it has {said}",)
    return Stream(frames, tuple(sorted(sizes)), errors)
