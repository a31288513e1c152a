"""Limits for untrusted files: sizes, streams, threads."""

from __future__ import annotations

import os
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from skipvsr.errors import InputError

MIN_SIDE_PX = 16
MAX_SIDE_PX = 16384
MAX_PIXELS = 1 << 26
MAX_STREAMS = 64
# Of an image: the largest image in 16 bits with alpha, not compressed, and room for what comes with it.
MAX_IMAGE_BYTES = 8 * MAX_PIXELS + (64 << 20)
MAX_DECODER_THREADS = 8


def check_size(path: Path, width: int, height: int) -> None:
    """Raise InputError for a frame (width, height in pixels) that is too small or too large to be read."""
    if min(width, height) < MIN_SIDE_PX:
        raise InputError(f"{path} is {width}x{height}; each side must be at least {MIN_SIDE_PX} pixels")
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise InputError(
            f"{path} says that it is {width}x{height}; at most {MAX_SIDE_PX:,} pixels a side and {MAX_PIXELS:,} in all are read"
        )


def check_streams(path: Path, container: InputContainer) -> None:
    """Raise InputError for a file of more streams than anybody needs."""
    count = len(container.streams)
    if count > MAX_STREAMS:
        raise InputError(f"{path} holds {count} streams; at most {MAX_STREAMS} are read: take out what you do not need")


def limit_decoder(path: Path, stream: VideoStream) -> None:
    """Have a stream decoded within the limits.

    Only the slices of one frame are decoded at once. Threads that work on several frames hand on an error with a later
    packet, and at the end of the file FFmpeg's interface then loses the frames behind it.

    Raises:
        InputError: its header says that it is too large, or there is no decoder.
    """
    context = stream.codec_context
    if context is None:
        raise InputError(f"{path} is in a format that this FFmpeg cannot decode; convert it first")
    if context.width and context.height:
        check_size(path, context.width, context.height)
    context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
    context.thread_type = "SLICE"
    context.thread_count = min(MAX_DECODER_THREADS, os.cpu_count() or 1)
