"""Images: one image in a file, as full-range RGB."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec import CodecContext
from av.sidedata.sidedata import Type
from av.video.codeccontext import VideoCodecContext

from skipvsr.errors import InputError, OutputError
from skipvsr.video.colour import (
    FULL,
    RGB,
    SMPTE170M,
    ColourSpec,
    alpha_of,
    bit_depth,
    colour_of,
    from_rgb,
    from_rgba,
    to_rgb,
)
from skipvsr.video.errors import OPEN_OPTIONS, file_name, reading, writing
from skipvsr.video.limits import MAX_IMAGE_BYTES, MAX_PIXELS, check_size, limit_decoder
from skipvsr.video.png import image_only, is_png
from skipvsr.video.probe import VideoInfo
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
_JPEG = (".jpg", ".jpeg")
_JPEG_START, _SCAN_START, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
# TIFF: the tag of the compression, and its values for JPEG.
_COMPRESSION, _JPEG_INSIDE = 259, (6, 7)


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
    with _first_frame(path) as frame:
        check_size(path, frame.width, frame.height)
        _check_tiff(path)
        _check_jpeg(path)
        # A JPEG of four components is CMYK; the fourth is black, not opacity.
        alpha = None if path.suffix.lower() in _JPEG else alpha_of(frame)
        try:
            pixels = to_rgb(frame, colour_of(frame, still=True))
        except InputError as error:
            raise InputError(f"{path} cannot be used: {error}") from error
        upright = np.ascontiguousarray(_upright(pixels, frame))
        return upright, None if alpha is None else np.ascontiguousarray(_upright(alpha, frame))


def describe_image(path: Path) -> VideoInfo:
    """What an image file holds, turned upright: a video of one frame.

    Raises:
        InputError: as `read_image_and_alpha` does.
    """
    with _first_frame(path) as frame:
        check_size(path, frame.width, frame.height)
        colour_of(frame, still=True)
        height, width = _upright(np.empty((frame.height, frame.width), np.uint8), frame).shape
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            display_matrix=None,
            rotation_degrees=0,
            sample_aspect_ratio=Fraction(1),
            time_base=Fraction(1),
            frame_rate=None,
            frame_count=1,
            duration_seconds=None,
            pixel_format=frame.format.name,
            bit_depth=bit_depth(frame.format),
            colour=ColourSpec(RGB, FULL),
            audio_streams=0,
            subtitle_streams=0,
        )


def write_image(path: str | Path, pixels: np.ndarray, alpha: np.ndarray | None = None) -> None:
    """Write an image as PNG, TIFF, BMP (8 bit) or JPEG (8 bit, 4:4:4, best quality, no alpha) by the ending.

    Args:
        path: the file.
        pixels: (H, W, 3), full-range RGB, uint8 or uint16.
        alpha: (H, W) of the same type; None: opaque.

    Raises:
        OutputError: another ending, alpha for JPEG, or a place that cannot be written.
    """
    path = Path(path)
    with writing(path):
        path.write_bytes(encode_image(pixels, path.suffix, alpha, name=str(path)))


def encode_image(pixels: np.ndarray, ending: str, alpha: np.ndarray | None = None, *, name: str = "an image") -> bytes:
    """The contents of a file as `write_image` writes it.

    Args:
        pixels, alpha: as there.
        ending: of the file's name (.png).
        name: for messages.

    Raises:
        OutputError: another ending, or alpha for JPEG.
    """
    if ending.lower() not in _WRITTEN:
        raise OutputError(f"{name} has an ending that cannot be written; use {', '.join(_WRITTEN)}")
    codec, shallow, deep, shallow_alpha, deep_alpha = _WRITTEN[ending.lower()]
    if alpha is not None:
        shallow, deep = shallow_alpha, deep_alpha
    if not shallow:
        raise OutputError(f"{name} is JPEG, which has no alpha; use .png or .tif")
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
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


@contextmanager
def _first_frame(path: Path) -> Iterator[av.VideoFrame]:
    """The image of a file, as long as the file is open."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path")
    with reading(path):
        if path.stat().st_size > MAX_IMAGE_BYTES:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes; images of at most {MAX_IMAGE_BYTES:,} are read"
            )
        if is_png(path):
            yield _decode_png(path)
            return
        with av.open(file_name(path), "r", options=OPEN_OPTIONS) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise InputError(f"{path} holds no image; give an image file")
            limit_decoder(path, stream)
            frame = next(container.decode(stream), None)
            if frame is None:
                raise InputError(f"{path} holds no image; is it complete?")
            yield frame


def _decode_png(path: Path) -> av.VideoFrame:
    """Without a container: to open one decodes the image once more."""
    decoder = CodecContext.create("png", "r")
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    frame = next(iter(decoder.decode(av.Packet(image_only(path)))), None)
    if frame is None:
        raise InputError(f"{path} holds no image; is it complete?")
    return frame


def _upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn and mirror an image, (H, W) or (H, W, 3), as its orientation tag says (EXIF).

    FFmpeg makes a matrix of the tag: the pixel at (x, y) is shown at (a x + c y, b x + d y), moved into the image.
    """
    data = side_data(frame, Type.DISPLAYMATRIX)
    if data is None:
        return pixels
    a, b, _, c, d, *_ = struct.unpack("=9i", data)
    if a == 0:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _check_jpeg(path: Path) -> None:
    """Raise InputError for a JPEG file that was cut off: FFmpeg decodes it, with grey where nothing was left."""
    contents = path.read_bytes()
    place = 2
    # Segments with a length each, up to the start of the scan. Previews in them have ends of their own.
    while contents[:2] == _JPEG_START and contents[place : place + 1] == b"\xff":
        if contents[place : place + 2] == _SCAN_START:
            if contents.find(_JPEG_END, place) < 0:
                raise InputError(f"{path} was cut off: the end of the image is missing; copy or download it again")
            return
        place += 2 + int.from_bytes(contents[place + 2 : place + 4], "big")


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
