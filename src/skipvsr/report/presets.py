"""The sizes at which the paper is reproduced, and the networks that each needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skipvsr.errors import ConfigError
from skipvsr.training.config import (
    BackboneStage,
    Data,
    FlowStage,
    Network,
    Optimisation,
    PaperMethod,
    SkipStage,
    Source,
    Stage,
    TrainingConfig,
    Validation,
)


@dataclass(frozen=True)
class TestSet:
    """A test set: its name in tables, the kind (of `find_clips`), its folder below the data folder, and the degradation."""

    name: str
    kind: str
    folder: str
    degradation: str


@dataclass(frozen=True)
class Preset:
    """The size of a reproduction.

    Args:
        name: "paper", "mini" or "smoke".
        network: shape of the network.
        train: kind and folder (below the data folder) of the training clips; None: those of the first test set.
        stills: folder of photographs for training, below the data folder; empty: none.
        tests: the test sets; tables have a column for each, figures show the first.
        flow: steps of the flow stage.
        backbone: steps of the backbone stage.
        skip: steps of the skip stage of each variant, and of each static network.
        batch: clips in a batch.
        crop: LR pixels a side of training crops.
        frames: frames of a training clip.
        intervals: blocks between target layers, for Table 6; the last one is the method's own.
        static: numbers of blocks of the static networks.
        test_frames: number of frames tested of each clip, from the first; 0: all.
        shown: index of the clip of the first test set that figures show.
        learning_rate: of the backbone stage; the skip stage and static networks have half of it.
    """

    name: str
    network: Network
    train: tuple[str, str] | None
    stills: str
    tests: tuple[TestSet, ...]
    flow: int
    backbone: int
    skip: int
    batch: int
    crop: int
    frames: int
    intervals: tuple[int, int, int]
    static: tuple[int, ...]
    test_frames: int = 0
    shown: int = 0
    learning_rate: float = 8e-4

    @property
    def variants(self) -> list[str]:
        """Names of the networks that tables and figures need."""
        return [
            "backbone", "paper", "paper-alone", "paper-psnr", "paper-psnr-interval", "paper-feature",
            *(f"paper-every-{every}" for every in self.intervals[:-1]), "ours",
            *(f"static-{blocks}" for blocks in self.static),
        ]  # fmt: skip

    def config(self, variant: str, data: Path, backbone: Path, degradation: str) -> TrainingConfig:
        """The training configuration of a variant.

        Args:
            variant: one of `variants`.
            data: folder of the data.
            backbone: model folder of the trained backbone, from which every other variant starts.
            degradation: how LR frames are made.
        """
        kind, folder = self.train or (self.tests[0].kind, self.tests[0].folder)
        blocks = int(variant.rpartition("-")[2]) if variant.startswith("static-") else self.network.blocks
        return TrainingConfig(
            name=f"{self.name}-{variant}",
            network=replace(self.network, blocks=blocks),
            data=Data(
                train=[Source(kind, str(data / folder))],
                degradation=degradation,  # pyright: ignore[reportArgumentType] - it is checked
                stills=str(data / self.stills) if self.stills else "",
                stills_ratio=0.15 if self.stills else 0.0,
            ),
            validation=Validation(
                [Source(self.tests[0].kind, str(data / self.tests[0].folder))], frames=8, every=10**9
            ),
            stages=self._stages(variant, str(backbone)),
        )

    def _stages(self, variant: str, backbone: str) -> list[Stage]:
        if variant == "backbone":
            flow = FlowStage("flow", self._optimisation(self.flow, 1e-3), synthetic_ratio=0.5 if self.stills else 0.0)
            return [flow, BackboneStage("backbone", self._optimisation(self.backbone, self.learning_rate), self.frames)]
        optimisation = self._optimisation(self.skip, self.learning_rate / 2)
        if variant.startswith("static-"):
            return [BackboneStage("backbone", optimisation, self.frames, init=backbone, flow_learning_rate_scale=0.0)]
        skip = SkipStage("skip", optimisation, self.frames, init=backbone, tile_px=self.crop // 3)
        if variant == "ours":
            return [skip]
        return [replace(skip, router="paper", paper=self._method(variant))]

    def _method(self, variant: str) -> PaperMethod:
        method = PaperMethod(warped=True, every=self.intervals[-1])
        match variant.split("-", 2)[1:]:
            case []:
                return method
            case ["alone"]:
                return replace(method, error_weight=0.0)
            case ["every", every]:
                return replace(method, every=int(every))
            case supervision:
                return replace(method, supervision="-".join(supervision))

    def _optimisation(self, steps: int, learning_rate: float) -> Optimisation:
        return Optimisation(
            steps,
            self.batch,
            self.crop,
            learning_rate,
            warmup=min(50, steps // 10),
            clip_norm=1.0,
            checkpoint_every=100,
        )


_COMPACT = Network(32, 8, "light", "light")

PRESETS = {
    # The paper's protocol. It does not state the number of steps; these are BasicVSR's.
    "paper": Preset(
        "paper", Network(64, 30, "spynet", "basicvsr"), ("reds-train", "REDS"), "",
        (
            TestSet("REDS4 BI", "reds4", "REDS", "bi"), TestSet("Vimeo-90K-T BI", "vimeo-test", "Vimeo-90K", "bi"),
            TestSet("Vid4 BI", "vid4", "Vid4", "bi"), TestSet("UDM10 BD", "udm10", "UDM10", "bd"),
            TestSet("Vimeo-90K-T BD", "vimeo-test", "Vimeo-90K", "bd"), TestSet("Vid4 BD", "vid4", "Vid4", "bd"),
        ),
        flow=100_000, backbone=300_000, skip=100_000, batch=16, crop=48, frames=15, intervals=(15, 10, 6),
        static=(8, 15, 22), learning_rate=2e-4,
    ),
    # The same protocol with the compact network on the project's own clips: hours on two cores.
    "mini": Preset(
        "mini", _COMPACT, ("folder", "train/clips"), "train/stills", (TestSet("val BI", "folder", "val", "bi"),),
        flow=2000, backbone=2500, skip=200, batch=4, crop=48, frames=7, intervals=(8, 4, 2), static=(2, 4, 6),
        test_frames=5, shown=5,
    ),
    # Runs every part once, in about a minute; its numbers mean nothing.
    "smoke": Preset(
        "smoke", Network(8, 4, "light", "light"), None, "", (TestSet("test BI", "folder", ".", "bi"),),
        flow=1, backbone=1, skip=1, batch=1, crop=24, frames=3, intervals=(4, 3, 2), static=(2,), test_frames=3,
    ),
}  # fmt: skip


def find_preset(name: str) -> Preset:
    """A preset by name. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(f"the preset is {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def check_variants(preset: Preset, names: Sequence[str]) -> None:
    """Raise ConfigError if a name is not a variant of the preset."""
    degradations = {test.degradation for test in preset.tests} - {"bi"}
    known = {*preset.variants, *(f"{variant}-{kind}" for variant in preset.variants for kind in degradations)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ConfigError(f"there is no network {unknown[0]!r}; choose from {', '.join(preset.variants)}")
