"""Expected seconds of each step of a job: as measured, or in proportion to its counted work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from skipvsr.evaluation.cost import stream_cost
from skipvsr.inference.upscaler import Upscaler
from skipvsr.inference.windows import Windows

Step = Literal["flow", "backward", "forward"]
# Seconds per multiply-accumulate of each part, relative to that of the residual blocks: flow warps and works in few channels.
_FLOW_WEIGHT, _RECONSTRUCTION_WEIGHT = 2.5, 1.5
# Multiply-accumulates a pixel whose time everything else takes: warping, converting, copying.
_OVERHEAD_MACS = 4_000
# Seconds of one core for an output pixel in H.264, as it is encoded by default: a rough figure.
_ENCODE_CORE_SECONDS = 50e-9
_ENCODE_CORES = 8
# Frames that an encoder holds before it gives the first: it looks ahead, and works on several.
ENCODER_DELAY = 48


@dataclass(frozen=True)
class StepSeconds:
    """Seconds a frame of each step of the network, and of encoding.

    Args:
        flow: both flows between a frame and the one before, with reading the frame.
        backward: a step of the backward recurrence.
        forward: a step of the forward recurrence, with the reconstruction.
        encode: encoding a frame, with nothing else running.
        measured: False: the first three are only right relative to one another, by counted work.
    """

    flow: float
    backward: float
    forward: float
    encode: float
    measured: bool = True

    def of(self, step: Step) -> float:
        """Of one of the network's steps."""
        return getattr(self, step)

    def per_frame(self, windows: Windows) -> float:
        """Of the network, for a frame of a long scene: the backward recurrence runs over the lookahead, too."""
        return self.flow + self.backward * (1 + windows.lookahead / windows.window) + self.forward

    def per_video_frame(self, windows: Windows, encode: float, *, on_cpu: bool) -> float:
        """With encoding: a CPU does one and the other, while a GPU works as the CPU encodes."""
        network = self.per_frame(windows)
        return network + encode if on_cpu else max(network, encode)


def backward_steps(frames: int, windows: Windows) -> int:
    """Steps of the backward recurrence for a scene of so many frames, those of the lookahead included.

    Example: 10 frames in windows of 4 with a lookahead of 2 take 6 + 6 + 2 steps.
    """
    window, reach = windows.window, windows.window + windows.lookahead
    whole = max(0, (frames - reach) // window + 1)  # windows with all of their lookahead
    return whole * reach + sum(min(reach, frames - start) for start in range(whole * window, frames, window))


def counted_steps(
    upscaler: Upscaler, height: int, width: int, pixels_out: int, *, ratio: float | None = None
) -> StepSeconds:
    """What can be said of a model that was never measured: its steps relative to one another, by their work.

    Args:
        upscaler: the model and its options.
        height, width: of the low-resolution frames.
        pixels_out: of a frame that is written.
        ratio: of the residual blocks' work that runs; None: the budget that was asked for, or all of it.
    """
    cost = stream_cost(upscaler, height, width)
    overhead = _OVERHEAD_MACS * height * width
    ratio = (upscaler.compute.budget or 1.0) if ratio is None else ratio
    trunk = (cost.trunk_inputs + ratio * cost.blocks + cost.router) / 2 + overhead
    return StepSeconds(
        flow=_FLOW_WEIGHT * cost.flow + overhead,
        backward=trunk,
        forward=trunk + _RECONSTRUCTION_WEIGHT * cost.reconstruction + overhead,
        encode=encode_seconds(pixels_out),
        measured=False,
    )


def encode_seconds(pixels: int) -> float:
    """About how long encoding a frame of so many pixels takes on this machine."""
    return _ENCODE_CORE_SECONDS * pixels / min(os.cpu_count() or 1, _ENCODE_CORES)
