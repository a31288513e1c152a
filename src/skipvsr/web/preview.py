"""One frame, upscaled with its neighbours, to be looked at: what the settings do here, and what the whole film would take."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skipvsr.checkpoints.load import load_any_model
from skipvsr.errors import DecodeError, InputError
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.upscaler import Upscaler
from skipvsr.inference.windows import Windows
from skipvsr.models.any_model import AnyModel
from skipvsr.models.resize import bicubic_upsample
from skipvsr.routing.trace import RoutingTrace
from skipvsr.upscale.choose import AUTO_MODEL, choose_model
from skipvsr.upscale.estimate import estimate
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.upscale.measure import remembered_steps
from skipvsr.upscale.options import OutputOptions
from skipvsr.upscale.overlay import LatestDepths, colour_depth
from skipvsr.upscale.plan import disk_bytes
from skipvsr.upscale.size import OutputSize, output_size, resize
from skipvsr.upscale.speed import counted_steps, encode_seconds
from skipvsr.video.encode import EncodeOptions, choose_encoder
from skipvsr.video.images import encode_image
from skipvsr.video.open import open_reader
from skipvsr.video.probe import VideoInfo
from skipvsr.web.command import ENCODINGS, JobSettings
from skipvsr.web.look import FilmEstimate, Preview, PreviewRequest

# Frames before and after the one that is shown.
BEFORE, AFTER = 2, 1
# Low-resolution pixels that are computed at once: about 320x180, a second or two on two cores.
REGION_PIXELS = 60_000
# The same where the whole frame is asked for.
WHOLE_PIXELS = 1_500_000
_KEPT_MOMENTS = 4
_KEPT_TIMES = 64


@dataclass(frozen=True)
class Moment:
    """Frames around a moment, (H, W, 3) each, and which of them it is."""

    info: VideoInfo
    frames: tuple[np.ndarray, ...]
    chosen: int


_moments: OrderedDict[tuple[object, ...], Moment] = OrderedDict()
# The best time of each kind of work: the first run on frames of a size prepares convolutions and is slower.
_best_seconds: OrderedDict[tuple[object, ...], float] = OrderedDict()


def preview(request: PreviewRequest) -> Preview:
    """Upscale a frame with its neighbours.

    Raises:
        InputError: the video cannot be read there.
        ConfigError, ModelError: the settings cannot work.
    """
    moment = _moment(request.path, request.seconds)
    info, settings = moment.info, request.settings
    model, reason = _chosen(request.path, settings)
    height, width = info.height, info.width
    top, left, rows, columns = _region(request, info)
    frames = [to_tensor(frame[top : top + rows, left : left + columns]) for frame in moment.frames]
    compute = ComputeOptions(budget=settings.budget, device=request.device, precision="auto")
    network = _model(model, request.device, settings.scale)
    upscaler = Upscaler(network, compute, _STREAM)
    trace = RoutingTrace()
    result, seconds = _timed(upscaler, frames, moment.chosen, trace)
    key = (model, settings.budget, rows, columns, len(frames))
    seconds = _per_frame(upscaler, _best(key, seconds), len(frames), (rows, columns), (height, width))
    ratio = _depth(trace, moment.chosen)
    out_height, out_width = output_size(_output_size(settings), info, upscaler.model.scale, even=True)
    size = _scaled(rows, out_height / height), _scaled(columns, out_width / width)
    turns = info.rotation_degrees // 90
    encoder = choose_encoder(
        encode_options(settings), out_width, out_height, deep=info.bit_depth > 8, hdr=info.colour.hdr, metadata=info.hdr
    )
    count = info.frame_count
    # As `skipvsr.estimate` has it, where whole frames were measured; otherwise from this preview.
    film = Upscaler(network, compute, StreamOptions())
    steps = remembered_steps(film, height, width, out_height * out_width)
    if steps is not None:
        seconds = steps.per_frame(film.windows(height, width))
    # A CPU does one and the other; a GPU works as the CPU encodes.
    encoding = encode_seconds(out_height * out_width) if upscaler.device.type == "cpu" else 0.0
    return Preview(
        result=_png(resize(result, *size), turns),
        bicubic=_png(resize(bicubic_upsample(frames[moment.chosen], upscaler.model.scale), *size), turns),
        depth=_png(colour_depth(ratio), turns),
        region=_turned((left / width, top / height, columns / width, rows / height), turns),
        size=(size[0], size[1]) if turns % 2 else (size[1], size[0]),
        active_ratio=_active_ratio(trace, moment.chosen),
        tiles=upscaler.tile_grid(rows, columns).tiles,
        depth_range=(ratio.min().item(), ratio.max().item()),
        seconds_per_frame=seconds,
        output_size=(out_height, out_width) if turns % 2 else (out_width, out_height),
        codec=encoder.codec,
        pixel_format=encoder.pixel_format,
        film_seconds=None if count is None else count * (seconds + encoding),
        film_bytes=None if count is None else disk_bytes(
            count, out_height, out_width, Path("film.mp4"), encode_options(settings)
        ),
        model=model,
        model_reason=reason,
        measured=steps is not None,
    )  # fmt: skip


def film_estimate(request: PreviewRequest) -> FilmEstimate:
    """What the whole film takes, as `skipvsr upscale --dry-run` says it; measured for some seconds if need be.

    Raises:
        InputError, OutputError, ConfigError, ModelError: as for `skipvsr.estimate`.
    """
    settings = request.settings
    found = estimate(
        request.path,
        request.path.with_name(request.result_name),
        settings.model,
        scale=settings.scale,
        compute=ComputeOptions(budget=settings.budget, device=request.device, precision="auto"),
        output=OutputOptions(size=_output_size(settings), encoding=encode_options(settings)),
    )
    return FilmEstimate(found.seconds, found.seconds_per_frame, found.file_bytes, found.busy)


def _chosen(path: Path, settings: JobSettings) -> tuple[str, str]:
    """The model, and why it was chosen where that was left open."""
    if settings.model != AUTO_MODEL:
        return settings.model, ""
    choice = choose_model(path, scale=settings.scale, size=_output_size(settings))
    return choice.name, choice.reason


_STREAM = StreamOptions(window=BEFORE + 1 + AFTER, lookahead=0)


def encode_options(settings: JobSettings) -> EncodeOptions:
    """How the job will encode."""
    codec = None if settings.encoding is None else ENCODINGS[settings.encoding][0]
    audio: Any = settings.audio or "copy"
    return EncodeOptions(codec=codec, crf=settings.crf, audio=audio, subtitles=settings.subtitles)


def _output_size(settings: JobSettings) -> OutputSize:
    return OutputSize(height=settings.height)


@lru_cache(maxsize=3)
def _model(name: str, device: str, scale: int | None = None) -> AnyModel:
    return load_any_model(name, device=device, scale=scale)


def _moment(path: Path, seconds: float) -> Moment:
    """The frame shown at a time, and its neighbours; the latest are remembered, for when only the budget changes."""
    status = path.stat()
    key = (path, status.st_mtime_ns, status.st_size, round(seconds, 4))
    if key not in _moments:
        _moments[key] = _read_moment(path, seconds)
    _moments.move_to_end(key)
    while len(_moments) > _KEPT_MOMENTS:
        _moments.popitem(last=False)
    return _moments[key]


def _read_moment(path: Path, seconds: float) -> Moment:
    with open_reader(path) as reader:
        info = reader.info
    step = float(1 / info.frame_rate) if info.frame_rate else 0.04
    start = max(0.0, seconds - (BEFORE + 0.5) * step)
    frames: list[np.ndarray] = []
    times: list[float] = []
    try:
        with open_reader(path, start) as reader:
            begin = reader.info.start_seconds
            for frame in reader:
                frames.append(frame.pixels)
                times.append(begin + frame.seconds)
                if sum(time > seconds + step / 4 for time in times) >= AFTER:
                    break
                if len(frames) > 2 * (BEFORE + 1 + AFTER):
                    del frames[0], times[0]
    except DecodeError:
        if not frames:
            raise
    shown = [index for index, time in enumerate(times) if time <= seconds + step / 4]
    if not frames:
        raise InputError(f"{path} has no frame at {seconds:.3f} s")
    chosen = shown[-1] if shown else 0
    first = max(0, chosen - BEFORE)
    return Moment(info, tuple(islice(frames, first, chosen + AFTER + 1)), chosen - first)


def _timed(upscaler: Upscaler, frames: list[Tensor], chosen: int, trace: RoutingTrace) -> tuple[Tensor, float]:
    start = time.perf_counter()
    results = list(upscaler.stream(frames, trace if upscaler.has_blocks else None))
    return results[chosen], time.perf_counter() - start


def _per_frame(upscaler: Upscaler, seconds: float, frames: int, part: tuple[int, int], whole: tuple[int, int]) -> float:
    """Seconds for a whole frame of the film, whose windows run the backward recurrence over a lookahead, too.

    Args:
        upscaler: the model and its options.
        seconds: that so many frames, in one window, took.
        frames: how many.
        part, whole: (height, width) of these frames, and of the film's.
    """
    work = counted_steps(upscaler, *part, 0)
    speed = seconds / (frames * work.per_frame(Windows(frames, 0)))
    windows = StreamOptions().windows(upscaler.model.config, *whole)
    return speed * work.per_frame(windows) * (whole[0] * whole[1]) / (part[0] * part[1])


def _best(key: tuple[object, ...], seconds: float) -> float:
    _best_seconds[key] = min(seconds, _best_seconds.pop(key, seconds))
    while len(_best_seconds) > _KEPT_TIMES:
        _best_seconds.popitem(last=False)
    return _best_seconds[key]


def _region(request: PreviewRequest, info: VideoInfo) -> tuple[int, int, int, int]:
    """(top, left, rows, columns) of the part, in pixels of the decoded frame."""
    height, width = info.height, info.width
    most = WHOLE_PIXELS if request.whole else REGION_PIXELS
    if height * width <= most:
        return 0, 0, height, width
    scale = (most / (height * width)) ** 0.5
    rows, columns = (max(16, int(side * scale) // 2 * 2) for side in (height, width))
    x, y = request.centre
    for _ in range(info.rotation_degrees // 90):
        x, y = 1 - y, x
    left = round(min(max(x * width - columns / 2, 0), width - columns))
    top = round(min(max(y * height - rows / 2, 0), height - rows))
    return top, left, rows, columns


def _turned(region: tuple[float, float, float, float], turns: int) -> tuple[float, float, float, float]:
    """A region of the decoded frame as it lies in the image that is shown, turned counter-clockwise."""
    left, top, width, height = region
    for _ in range(turns):
        left, top, width, height = top, 1 - left - width, height, width
    return left, top, width, height


def _depth(trace: RoutingTrace, chosen: int) -> Tensor:
    """Ratio of both trunks' blocks that ran at each pixel of a frame; a model without blocks runs none."""
    depths = LatestDepths()
    passes = [trunk for trunk in trace.trunks if trunk.frame == chosen]
    for trunk in passes:
        depths.add(trunk)
    if {trunk.direction for trunk in passes} == {"backward", "forward"}:
        return depths.take(chosen)
    return torch.zeros(1, 1)


def _active_ratio(trace: RoutingTrace, chosen: int) -> float:
    ratios = [trunk.active_ratio for trunk in trace.trunks if trunk.frame == chosen]
    return sum(ratios) / len(ratios) if ratios else 0.0


def _scaled(side: int, factor: float) -> int:
    return max(2, round(side * factor))


def _png(image: Tensor, turns: int) -> bytes:
    return encode_image(np.rot90(to_array(image, np.dtype(np.uint8)), turns), ".png")


def scale_of(model: str) -> int:
    """How many times larger a packaged model makes a video."""
    return _model(model, "cpu").scale
