"""The networks and numbers of a reproduction: trained, calibrated and measured when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import store_calibration
from skipvsr.data.clips import Clip
from skipvsr.data.datasets import find_clips
from skipvsr.data.pairs import Pairs, lr_gt_clip
from skipvsr.evaluation.calibrate import calibrate
from skipvsr.evaluation.evaluate import Measures, Row
from skipvsr.evaluation.results import Evaluation
from skipvsr.evaluation.settings import Setting
from skipvsr.evaluation.side_by_side import ROUNDS, seconds_side_by_side
from skipvsr.inference.patched import PATCH_PX
from skipvsr.models.vsr import SkipVSR
from skipvsr.report.presets import Preset, TestSet, check_variants
from skipvsr.training.loop import train

# The ratios of blocks that give the paper's six costs (100, 96, 88, 78, 63, 43 %): inputs and reconstruction are a quarter.
BUDGETS = (1.0, 0.947, 0.84, 0.707, 0.507, 0.24)

# Of the ablations, only this ratio is looked at.
HALF = BUDGETS[4]
# Clips that calibration sees, and frames of each.
_SEEN = 6
# Clips that are timed, and frames of each where all are tested.
_TIMED = 8


@dataclass
class Experiment:
    """Where a reproduction is made; everything is kept in its folder, and what is there is not made again.

    Args:
        preset: the size.
        data: folder of the data.
        out: folder for runs, results, tables and figures.
        given: trained model folders by variant, in the place of those that would be trained; those for another degradation
            than BI have it in their name ("backbone-bd").
        say: told what is being done.

    Raises:
        ConfigError: a given variant is none of the preset's.
    """

    preset: Preset
    data: Path
    out: Path
    given: Mapping[str, Path] = field(default_factory=dict)
    say: Callable[[str], object] = print
    _models: dict[tuple[str, str], SkipVSR] = field(default_factory=dict, init=False)
    _evaluations: dict[tuple[str, str], Evaluation] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_variants(self.preset, list(self.given))
        self.out.mkdir(parents=True, exist_ok=True)

    def model(self, variant: str, degradation: str = "bi") -> SkipVSR:
        """A variant, trained and calibrated."""
        key = (variant, degradation)
        if key not in self._models:
            folder = self._trained(variant, degradation)
            model = load_model(folder)
            if model.router is not None and model.calibration is None:
                self.say(f"calibrating {variant}")
                seen = [self.clip(frames=6)[0]] if self.preset.name == "smoke" else self._seen(degradation)
                model.calibration = calibrate(model, seen, PATCH_PX, budgets=_budgets(variant))
                if folder not in self.given.values():
                    store_calibration(folder, model.calibration)
            self._models[key] = model
        return self._models[key]

    def row(self, variant: str, setting: Setting, test: TestSet, *, with_ssim: bool = True) -> Row:
        """A variant at a setting on a test set; "bicubic" is a variant too. SSIM takes longer than the network."""
        key = (variant, f"{test.name}{'' if with_ssim else ' PSNR'}")
        if key not in self._evaluations:
            model = None if variant == "bicubic" else self.model(variant, test.degradation)
            folder = self.out / "results"
            folder.mkdir(exist_ok=True)
            self._evaluations[key] = Evaluation(
                variant, model, test.name, self._clips(test), Pairs(test.degradation),  # pyright: ignore[reportArgumentType]
                measures=Measures(
                    middle_only=test.kind == "vimeo-test", frames=self.preset.test_frames, with_ssim=with_ssim
                ),
                path=folder / f"{variant}-{key[1].replace(' ', '-')}.json",
                command=f"skipvsr reproduce --preset {self.preset.name}",
            )  # fmt: skip
        self.say(f"measuring {variant}, {setting.label}, on {test.name}")
        return self._evaluations[key].row(setting)

    def seconds(self, runs: Sequence[tuple[str, Setting]], test: TestSet) -> list[float]:
        """Seconds a frame of variants at settings on a test set, side by side."""
        self.say(f"timing {len(runs)} settings side by side on {test.name}")
        frames = self.preset.test_frames or _TIMED
        lrs = [lr_gt_clip(clip, test.degradation, frames)[0] for clip in self._clips(test)[:_TIMED]]  # pyright: ignore[reportArgumentType]
        models = [(self.model(variant, test.degradation), setting) for variant, setting in runs]
        return seconds_side_by_side(models, lrs, 1 if self.preset.name == "smoke" else ROUNDS)

    def clip(self, frames: int = 16) -> tuple[Tensor, Tensor]:
        """The clip of the first test set that figures show, LR and HR."""
        test = self.preset.tests[0]
        clips = self._clips(test)
        return lr_gt_clip(clips[self.preset.shown % len(clips)], test.degradation, frames)  # pyright: ignore[reportArgumentType]

    def _clips(self, test: TestSet) -> list[Clip]:
        return find_clips(test.kind, self.data / test.folder)

    def _seen(self, degradation: str) -> list[Tensor]:
        """A few of the training clips."""
        kind, folder = self.preset.train or (self.preset.tests[0].kind, self.preset.tests[0].folder)
        clips = find_clips(kind, self.data / folder)
        chosen = clips[:: max(1, len(clips) // _SEEN)][:_SEEN]
        return [lr_gt_clip(clip, degradation, _SEEN)[0] for clip in chosen]  # pyright: ignore[reportArgumentType]

    def _trained(self, variant: str, degradation: str) -> Path:
        name = variant if degradation == "bi" else f"{variant}-{degradation}"
        if name in self.given:
            return self.given[name]
        backbone = self.out if variant == "backbone" else self._trained("backbone", degradation)
        run = self.out / "runs" / name
        config = self.preset.config(variant, self.data, backbone, degradation)
        self.say(f"training {name}")
        return train(config, run, resume=True)[-1].best


def _budgets(variant: str) -> list[float]:
    """What a variant is calibrated for."""
    return sorted(set(BUDGETS) - {1.0}) if variant in ("paper", "ours") else [HALF]
