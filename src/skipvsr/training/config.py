"""What a training run is: TOML, checked when it is read."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skipvsr.data.degradations import Degradation
from skipvsr.errors import ConfigError
from skipvsr.models.vsr import Flow, Reconstruction, Scale, VSRConfig
from skipvsr.training.paths import resolve_paths

_STRICT = ConfigDict(extra="forbid", strict=True)
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Natural: TypeAlias = Annotated[int, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Rate: TypeAlias = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=_STRICT)
class Source:
    """A set of clips: `dataset` is a name that `skipvsr.data.datasets.find_clips` knows, `root` its folder."""

    dataset: str
    root: str


@dataclass(frozen=True, config=_STRICT)
class Network:
    """The network's shape, as in VSRConfig."""

    channels: Positive
    blocks: Positive
    flow: Flow
    reconstruction: Reconstruction
    scale: Scale = 4

    def to_vsr(self) -> VSRConfig:
        """As the network's own configuration."""
        return VSRConfig(self.channels, self.blocks, self.flow, self.reconstruction, scale=self.scale)


@dataclass(frozen=True, config=_STRICT)
class Data:
    """What is trained on.

    Args:
        train: sets of clips, drawn from in proportion to their number of clips.
        stills: folder of photographs for synthetic camera motion; none where empty.
        stills_ratio: ratio of crops made from the stills.
        degradation: "bi", "bd", "bd-duf" or "video".
        cache_bytes: decoded frames kept in memory at most.
        pool: folder of the degraded clips for "video"; in the folder for temporary files where empty.
        pool_versions: of every clip, kept at a time.
        pool_renew_steps: steps after which every clip has one new version.
        pool_bytes: on disk at most.
    """

    train: list[Source]
    degradation: Literal["bi", "bd", "bd-duf", "video"]
    stills: str = ""
    stills_ratio: Share = 0.0
    cache_bytes: Positive = 2 << 30
    pool: str = ""
    pool_versions: Positive = 4
    pool_renew_steps: Positive = 500
    pool_bytes: Positive = 8 << 30


@dataclass(frozen=True, config=_STRICT)
class Validation:
    """What is validated on, always with the weights that are saved.

    Args:
        clips: sets of clips.
        frames: the first so many frames of each clip; 0: all.
        every: steps.
        degradations: of the validation clips, averaged equally; that of the training data where empty.
    """

    clips: list[Source]
    frames: Natural = 0
    every: Positive = 500
    degradations: list[Degradation] = field(default_factory=list)


@dataclass(frozen=True, config=_STRICT)
class Optimisation:
    """Adam with a cosine schedule, as all stages use it.

    Args:
        steps: optimiser steps.
        batch: clips a step, over all processes and accumulation steps.
        crop: low-resolution pixels a side.
        learning_rate, final_learning_rate: learning rate at the start and at the end of the cosine.
        warmup: steps of linear rise to `learning_rate`.
        betas: Adam's.
        clip_norm: largest norm of the gradient; 0: no clipping.
        ema: decay of the averaged weights, which are then those validated and saved; 0: no averaging.
        accumulation: forward passes a step on each process.
        log_every, checkpoint_every: steps.
    """

    steps: Positive
    batch: Positive
    crop: Annotated[int, Field(ge=16)]
    learning_rate: Rate
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-7
    warmup: Natural = 0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    accumulation: Positive = 1
    log_every: Positive = 50
    checkpoint_every: Positive = 250


@dataclass(frozen=True, config=_STRICT)
class FlowStage:
    """Optical flow from nothing: photometric on real pairs, supervised on synthetic motion.

    Args:
        init: a SPyNet checkpoint to start from (BasicSR or mmagic layout); none where empty.
        smooth: weight of the smoothness term.
        census: weight of the census term.
        supervised: weight of the end-point error on synthetic pairs.
        synthetic_ratio: ratio of pairs that are synthetic.
    """

    kind: Literal["flow"]
    optimisation: Optimisation
    init: str = ""
    smooth: Annotated[float, Field(ge=0)] = 0.02
    census: Annotated[float, Field(ge=0)] = 0.1
    supervised: Annotated[float, Field(ge=0)] = 0.02
    synthetic_ratio: Share = 0.5


@dataclass(frozen=True, config=_STRICT)
class BackboneStage:
    """BasicVSR with the Charbonnier loss.

    Args:
        frames: frames of a training clip.
        mirror: append the frames in reverse, T -> 2T: BasicVSR's recipe for the 7 frames of Vimeo-90K.
        init: a model to start from (what `load_model` takes); where empty, what the stage before left. Of one with more
            blocks than the network, the first are taken.
        flow_learning_rate_scale: the flow network's learning rate as a ratio of the rest's; 0 freezes it.
        flow_frozen_steps: steps before the flow network starts to learn.
    """

    kind: Literal["backbone"]
    optimisation: Optimisation
    frames: Annotated[int, Field(ge=2)]
    mirror: bool = False
    init: str = ""
    flow_learning_rate_scale: Share = 1.0
    flow_frozen_steps: Natural = 0


@dataclass(frozen=True, config=_STRICT)
class PaperMethod:
    """How the paper's router is taught (section 3), and its alternatives.

    Args:
        literal: the score is equation 7 as printed, near 1 where the feature has reached its target; otherwise what is
            still to gain, 1 minus that (docs/paper.md).
        warped: compare with the previous frame's feature after warping it by the flow; otherwise as it lies.
        supervision: of the score (Table 5): "feature-interval" (equation 7), "feature" (16), "psnr-interval" (15),
            "psnr" (14).
        every: blocks between target layers (Table 6).
        mapping: of features to a plane (equation 10).
        mask_weight, error_weight: lambda 1 and 2 of equation 13.
        full_ratio: ratio of clips at threshold 0; the others draw it evenly up to `max_threshold`.
    """

    literal: bool = False
    warped: bool = False
    supervision: Literal["feature-interval", "feature", "psnr-interval", "psnr"] = "feature-interval"
    every: Positive = 6
    mapping: Literal["sum", "square-sum", "square-max"] = "square-sum"
    mask_weight: Annotated[float, Field(ge=0)] = 0.1
    error_weight: Annotated[float, Field(ge=0)] = 0.1
    full_ratio: Share = 0.4
    max_threshold: Share = 0.95


@dataclass(frozen=True, config=_STRICT)
class SkipStage:
    """The dynamic network: full and at random budgets, with its router.

    Args:
        frames, mirror, init, flow_learning_rate_scale, flow_frozen_steps: as for the backbone stage.
        router: "gain" (ours), or "paper".
        tile_px: tiles of the crops; they divide the crop.
        min_budget: budgets are drawn evenly from here to 1.
        small: weight of the small network's losses beside the full one's.
        distillation: weight, within them, of the Charbonnier distance to the full network's picture.
        router_weight: weight of the router's loss.
        paper: for the router "paper", which has losses of its own in the place of the four above.
    """

    kind: Literal["skip"]
    optimisation: Optimisation
    frames: Annotated[int, Field(ge=2)]
    mirror: bool = False
    init: str = ""
    flow_learning_rate_scale: Share = 0.0
    flow_frozen_steps: Natural = 0
    router: Literal["gain", "paper"] = "gain"
    tile_px: Positive = 12
    min_budget: Annotated[float, Field(gt=0, le=1)] = 0.1
    small: Annotated[float, Field(ge=0)] = 1.0
    distillation: Annotated[float, Field(ge=0)] = 0.5
    router_weight: Annotated[float, Field(ge=0)] = 0.001
    paper: PaperMethod = field(default_factory=PaperMethod)


@dataclass(frozen=True, config=_STRICT)
class RouterStage:
    """Our router alone, on the finished network: it learns the gains that the oracle measures against the ground truth.

    Args:
        frames, mirror, init: as for the backbone stage.
        tile_px, min_budget: as for the skip stage.
    """

    kind: Literal["router"]
    optimisation: Optimisation
    frames: Annotated[int, Field(ge=2)]
    mirror: bool = False
    init: str = ""
    tile_px: Positive = 12
    min_budget: Annotated[float, Field(gt=0, le=1)] = 0.1
    # The network stays as it is.
    flow_learning_rate_scale: ClassVar[float] = 0.0
    flow_frozen_steps: ClassVar[int] = 0


Stage: TypeAlias = Annotated[FlowStage | BackboneStage | SkipStage | RouterStage, Field(discriminator="kind")]


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """A whole run: its stages follow one another, each starting from the best model of the one before.

    Args:
        name: of the run; its folder is runs/NAME unless told otherwise.
        seed: of the weights, and of every draw of data.
        precision: "fp32", or "bf16" (autocast; for GPUs).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    network: Network
    data: Data
    validation: Validation
    stages: Annotated[list[Stage], Field(min_length=1)] = field(default_factory=list)
    seed: Natural = 0
    precision: Literal["fp32", "bf16"] = "fp32"


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read and check a TOML file. Relative paths in it start from its folder, those in overrides from the working directory.

    Args:
        path: the file.
        overrides: "key=value" each; the key's parts are joined by dots, stages are counted from 0
            ("stages.0.optimisation.steps=100"); the value is TOML, or plain text where it is not.

    Raises:
        ConfigError: the file is missing or no TOML, or a key is unknown, missing or impossible; the message names it.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; give a TOML file such as configs/smoke.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    resolve_paths(values, path.parent)
    for override in overrides:
        _override(values, override)
    try:
        # Through JSON, because only there do strict types take a table for a dataclass.
        return TypeAdapter(TrainingConfig).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        # The discriminator's value stands in the location of a stage's key ("stages.0.flow.crop"): no key of the file.
        parts = [
            part
            for part in first["loc"]
            if part not in ("flow", "backbone", "skip", "router") or part == first["loc"][-1]
        ]
        key = ".".join(str(part) for part in parts)
        reason = "no such key" if first["type"] == "unexpected_keyword_argument" else first["msg"]
        raise ConfigError(f"{path}: {key}: {reason}") from error


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override!r} has no '='; give key=value, as in stages.0.optimisation.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    at: Any = values
    try:
        for part in parents:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        at[int(last) if isinstance(at, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(f"--set {key}: no such key") from error
