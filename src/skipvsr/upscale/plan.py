"""How much memory and disk a job takes, before it is begun."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import psutil

from skipvsr.inference.strips import STRIP_PIXELS
from skipvsr.inference.windows import Windows
from skipvsr.models.any_model import AnyConfig
from skipvsr.video.containers import CONTAINERS
from skipvsr.video.prefetch import DEPTH
from skipvsr.video.write import EncodeOptions

_LOG = logging.getLogger("skipvsr")
_GIB = 1 << 30
# Python, torch, FFmpeg and a small model.
_BASE_BYTES = 400 << 20
_FLOAT = 4
# Of 4:2:0 frames in the encoder: what it looks ahead, refers to and works on.
_ENCODER_FRAMES = 60
# Bytes of a pixel, roughly: visually lossless H.264 or H.265, and what is stored without loss.
_BYTES_PER_PIXEL = 0.12
_BYTES_PER_LOSSLESS_PIXEL = 1.5
_LOSSLESS = ("ffv1", "utvideo", "huffyuv", "png")


def memory_bytes(config: AnyConfig, height: int, width: int, windows: Windows, pixels_out: int | None = None) -> int:
    """About how much memory a job takes at its peak, in fp32 on the CPU (docs/streaming.md has it against measurements).

    Args:
        config: of the network.
        height, width: of the low-resolution frames.
        windows: how the stream is cut.
        pixels_out: of a frame that is written; None: as the network makes it.
    """
    pixels, scale = height * width, config.scale
    state = _FLOAT * config.channels * pixels
    held = windows.window + windows.lookahead + 1
    frames = held * _FLOAT * (3 + 4) * pixels  # with the flows to both neighbours
    states = windows.window * state
    trunk = 5 * state
    strip = min(pixels, STRIP_PIXELS)
    reconstruction = _FLOAT * strip * config.reconstruction_values
    results = (DEPTH + 2) * _FLOAT * 3 * scale**2 * pixels
    encoder = int(_ENCODER_FRAMES * 1.5 * (pixels_out or scale**2 * pixels))
    return _BASE_BYTES + frames + states + trunk + reconstruction + results + encoder


def disk_bytes(frames: int, height: int, width: int, destination: Path, encode: EncodeOptions | None = None) -> int:
    """About how much disk an output takes; while a video's parts are joined, twice that.

    Args:
        frames: how many.
        height, width: of a frame that is written.
        destination: a video file, or a folder of images.
        encode: the encoder.
    """
    lossless = destination.suffix.lower() not in CONTAINERS or (encode is not None and encode.codec in _LOSSLESS)
    return int(frames * width * height * (_BYTES_PER_LOSSLESS_PIXEL if lossless else _BYTES_PER_PIXEL))


def warn_of_shortage(memory: int, disk: int | None, folder: Path) -> None:
    """Log a warning where a job needs more than there is.

    Args:
        memory: bytes at the peak.
        disk: bytes of the output; None: nobody knows.
        folder: where it will be.
    """
    available = psutil.virtual_memory().available
    if memory > available:
        _LOG.warning(
            "this takes about %.1f GiB of memory, and %.1f GiB are available; a smaller --window takes less",
            memory / _GIB, available / _GIB,
        )  # fmt: skip
    free = shutil.disk_usage(folder).free if folder.is_dir() else None
    if disk is not None and free is not None and 2 * disk > free:
        _LOG.warning(
            "this takes about %.1f GiB of disk while it is made, and %.1f GiB are free in %s; a larger --crf takes less",
            2 * disk / _GIB, free / _GIB, folder,
        )  # fmt: skip
