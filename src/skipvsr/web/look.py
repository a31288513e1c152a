"""What runs in processes of their own: everything that decodes a file, and the network. A file that crashes a decoder
takes that process with it, and not the page."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import asdict, dataclass
from fractions import Fraction
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from skipvsr.video.files import VIDEO_SUFFIXES
from skipvsr.video.survey import Survey, survey
from skipvsr.video.thumbnail import thumbnail
from skipvsr.web.command import JobSettings

THUMBNAIL_PX = 192
# By the degradation with which a model was trained, the last word of its provenance's "data".
_FOOTAGE = {"bi": "for clean footage", "bd": "for clean footage, a little soft", "video": "for compressed footage"}
# Fields of a `Preview` that are images.
IMAGES = ("result", "bicubic", "depth")


@dataclass(frozen=True)
class Offers:
    """What a person can choose from.

    Args:
        models: by name: what it is for, how many times larger it makes a video, and whether it can skip blocks.
        presets: budgets by name.
        endings: of videos.
    """

    models: dict[str, dict[str, Any]]
    presets: dict[str, float]
    endings: tuple[str, ...]


@dataclass(frozen=True)
class PreviewRequest:
    """The frame that is to be previewed, and how.

    Args:
        path: a video file.
        seconds: of the file's own clock; the frame that is shown then.
        settings: of the job that it stands for.
        centre: of the part that is computed, (x, y) in [0, 1] of the image as it is shown.
        whole: the whole frame, not only a part.
        device: where.
        result_name: of the film.
    """

    path: Path
    seconds: float
    settings: JobSettings
    centre: tuple[float, float] = (0.5, 0.5)
    whole: bool = False
    device: str = "auto"
    result_name: str = ""


@dataclass(frozen=True)
class Preview:
    """The images, PNG, and facts.

    Args:
        result, bicubic, depth: the frame upscaled, the same by bicubic interpolation, and how deep each tile went, at the
            size of the low-resolution part.
        region: (left, top, width, height) of the part, in [0, 1] of the image as it is shown.
        size: (width, height) of the images.
        active_ratio: of the residual blocks' work on this frame.
        tiles: how many there are, in the part.
        depth_range: least and most of the blocks of a tile that ran, in [0, 1].
        seconds_per_frame: measured here and now, for whole frames of the film.
        output_size: (width, height) of the film's frames, as it is shown.
        codec, pixel_format: of the film.
        model: its name.
        model_reason: why it was chosen, where the choice was left open.
        measured: whether the film's time is that of a measurement of whole frames, which the command line uses too; or is
            worked out from this preview.
        film_seconds: it takes; None where nobody knows how many frames there are.
        film_bytes: of the film; None as well.
    """

    result: bytes
    bicubic: bytes
    depth: bytes
    region: tuple[float, float, float, float]
    size: tuple[int, int]
    active_ratio: float
    tiles: int
    depth_range: tuple[float, float]
    seconds_per_frame: float
    output_size: tuple[int, int]
    codec: str
    pixel_format: str
    film_seconds: float | None
    film_bytes: int | None
    model: str
    model_reason: str
    measured: bool


@dataclass(frozen=True)
class FilmEstimate:
    """What a whole film takes, as `skipvsr.estimate` says it.

    Args:
        seconds: of all of it; None where nobody knows how many frames there are.
        seconds_per_frame: with encoding.
        file_bytes: of the output; None as above.
        busy: whether other programs used the processor meanwhile.
    """

    seconds: float | None
    seconds_per_frame: float
    file_bytes: int | None
    busy: bool


def prepare() -> None:
    """Called first in each process: ignore Ctrl-C, which is for the server, and end when the server ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def offers() -> Offers:
    """The models, presets and endings on offer; also loads what previews need."""
    from skipvsr.checkpoints.load import BICUBIC, packaged_names, read_checkpoint
    from skipvsr.inference.options import PRESETS
    from skipvsr.upscale.choose import AUTO_MODEL
    from skipvsr.web.preview import scale_of

    models: dict[str, dict[str, Any]] = {}
    for name in packaged_names():
        checkpoint = read_checkpoint(name)
        about = _FOOTAGE.get(str(checkpoint.provenance.get("data", "")).rpartition(";")[2].strip(), "")
        models[name] = {"about": about, "scale": scale_of(name), "skips": checkpoint.calibration is not None}
    auto = {"about": "the one that fits the file", "scale": 4, "skips": True}
    models = {AUTO_MODEL: auto, **models}
    models[BICUBIC] = {"about": "no network: plain enlargement", "scale": scale_of(BICUBIC), "skips": False}
    return Offers(models, {str(name): budget for name, budget in PRESETS.items()}, tuple(sorted(VIDEO_SUFFIXES)))


def describe(path: Path) -> dict[str, Any]:
    """What is in a video, in plain values. Raises InputError."""
    return found(survey(path))


def found(seen: Survey) -> dict[str, Any]:
    """A survey in plain values: sizes as they are shown, times in seconds."""
    info = seen.info
    sides = (info.height, info.width) if info.rotation_degrees % 180 else (info.width, info.height)
    aspect = info.sample_aspect_ratio
    if info.rotation_degrees % 180:
        aspect = 1 / aspect
    return {
        "width": sides[0],
        "height": sides[1],
        "aspect": float(Fraction(sides[0], sides[1]) * aspect),
        "square_pixels": info.sample_aspect_ratio == 1,
        "rotation": info.rotation_degrees,
        "frames": info.frame_count,
        "seconds": info.duration_seconds,
        "first_seconds": seen.first_seconds,
        "frame_rate": None if info.frame_rate is None else float(info.frame_rate),
        "variable_rate": seen.variable_rate,
        "interlaced": info.interlaced,
        "codec": seen.codec,
        "container": seen.container,
        "pixel_format": info.pixel_format,
        "bits": info.bit_depth,
        "colour": {**asdict(info.colour), "hdr": info.colour.hdr},
        "sounds": [asdict(sound) for sound in seen.sounds],
        "subtitles": info.subtitle_streams,
        "bytes": seen.size_bytes,
    }


def thumbnail_at(path: Path, seconds: float) -> bytes:
    """A moment of a video as a small JPEG. Raises InputError."""
    return thumbnail(path, seconds, THUMBNAIL_PX)


def film_estimate(request: PreviewRequest) -> FilmEstimate:
    """What a whole film takes (`skipvsr.web.preview`), in a process that may import torch."""
    from skipvsr.web.preview import film_estimate as run

    return run(request)


def preview(request: PreviewRequest) -> Preview:
    """A frame upscaled with its neighbours (`skipvsr.web.preview`), in a process that may import torch."""
    from skipvsr.web.preview import preview as run

    return run(request)
