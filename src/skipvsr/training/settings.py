"""The configuration that all stages share: network, data, validation, optimisation."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from skipvsr.data.augment import USUAL, Augmentation
from skipvsr.data.degradations import Degradation
from skipvsr.models.config import Reconstruction, Scale, VSRConfig
from skipvsr.models.flow import Flow

STRICT = ConfigDict(extra="forbid", strict=True)
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Natural: TypeAlias = Annotated[int, Field(ge=0)]
Ratio: TypeAlias = Annotated[float, Field(ge=0, le=1)]
LearningRate: TypeAlias = Annotated[float, Field(gt=0)]
Weight: TypeAlias = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class Source:
    """A set of clips: `dataset` is a name that `skipvsr.data.datasets.find_clips` knows, `root` its folder."""

    dataset: str
    root: str


@dataclass(frozen=True, config=STRICT)
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


@dataclass(frozen=True, config=STRICT)
class Data:
    """What is trained on.

    Args:
        train: sets of clips, drawn from in proportion to their number of clips.
        stills: folder of photographs for synthetic camera motion; none where empty.
        stills_ratio: ratio of crops made from the stills.
        degradation: "bi", "bd", "bd-duf" or "video".
        augment: what changes the crops of clips at random: any of "flip", "transpose", "reverse" (time), "channels" (their
            order) and "brightness"; `skipvsr.data.augment` says how, and which degradations do without which.
        cache_bytes: decoded frames kept in memory at most.
        cache_on_gpu: keep them in the memory of the GPU, if there is one, and cut crops there: for sets that fit, it takes the
            work of drawing a batch off the processor.
        threads: that decode, cut and degrade beside the network, on each process; more where a GPU waits for data.
        pool: folder of the degraded clips for "video"; in the folder for temporary files where empty.
        pool_versions: of every clip, kept at a time.
        pool_renew_steps: steps after which every clip has one new version.
        pool_bytes: on disk at most.
    """

    train: list[Source]
    degradation: Literal["bi", "bd", "bd-duf", "video"]
    stills: str = ""
    stills_ratio: Ratio = 0.0
    augment: list[Augmentation] = field(default_factory=lambda: list(USUAL))
    cache_bytes: Positive = 2 << 30
    cache_on_gpu: bool = False
    threads: Positive = 1
    pool: str = ""
    pool_versions: Positive = 4
    pool_renew_steps: Positive = 500
    pool_bytes: Positive = 8 << 30


@dataclass(frozen=True, config=STRICT)
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


@dataclass(frozen=True, config=STRICT)
class Optimisation:
    """Adam with a cosine schedule, as all stages use it.

    Args:
        steps: optimiser steps.
        minutes: end sooner, after so many minutes of steps and validations; the learning rate falls with whichever of steps and
            minutes is further on. For a machine that is lent for a time, in one process; 0: steps alone count. How far it
            came then depends on the machine: it is not the same run twice.
        batch: clips a step, over all processes and accumulation steps.
        crop: low-resolution pixels a side.
        learning_rate, final_learning_rate: learning rate at the start and at the end of the cosine.
        warmup: steps of linear rise to `learning_rate`.
        betas: Adam's.
        clip_norm: largest norm of the gradient; 0: no clipping.
        ema: decay of the averaged weights, which are then those validated and saved; 0: no averaging.
        accumulation: forward passes a step on each process.
        activation_checkpointing: compute activations again for the gradient instead of keeping them: less memory, a third more
            time, the same numbers.
        log_every, checkpoint_every: steps.
    """

    steps: Positive
    batch: Positive
    crop: Annotated[int, Field(ge=16)]
    learning_rate: LearningRate
    final_learning_rate: Weight = 1e-7
    minutes: Annotated[float, Field(ge=0)] = 0.0
    warmup: Natural = 0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: Weight = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    accumulation: Positive = 1
    activation_checkpointing: bool = False
    log_every: Positive = 50
    checkpoint_every: Positive = 250

    def ended(self, step: int, seconds: float) -> bool:
        """Whether so many steps, which took so long, are all."""
        return step >= self.steps or self.time_ratio(seconds) >= 1

    def time_ratio(self, seconds: float) -> float:
        """Ratio of `minutes` that is over; 0 where they do not count."""
        return seconds / (60 * self.minutes) if self.minutes else 0.0
