"""Folders of images: read as a video of one frame each, written under the same names."""

from __future__ import annotations

import logging
import os
import re
import shutil
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.codec import CodecContext
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.codeccontext import VideoCodecContext

from skipvsr.errors import DecodeError, InputError, OutputError
from skipvsr.video.colour import FULL, RGB, SMPTE170M, ColourSpec, alpha_of, colour_of, from_rgb, from_rgba, to_rgb
from skipvsr.video.errors import OPEN_OPTIONS, file_name, reading, writing
from skipvsr.video.frame import Frame
from skipvsr.video.limits import check_size, limit_decoder
from skipvsr.video.probe import VideoInfo, describe
from skipvsr.video.properties import side_data

# Ending: encoder, pixel format for 8 bit, for 16 bit, the same with alpha.
_WRITTEN = {
    ".png": ("png", "rgb24", "rgb48be", "rgba", "rgba64be"),
    ".bmp": ("bmp", "bgr24", "bgr24", "bgra", "bgra"),
    ".tif": ("tiff", "rgb24", "rgb48le", "rgba", "rgba64le"),
    ".tiff": ("tiff", "rgb24", "rgb48le", "rgba", "rgba64le"),
    ".jpg": ("mjpeg", "yuvj444p", "yuvj444p", "", ""),
    ".jpeg": ("mjpeg", "yuvj444p", "yuvj444p", "", ""),
}
READ = (*_WRITTEN, ".webp")
_LOG = logging.getLogger("skipvsr")
_JPEG = (".jpg", ".jpeg")
# Where profiles stand: before the pixels, but for large EXIF previews.
_HEADER_BYTES = 1 << 18
# TIFF: the tag of the compression, and its values for JPEG.
_COMPRESSION, _JPEG_INSIDE = 259, (6, 7)


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
        with reading(self.files[0]), av.open(file_name(self.files[0]), options=OPEN_OPTIONS) as container:
            first = next(_decode(self.files[0], container), None)
            if first is None:
                raise InputError(f"{self.files[0]} holds no picture; is it complete?")
            info = describe(self.files[0], container, container.streams.video[0], first)
        if _has_colour_profile(self.files[0]):
            _LOG.warning(
                "%s has a colour profile (ICC): its values are upscaled as they are, and the profile is not in the output",
                self.files[0].name,
            )
        height, width = _upright(np.empty((first.height, first.width, 3), np.uint8), first).shape[:2]
        self.info = VideoInfo(
            path=self.path,
            width=width,
            height=height,
            display_matrix=None,
            rotation_degrees=0,
            sample_aspect_ratio=Fraction(1),
            time_base=Fraction(1),
            frame_rate=None,
            frame_count=len(self.files),
            duration_seconds=None,
            pixel_format=info.pixel_format,
            bit_depth=info.bit_depth,
            colour=ColourSpec(RGB, FULL),
            audio_streams=0,
            subtitle_streams=0,
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
        names = _output_names(names)
        self._names = iter(names[done:])
        place = self.path.absolute()
        self._own_work = None if work is not None else place.with_name(f".{place.name[:100]}.{os.getpid()}.part")
        self._work = (work or self._own_work or place) / "images"
        self._before = place.with_name(f".{place.name[:100]}.{os.getpid()}.before")
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
            self._work.replace(self.path)
            return
        self.path.replace(self._before)
        try:
            self._work.replace(self.path)
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

    def end_segment(self) -> None:
        """Make what was written so far safe on the disk."""
        with writing(self.path):
            for place in self._unsafe:
                with place.open("rb") as file:
                    os.fsync(file.fileno())
        self._unsafe = []


def check_replaceable(folder: Path) -> None:
    """Raise OutputError unless a folder holds nothing but images, so that replacing it loses nothing else."""
    with writing(folder):
        other = next((path for path in sorted(folder.iterdir()) if not _is_image_file(path)), None)
    if other is not None:
        raise OutputError(
            f"{folder} holds more than images ({other.name}); empty it yourself, or choose another output"
        )


def read_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) full-range RGB, uint8 or uint16, turned upright; alpha is dropped.

    Raises:
        InputError: as `read_image_and_alpha` does.
    """
    return read_image_and_alpha(path)[0]


def read_image_and_alpha(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """An image file, turned upright as its EXIF orientation says.

    Returns:
        (H, W, 3) full-range RGB, uint8 or uint16, and (H, W) opacity of the same type; None where it has none.

    Raises:
        InputError: it is missing or does not decode, would come out wrong, or is under 16 pixels a side.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path")
    with reading(path), av.open(file_name(path), options=OPEN_OPTIONS) as container:
        frame = next(_decode(path, container), None)
        if frame is None:
            raise InputError(f"{path} holds no picture; is it complete?")
        check_size(path, frame.width, frame.height)
        _check_tiff(path)
        # A JPEG of four components is CMYK; its fourth is no opacity.
        alpha = None if path.suffix.lower() in _JPEG else alpha_of(frame)
        try:
            pixels = to_rgb(frame, colour_of(frame, still=True))
        except InputError as error:
            raise InputError(f"{path} cannot be used: {error}") from error
        upright = np.ascontiguousarray(_upright(pixels, frame))
        return upright, None if alpha is None else np.ascontiguousarray(_upright(alpha, frame))


def write_image(path: str | Path, pixels: np.ndarray, alpha: np.ndarray | None = None) -> None:
    """Write a picture as PNG, TIFF, BMP (8 bit) or JPEG (8 bit, 4:4:4, best quality, no alpha) by the ending.

    Args:
        path: the file.
        pixels: (H, W, 3), full-range RGB, uint8 or uint16.
        alpha: (H, W) of the same type; None: opaque.

    Raises:
        OutputError: another ending, alpha for JPEG, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITTEN:
        raise OutputError(f"{path} has an ending that cannot be written; use {', '.join(_WRITTEN)}")
    codec, shallow, deep, shallow_alpha, deep_alpha = _WRITTEN[path.suffix.lower()]
    if alpha is not None:
        shallow, deep = shallow_alpha, deep_alpha
    if not shallow:
        raise OutputError(f"{path} is JPEG, which has no alpha; use .png or .tif")
    with writing(path):
        context = CodecContext.create(codec, "w")
        assert isinstance(context, VideoCodecContext)
        context.pix_fmt = deep if pixels.dtype == np.uint16 else shallow
        context.height, context.width = pixels.shape[:2]
        context.time_base = Fraction(1)
        yuv = codec == "mjpeg"
        if yuv:
            context.color_range = FULL
            context.qmin = context.qmax = 1
        if alpha is None:
            frame = from_rgb(pixels, context.pix_fmt, ColourSpec(SMPTE170M if yuv else RGB, FULL))
        else:
            frame = from_rgba(np.dstack((pixels, alpha)), context.pix_fmt)
        frame.pts, frame.time_base = 0, Fraction(1)
        path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))


def _decode(path: Path, container: InputContainer) -> Iterator[av.VideoFrame]:
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise InputError(f"{path} holds no picture; give an image file")
    limit_decoder(path, stream)
    return container.decode(stream)


def _image_files(folder: Path) -> list[Path]:
    with reading(folder):
        files = [file for file in folder.iterdir() if _is_image_file(file)]
    if not files:
        raise InputError(f"{folder} holds no images; give a folder of {', '.join(READ)} files")
    return sorted(files, key=_natural_key)


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in READ and not path.name.startswith(".") and path.is_file()


def _has_colour_profile(path: Path) -> bool:
    """Whether a PNG or JPEG names an ICC profile before its pixels."""
    with reading(path), path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    return b"iCCP" in start[: start.find(b"IDAT")] or b"ICC_PROFILE\0" in start


def _natural_key(file: Path) -> tuple[tuple[int, str], ...]:
    """Digits count as numbers, so that 2 comes before 10."""
    parts = re.split(r"(\d+)", file.name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


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


def _upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn and mirror a picture, (H, W) or (H, W, 3), as its orientation tag says (EXIF).

    FFmpeg makes a matrix of the tag: the pixel at (x, y) is shown at (a x + c y, b x + d y), moved into the picture.
    """
    data = side_data(frame, Type.DISPLAYMATRIX)
    if data is None:
        return pixels
    a, b, _, c, d, *_ = struct.unpack("=9i", data)
    if a == 0:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _check_tiff(path: Path) -> None:
    """Raise InputError for JPEG inside TIFF, which FFmpeg decodes to black."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return
    with path.open("rb") as file:
        order = ">" if file.read(2) == b"MM" else "<"
        version, start = struct.unpack(f"{order}HI", file.read(6))
        if version != 42:
            return
        file.seek(start)
        (count,) = struct.unpack(f"{order}H", file.read(2))
        entries = [struct.unpack(f"{order}HHIHH", file.read(12)) for _ in range(count)]
    tags = {tag: value for tag, _, _, value, _ in entries}
    if tags.get(_COMPRESSION) in _JPEG_INSIDE:
        raise InputError(f"{path} is JPEG inside TIFF, which would come out black; save it without, or as PNG")


def _output_names(names: list[str]) -> list[str]:
    renamed = [name if Path(name).suffix.lower() in _WRITTEN else f"{Path(name).stem}.png" for name in names]
    if len(set(renamed)) != len(renamed):
        twice = next(name for name in renamed if renamed.count(name) > 1)
        raise OutputError(f"two of the images would be written as {twice}; rename one of them")
    return renamed
