"""How fast is it here: what each preset means on this machine, for three sizes, in less than a minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.inference.machine import describe_machine
from skipvsr.inference.options import PRESETS, ComputeOptions, Precision, Preset
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.measure import (
    MEASURED_FRAMES,
    measure_encoding,
    measure_steps,
    remember_steps,
)
from skipvsr.video.write import EncodeOptions

# Width and height of the inputs.
SIZES = ((320, 180), (854, 480), (1280, 720))
# Of the network, for each preset and size: nine of them, with the rest, stay within a minute.
_SECONDS = 3.0
# Sides of the patterns that the frames are made of, in pixels.
_PATTERNS_PX = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class PresetSpeed:
    """What a preset means for one size.

    Args:
        preset: its name.
        budget: ratio of the residual blocks' work that runs.
        width, height: of the input.
        frames_per_second: of a long video, from medians of each step, with encoding (H.264, visually lossless). Of frames that
            are too large for the time, a part is measured, and the rest counted in proportion.
    """

    preset: Preset
    budget: float
    width: int
    height: int
    frames_per_second: float


@dataclass(frozen=True)
class QuickBenchmark:
    """What `skipvsr benchmark --quick` found.

    Args:
        machine: its description.
        device: on which the network ran.
        precision: in which it ran.
        speeds: of every preset that the model can follow, at every size.
        busy: whether other programs used the processor meanwhile.
    """

    machine: dict[str, Any]
    device: str
    precision: str
    speeds: tuple[PresetSpeed, ...]
    busy: bool


def quick_benchmark(
    model: AnyModel,
    *,
    device: str = "auto",
    precision: Precision | None = "auto",
    on_progress: Callable[[float], object] | None = None,
) -> QuickBenchmark:
    """Measure each preset on three sizes; what was found is remembered for `estimate`.

    Args:
        model: a model; one without a router has only the preset "best".
        device, precision: as in `ComputeOptions`.
        on_progress: called after each measurement with how much is done, from 0 to 1.

    Raises:
        ConfigError: the device is not there.
    """
    presets: list[Preset] = [preset for preset in PRESETS if model.calibration is not None or PRESETS[preset] == 1]
    speeds: list[PresetSpeed] = []
    busy, used, ran = False, "cpu", "fp32"
    for width, height in SIZES:
        frames = list(moving_frames(height, width, MEASURED_FRAMES))
        pixels_out = model.scale**2 * height * width
        encode = pixels_out * measure_encoding(frames, EncodeOptions(), ".mp4")
        for preset in presets:
            upscaler = Upscaler(model, ComputeOptions(preset=preset, device=device, precision=precision))
            used, ran = str(upscaler.device), upscaler.precision
            steps, disturbed = measure_steps(upscaler, frames, pixels_out, seconds=_SECONDS)
            busy |= disturbed
            if not disturbed:
                remember_steps(upscaler, height, width, steps)
            seconds = steps.per_video_frame(upscaler.windows(height, width), encode, on_cpu=used == "cpu")
            speeds.append(PresetSpeed(preset, PRESETS[preset], width, height, 1 / seconds))
            if on_progress is not None:
                on_progress(len(speeds) / (len(SIZES) * len(presets)))
    return QuickBenchmark(describe_machine(), used, ran, tuple(speeds), busy)


def moving_frames(height: int, width: int, count: int) -> Iterator[Tensor]:
    """Frames (3, H, W) of patterns of all sizes that move by a pixel from one to the next, RGB in [0, 1], always the same."""
    generator = torch.Generator().manual_seed(0)
    canvas = torch.full((1, 3, height, width + count), 0.5)
    for side in _PATTERNS_PX:
        shape = (1, 3, -(-height // side) + 1, -(-(width + count) // side) + 1)
        noise = torch.rand(shape, generator=generator) - 0.5
        canvas += 0.2 * F.interpolate(noise, size=canvas.shape[-2:], mode="bilinear", align_corners=True)
    for number in range(count):
        yield canvas[0, :, :, number : number + width].clamp(0, 1)
