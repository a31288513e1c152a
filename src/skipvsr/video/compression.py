"""How strongly the frames of a file are compressed: its codec, and the bits it spends on a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from skipvsr.video.errors import reading
from skipvsr.video.files import IMAGE_SUFFIXES
from skipvsr.video.open import open_reader
from skipvsr.video.probe import main_video_stream, open_container, stream_duration_seconds

# Formats of images that lose something.
_LOSSY_IMAGES = {".jpg": "mjpeg", ".jpeg": "mjpeg", ".webp": "webp"}


@dataclass(frozen=True)
class Compression:
    """What the frames of a file went through.

    Args:
        codec: FFmpeg's name ("h264"); for images that of their format.
        bits_per_pixel: of the stored frames, on average; None where the file does not say.
        height, width: of the frames.
    """

    codec: str
    bits_per_pixel: float | None
    height: int
    width: int


def compression_of(source: Path) -> Compression:
    """Read it off a video file or a folder of images, without decoding more than one frame.

    Raises:
        InputError: the source cannot be read.
    """
    if source.is_dir() or source.suffix.lower() in IMAGE_SUFFIXES:
        return _of_images(source)
    container, file = open_container(source)
    try:
        with reading(source):
            stream = main_video_stream(container, source)
            context = stream.codec_context
            pixels = context.width * context.height
            rate = stream.average_rate or stream.guessed_rate
            bits = _bits_per_second(container, stream, source)
            per_pixel = bits / (pixels * float(rate)) if bits and rate and pixels else None
            return Compression(context.codec.canonical_name, per_pixel, context.height, context.width)
    finally:
        container.close()
        file.close()


def _bits_per_second(container: InputContainer, stream: VideoStream, source: Path) -> float | None:
    """Of the frames alone, where the container says so; otherwise what sound and the rest leave of the whole."""
    if stream.bit_rate:
        return stream.bit_rate
    duration = stream_duration_seconds(stream) or (container.duration / av.time_base if container.duration else None)
    if not duration:
        return None
    others = sum(other.bit_rate or 0 for other in container.streams.audio)
    return max(8 * source.stat().st_size / duration - others, 0.0) or None


def _of_images(source: Path) -> Compression:
    with open_reader(source) as reader:
        info = reader.info
    files = [source]
    if source.is_dir():
        files = sorted(
            path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
        )
    codec = _LOSSY_IMAGES.get(files[0].suffix.lower(), files[0].suffix.lower().lstrip("."))
    bits = 8 * sum(path.stat().st_size for path in files) / len(files)
    return Compression(codec, bits / (info.width * info.height), info.height, info.width)
