"""`estimate`: what a job will take, before it is begun, from a short measurement that is remembered."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Unpack

import psutil
from torch import Tensor

from skipvsr.errors import InputError
from skipvsr.inference.controllers import MIN_BUDGET
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.choose import AUTO_MODEL, resolve_model
from skipvsr.upscale.frames import to_tensor
from skipvsr.upscale.measure import (
    MEASURE_SECONDS,
    MEASURED_FRAMES,
    measure_encoding,
    measure_steps,
    remember_steps,
    remembered_steps,
)
from skipvsr.upscale.options import JobOptions, OutputOptions, VideoShorthands
from skipvsr.upscale.plan import disk_bytes, memory_bytes
from skipvsr.video.containers import CONTAINERS
from skipvsr.video.open import check_streams_fit, open_reader
from skipvsr.video.probe import VideoInfo
from skipvsr.video.write import EncodeOptions

# Of the beginning, at most: where a file cannot be searched, so much has to be decoded.
_SKIPPED_SECONDS = 20.0
# Of what is measured in all: two tries of so many steps, for each of one or two settings.
_STEPS = 2 * 3 * MEASURED_FRAMES
OnMeasure = Callable[[float], object]


@dataclass(frozen=True)
class Estimate:
    """What a job will take.

    Args:
        info: of the source.
        output_size: (width, height).
        window: frames per window.
        memory_bytes: at the peak.
        memory_available: of this machine, now.
        file_bytes: of the output; None where nobody knows how many frames there are.
        disk_bytes: at the peak, while the output is put together; None as above.
        disk_available: where the output will be; None where that folder does not exist.
        seconds_per_frame: with encoding.
        seconds: all of it; None where nobody knows how many frames there are.
        frames_per_second: the same the other way round.
        most_frames_per_second: that a target frame rate can reach here, by skipping nearly everything that may be skipped;
            None where no target was asked for.
        remembered: whether the speed was known from an earlier measurement.
        busy: whether other programs used the processor while it was measured: alone, the job will take less. Such a
            measurement is not remembered.
        model: its name; empty where the model itself was given.
        model_reason: why it was chosen, where the choice was left open.
    """

    info: VideoInfo
    output_size: tuple[int, int]
    window: int
    memory_bytes: int
    memory_available: int
    file_bytes: int | None
    disk_bytes: int | None
    disk_available: int | None
    seconds_per_frame: float
    seconds: float | None
    frames_per_second: float
    most_frames_per_second: float | None
    remembered: bool
    busy: bool
    model: str = ""
    model_reason: str = ""


def estimate(
    source: str | Path,
    destination: str | Path,
    model: AnyModel | str | Path = AUTO_MODEL,
    *,
    compute: ComputeOptions | None = None,
    stream: StreamOptions | None = None,
    output: OutputOptions | None = None,
    scale: int | None = None,
    start: float | None = None,
    end: float | None = None,
    on_progress: OnMeasure | None = None,
    **options: Unpack[VideoShorthands],
) -> Estimate:
    """What `upscale_video` would take with the same arguments; writes nothing but what it measured, for the next time.

    The network runs for a few seconds on frames from some way into the video, or on as much of them as these allow; at once
    where this model was measured with these options and this size on this machine before.

    Args:
        source: a video file or a folder of images.
        destination: where it would be written; it may exist.
        model, scale: as for `upscale_video`.
        compute, stream, output: the options; None: their defaults.
        start, end: seconds, of the part that would be upscaled.
        on_progress: called while it measures, with how much of that is done, from 0 to 1.
        options: single fields of the options, as for `upscale_video`.

    Raises:
        InputError, DecodeError: the source cannot be read.
        OutputError: the container cannot hold a stream of the source.
        ModelError, ConfigError: the model or an option is wrong.
    """
    job = JobOptions.of("estimate", compute, stream, output, options)
    compute, output = job.compute, job.output
    network, choice = resolve_model(model, Path(source), scale=scale, size=output.size, device=compute.torch_device)
    upscaler = Upscaler(network, compute, job.stream)
    with open_reader(source, start, end) as reader:
        info = reader.info
        height, width = output.size_of(info, upscaler.model.scale)
        check_streams_fit(Path(destination), width, height, reader, output.encoding)
    clock = _Clock(upscaler, Path(source), info, height * width, on_progress)
    encode = clock.encoding(output.encoding, Path(destination))
    seconds, fastest = clock.seconds_per_frame(encode)
    count, destination = info.frame_count, Path(destination)
    windows = upscaler.windows(info.height, info.width)
    size = None if count is None else disk_bytes(count, height, width, destination, output.encoding)
    folder = destination.absolute().parent
    # Parts of a video are joined beside them.
    copies = 2 if destination.suffix.lower() in CONTAINERS else 1
    return Estimate(
        info=info,
        output_size=(width, height),
        window=windows.window,
        memory_bytes=memory_bytes(upscaler.model.config, info.height, info.width, windows, width * height),
        memory_available=psutil.virtual_memory().available,
        file_bytes=size,
        disk_bytes=None if size is None else copies * size,
        disk_available=shutil.disk_usage(folder).free if folder.is_dir() else None,
        seconds_per_frame=seconds,
        seconds=None if count is None else count * seconds,
        frames_per_second=1 / seconds,
        most_frames_per_second=fastest,
        remembered=clock.remembered,
        busy=clock.busy,
        model=choice.name if choice is not None else str(model) if isinstance(model, str | Path) else "",
        model_reason="" if choice is None else choice.reason,
    )


class _Clock:
    """Measures, or remembers, how long a frame takes."""

    def __init__(
        self, upscaler: Upscaler, source: Path, info: VideoInfo, pixels_out: int, on_progress: OnMeasure | None
    ) -> None:
        self.remembered, self.busy = True, False
        self._upscaler, self._source, self._info, self._pixels_out = upscaler, source, info, pixels_out
        self._on_progress = on_progress or (lambda part: None)
        self._steps, self._all_steps = 0, _STEPS * (1 if upscaler.compute.target_fps is None else 2)
        self._frames: list[Tensor] = []

    def encoding(self, options: EncodeOptions, destination: Path) -> float:
        """Seconds a frame."""
        container = destination.suffix.lower()
        if container not in CONTAINERS:
            container, options = ".mkv", EncodeOptions(codec="png", pixel_format="rgb24")
        return self._pixels_out * measure_encoding(self._some_frames(), options, container)

    def seconds_per_frame(self, encode: float) -> tuple[float, float | None]:
        """With encoding; and the most frames a second that can be had, where a target was asked for."""
        target = self._upscaler.compute.target_fps
        if target is None:
            return self._seconds(self._upscaler, encode), None
        slowest, fastest = (
            self._seconds(self._with_budget(budget), encode, MEASURE_SECONDS / 2) for budget in (1.0, MIN_BUDGET)
        )
        return min(max(1 / target, fastest), slowest), 1 / fastest

    def _with_budget(self, budget: float) -> Upscaler:
        compute = replace(self._upscaler.compute, target_fps=None, budget=budget)
        return Upscaler(self._upscaler.model, compute, self._upscaler.stream_options)

    def _seconds(self, upscaler: Upscaler, encode: float, limit: float = MEASURE_SECONDS) -> float:
        height, width = self._info.height, self._info.width
        steps = remembered_steps(upscaler, height, width, self._pixels_out)
        if steps is None:
            self.remembered = False
            steps, busy = measure_steps(
                upscaler, self._some_frames(), self._pixels_out, seconds=limit, on_step=self._step_done
            )
            self.busy |= busy
            if not busy:
                remember_steps(upscaler, height, width, steps)
        windows = upscaler.windows(height, width)
        return steps.per_video_frame(windows, encode, on_cpu=upscaler.device.type == "cpu")

    def _step_done(self) -> None:
        self._steps += 1
        self._on_progress(min(self._steps / self._all_steps, 1.0))

    def _some_frames(self) -> list[Tensor]:
        """From some way into the video: a film begins with a black frame."""
        if not self._frames:
            length = None if self._source.is_dir() else self._info.duration_seconds
            later = None if length is None else self._info.start_seconds + min(length / 2, _SKIPPED_SECONDS)
            try:
                self._frames = self._read(later)
            except InputError:  # damaged, or shorter than it says
                self._frames = self._read(None)
        return self._frames

    def _read(self, start: float | None) -> list[Tensor]:
        with open_reader(self._source, start) as reader:
            return [to_tensor(frame.pixels) for frame in islice(reader, MEASURED_FRAMES)]
