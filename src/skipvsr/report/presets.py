"""At what size the paper is reproduced, and which networks that takes."""

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
    """Clips that are tested on: a kind that `find_clips` knows, its folder below the data's, and the degradation."""

    name: str
    kind: str
    folder: str
    degradation: str


@dataclass(frozen=True)
class Preset:
    """A size.

    Args:
        name: "paper", "mini" or "smoke".
        network: its shape.
        train: kind and folder of the training clips, below the data's folder; None: the first test set's.
        stills: folder of photographs; none where empty.
        tests: what is tested on; tables have a column each, figures take the first.
        flow: steps of the flow stage.
        backbone, skip: steps; every variant of the skip stage and every static network has as many.
        batch, crop, frames: of the training clips.
        intervals: blocks between target layers, as in Table 6; the last is the method's.
        static: blocks of the static networks.
        test_frames: the first so many of each clip; 0: all.
        shown: which clip of the first test set figures show.
        learning_rate: learning rate of the backbone.
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
        """Networks that tables and figures are made of."""
        return [
            "backbone", "paper", "paper-alone", "paper-psnr", "paper-psnr-interval", "paper-feature",
            *(f"paper-every-{every}" for every in self.intervals[:-1]), "ours",
            *(f"static-{blocks}" for blocks in self.static),
        ]  # fmt: skip

    def config(self, variant: str, data: Path, backbone: Path, degradation: str) -> TrainingConfig:
        """The training of a variant.

        Args:
            variant: of `variants`.
            data: the data's folder.
            backbone: the trained backbone's model folder, where all but itself start from.
            degradation: that is trained for.
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
    # The paper's own protocol; iterations as BasicVSR's, which it does not state.
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
    # Every part once, in a minute; its numbers mean nothing.
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


def check_variants(preset: Preset, given: Sequence[str]) -> None:
    """Raise ConfigError where a name is no variant of the preset."""
    degradations = {test.degradation for test in preset.tests} - {"bi"}
    known = {*preset.variants, *(f"{variant}-{kind}" for variant in preset.variants for kind in degradations)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"there is no network {unknown[0]!r}; choose of {', '.join(preset.variants)}")
