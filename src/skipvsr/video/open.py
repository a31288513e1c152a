"""The right reader and writer for a path."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.video.colour import to_8_bit
from skipvsr.video.errors import PIPE, reading, writing
from skipvsr.video.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from skipvsr.video.frame import Frame
from skipvsr.video.image_folder import ImageFolderReader, ImageFolderWriter, check_replaceable
from skipvsr.video.images import read_image
from skipvsr.video.pipe import PipeWriter
from skipvsr.video.probe import VideoInfo
from skipvsr.video.read import VideoReader
from skipvsr.video.segments import Segment
from skipvsr.video.write import EncodeOptions, VideoWriter, check_video_output

Reader: TypeAlias = VideoReader | ImageFolderReader


class Writer(Protocol):
    """What takes frames."""

    def write(self, frame: Frame) -> None:
        """Take a frame."""

    def end_segment(self) -> None:
        """Make safe on the disk what was taken so far."""


def open_reader(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    *,
    deinterlace: bool = True,
) -> Reader:
    """A reader for a video file or "-" (standard input), with VideoReader's arguments, or for a folder of images, of which no
    part can be asked for.

    Raises:
        InputError: as the readers do.
        ConfigError: a part of a folder, or one that ends before it starts.
    """
    path = Path(path)
    with reading(path):
        folder = path != PIPE and path.is_dir()
    if not folder:
        return VideoReader(path, start, end, deinterlace=deinterlace)
    if start is not None or end is not None:
        raise ConfigError(f"{path} is a folder of images, which have no times; leave out start and end")
    return ImageFolderReader(path)


def probe(path: str | Path) -> VideoInfo:
    """What a video file or a folder of images holds: size, frames, times, colour, sound.

    Raises:
        InputError: it cannot be read.
    """
    with open_reader(path) as reader:
        return reader.info


def open_writer(
    path: str | Path,
    width: int,
    height: int,
    source: Reader,
    *,
    options: EncodeOptions | None = None,
    sample_aspect_ratio: Fraction | None = None,
    overwrite: bool = False,
    work: Path | None = None,
    segments: Sequence[Segment] = (),
    done: int = 0,
) -> VideoWriter | ImageFolderWriter | PipeWriter:
    """A writer of the source's kind: a video for a video, a folder for a folder; "-" is standard output.

    Args:
        path: of the output.
        width, height: of the frames that will come.
        source: the reader of the input.
        options: the encoder.
        sample_aspect_ratio: of the output's pixels; None: the source's.
        overwrite: replace an existing output.
        work: a folder for unfinished files; None: the writer makes its own.
        segments, done: finished parts of a video in that folder, and how many frames are finished.

    Raises:
        OutputError: the path exists and `overwrite` is off, is the source itself or of another kind than the source, or
            cannot be written.
        ConfigError: impossible encoder settings.
    """
    path = Path(path)
    check_output(path, source, overwrite=overwrite)
    if isinstance(source, ImageFolderReader):
        return ImageFolderWriter(path, source.names, work=work, done=done)
    if path == PIPE:
        return PipeWriter(width, height, source=source.info, options=options, sample_aspect_ratio=sample_aspect_ratio)
    return VideoWriter(
        path, width, height, source=source.info, options=options, sample_aspect_ratio=sample_aspect_ratio,
        work=work, segments=segments,
    )  # fmt: skip


def check_streams_fit(path: Path, width: int, height: int, source: Reader, options: EncodeOptions | None) -> None:
    """Raise OutputError or ConfigError where `open_writer` would because of the streams or the encoder; writes nothing."""
    if path != PIPE and isinstance(source, VideoReader):
        check_video_output(path, width, height, source=source.info, options=options)


def check_output(path: Path, source: Reader, *, overwrite: bool) -> None:
    """Raise OutputError where there is something that must not be replaced, or the output is of another kind."""
    if path == PIPE:
        if isinstance(source, ImageFolderReader):
            raise OutputError("standard output carries a video, and the input is a folder of images; give a folder")
        return
    with writing(path):
        if path.exists() or path.is_symlink():
            _check_existing(path, source, overwrite)
    if isinstance(source, ImageFolderReader) and path.suffix.lower() in VIDEO_SUFFIXES:
        raise OutputError(f"{path} looks like a video, and the input is a folder of images; give a folder")


def _check_existing(path: Path, source: Reader, overwrite: bool) -> None:
    """Raise OutputError where the existing file or folder must not be replaced."""
    place, input_place = path.resolve(), source.path.resolve()
    if place == input_place:
        raise OutputError(f"{path} is the input; choose another output")
    if place in input_place.parents:
        raise OutputError(f"{path} is a folder that holds the input; choose another output")
    if path.is_dir() != isinstance(source, ImageFolderReader):
        kind = "a folder" if path.is_dir() else "a file"
        raise OutputError(f"{path} is {kind}, and the input is not; choose another output")
    if not overwrite:
        raise OutputError(f"{path} exists already; choose another output, or give --overwrite")
    if path.is_dir():
        check_replaceable(path)


def read_clip(path: str | Path, *, start: int = 0, frames: int | None = None) -> np.ndarray:
    """A whole clip, or part of it, into memory: a video file, a folder of images, or one image.

    Args:
        path: what to read.
        start: first frame wanted.
        frames: how many; None: up to the end.

    Returns:
        (T, H, W, 3) uint8, full-range RGB; deeper sources are reduced to 8 bit.

    Raises:
        InputError, DecodeError: as the readers do; fewer frames than asked for.
    """
    path = Path(path)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        pixels = [read_image(path)]
    else:
        with open_reader(path) as reader:
            stop = None if frames is None else start + frames
            pixels = [frame.pixels for frame in islice(reader, start, stop)]
    if not pixels or (frames is not None and len(pixels) < frames):
        raise InputError(
            f"{path} has only {start + len(pixels)} frames; frames {start} to {start + (frames or 1)} wanted"
        )
    return np.stack([to_8_bit(frame) for frame in pixels])
