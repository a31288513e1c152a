"""What a run is asked for: how much of the network runs and where, and how a stream is cut into windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict, TypeVar, get_args

import torch

from skipvsr.errors import ConfigError
from skipvsr.inference.patched import PATCH_BATCH_SIZE
from skipvsr.inference.windows import DEFAULT_LOOKAHEAD, Windows, default_window
from skipvsr.models.any_model import AnyConfig

Tiling = Literal["frame", "patch"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Runtime = Literal["torch", "openvino"]
Preset = Literal["fast", "balanced", "best"]
# The budget of each.
PRESETS: dict[Preset, float] = {"fast": 0.3, "balanced": 0.6, "best": 1.0}
AUTO = "auto"


@dataclass(frozen=True)
class ComputeOptions:
    """How much of the network runs, and where. With nothing set, every block runs.

    Args:
        preset: "fast", "balanced" or "best": a budget of 0.3, 0.6 or 1; it is turned into the budget at once.
        budget: ratio of the residual blocks' work that may run, in (0, 1]; needs a calibrated model.
        threshold: a block runs on a tile where the router's score exceeds this (the paper's alpha); 0 runs everything.
        target_fps: frames per second to keep to, by changing the budget while the video runs; needs a calibrated model.
        rest: where blocks may be skipped by our router, tiles in which nothing moves keep the state of the frame before.
        tile_size: longest side of a tile in low-resolution pixels; None: as the model was calibrated.
        tiling: "frame", tiles that see their true neighbours; or "patch", the paper's isolated patches of 48 pixels.
        patch_batch_size: patches that are computed at a time.
        device: "cpu", "cuda", "cuda:1", ...; "auto": a GPU if there is one for a model given by its name, and where it is for a
            model that is loaded already. For OpenVINO "cpu" (which "auto" is), "gpu", "gpu:1" or "npu".
        precision: of weights and features; frames, flow, warping and the router stay fp32. "auto": fp32, or half precision
            where a short measurement says that this machine is faster with it, which is remembered
            (`skipvsr.inference.precision`).
            None: "auto" in `upscale_video`, `upscale_many`, `upscale_frames` and `estimate`, elsewhere as the model is.
            "int8": convolutions of trunks and reconstruction in 8 bit, the rest fp32; with OpenVINO alone, for a model with a
            table of ranges (`skipvsr calibrate --int8`).
        runtime: what computes: "torch", or "openvino", which runs every block, on whole frames, in fp32 or int8.

    Raises:
        ConfigError: more than one of the first four is set, a value is out of its range, or the runtime cannot do it.
    """

    preset: Preset | None = None
    budget: float | None = None
    threshold: float | None = None
    target_fps: float | None = None
    rest: bool = True
    tile_size: int | None = None
    tiling: Tiling = "frame"
    patch_batch_size: int = PATCH_BATCH_SIZE
    device: str | torch.device = AUTO
    precision: Precision | None = None
    runtime: Runtime = "torch"

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.preset, self.threshold, self.budget, self.target_fps)) > 1:
            raise ConfigError(
                "more than one of preset, budget, threshold and target frame rate was given; give one of them"
            )
        if self.preset is not None:
            _check_choice("preset", self.preset, get_args(Preset))
            object.__setattr__(self, "budget", PRESETS[self.preset])
            object.__setattr__(self, "preset", None)
        if self.threshold is not None and not self.threshold >= 0:
            raise ConfigError(f"the threshold is {self.threshold}; it must be 0 (run everything) or more")
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ConfigError(f"the budget is {self.budget}; it must be above 0 and at most 1")
        if self.target_fps is not None and not self.target_fps > 0:
            raise ConfigError(f"the target is {self.target_fps} frames per second; it must be above 0")
        if self.tile_size is not None and self.tile_size < 4:
            raise ConfigError(f"tiles are {self.tile_size} pixels; they must be at least 4")
        if self.patch_batch_size < 1:
            raise ConfigError(f"{self.patch_batch_size} patches in a batch; it must be at least 1")
        _check_choice("tiling", self.tiling, get_args(Tiling))
        if self.precision is not None:
            _check_choice("precision", self.precision, get_args(Precision))
        _check_choice("runtime", self.runtime, get_args(Runtime))
        self._check_runtime()

    def _check_runtime(self) -> None:
        if self.runtime == "torch":
            if self.precision == "int8":
                raise ConfigError("8 bit needs the OpenVINO runtime; give --runtime openvino too, or another precision")
            return
        if self.precision not in (None, AUTO, "fp32", "int8"):
            raise ConfigError(f"the OpenVINO runtime has no precision {self.precision!r}; choose fp32 or int8")
        if self.skips or self.tiling != "frame":
            raise ConfigError(
                "the OpenVINO runtime runs every block on whole frames; leave budget, threshold, target frame rate and patches "
                "out, or use the torch runtime"
            )

    @property
    def torch_device(self) -> str | torch.device:
        """Where torch has its part of the work."""
        return self.device if self.runtime == "torch" else "cpu"

    @property
    def skips(self) -> bool:
        """Whether a router is asked; otherwise every block runs."""
        return bool(self.threshold) or self.target_fps is not None or self.budget not in (None, 1)


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is cut.

    Args:
        window: frames per window; None: by `default_window`, from the size of the frames.
        lookahead: frames beyond a window's end from which the backward recurrence starts.
        scene_detection: find scene cuts, and let no state cross them.
        repeat_detection: do not compute a frame with exactly the pixels of the one before (animation on twos, screen
            recordings): it gets the same result.

    Raises:
        ConfigError: window under 1 or lookahead under 0.
    """

    window: int | None = None
    lookahead: int = DEFAULT_LOOKAHEAD
    scene_detection: bool = True
    repeat_detection: bool = True

    def __post_init__(self) -> None:
        Windows(1 if self.window is None else self.window, self.lookahead)

    def windows(self, config: AnyConfig, height: int, width: int) -> Windows:
        """The windows for a network and frames of this size."""
        window = default_window(config, height, width) if self.window is None else self.window
        return Windows(window, self.lookahead)


class ComputeShorthands(TypedDict, total=False):
    """The fields of `ComputeOptions` as keywords of a function."""

    preset: Preset | None
    budget: float | None
    threshold: float | None
    target_fps: float | None
    rest: bool
    tile_size: int | None
    tiling: Tiling
    patch_batch_size: int
    device: str | torch.device
    precision: Precision | None
    runtime: Runtime


class StreamShorthands(ComputeShorthands, total=False):
    """Those of `ComputeOptions` and of `StreamOptions`."""

    window: int | None
    lookahead: int
    scene_detection: bool
    repeat_detection: bool


Options = TypeVar("Options")


def with_shorthands(options: Options, keywords: Mapping[str, Any]) -> Options:
    """The options, a frozen dataclass, with those of the keywords that are fields of it."""
    names = {field.name for field in fields(options)}  # pyright: ignore[reportArgumentType] - a dataclass
    chosen = {name: value for name, value in keywords.items() if name in names}
    return replace(options, **chosen) if chosen else options  # pyright: ignore[reportType,reportArgumentType,reportCallIssue]


def check_keywords(function: str, keywords: Mapping[str, Any], *options: object) -> None:
    """Raise TypeError where a keyword is a field of none of the options, as Python does for an unknown argument."""
    names = [field.name for option in options for field in fields(option)]  # pyright: ignore[reportArgumentType]
    unknown = next((name for name in keywords if name not in names), None)
    if unknown is not None:
        raise TypeError(f"{function}() has no argument {unknown!r}; options are {', '.join(sorted(names))}")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"the {name} is {value!r}; choose one of {', '.join(allowed)}")
