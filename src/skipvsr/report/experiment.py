"""The networks and numbers of a reproduction: trained, calibrated and measured when they are first needed."""

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

# The ratios of active blocks that give the paper's six costs (100, 96, 88, 78, 63, 43 %); the rest of the cost, about a quarter
# (trunk inputs and reconstruction), is never skipped.
BUDGETS = (1.0, 0.947, 0.84, 0.707, 0.507, 0.24)

# The only ratio at which ablations are compared.
HALF = BUDGETS[4]
# Number of clips that calibration runs on, and of frames of each.
_CALIBRATION_CLIPS = 6
# Number of clips that are timed, and of frames of each if the preset tests whole clips.
_TIMED_CLIPS = 8


@dataclass
class Experiment:
    """A reproduction in a folder, where everything that was trained or measured is kept and used again.

    Args:
        preset: sizes of networks and trainings, and the test sets.
        data: folder of the data.
        out: folder for runs, results, tables and figures.
        checkpoints: trained model folders by variant, used instead of training them; variants for another degradation than
            BI have it in their name ("backbone-bd").
        say: called with a line of text before each step.

    Raises:
        ConfigError: a checkpoint for a variant that the preset does not have.
    """

    preset: Preset
    data: Path
    out: Path
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    say: Callable[[str], object] = print
    _models: dict[tuple[str, str], SkipVSR] = field(default_factory=dict, init=False)
    _evaluations: dict[tuple[str, str], Evaluation] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_variants(self.preset, list(self.checkpoints))
        self.out.mkdir(parents=True, exist_ok=True)

    def model(self, variant: str, degradation: str = "bi") -> SkipVSR:
        """The network of a variant, trained and calibrated."""
        key = (variant, degradation)
        if key not in self._models:
            folder = self._trained(variant, degradation)
            model = load_model(folder)
            if model.router is not None and model.calibration is None:
                self.say(f"calibrating {variant}")
                smoke = self.preset.name == "smoke"
                clips = [self.clip(frames=6)[0]] if smoke else self._calibration_clips(degradation)
                model.calibration = calibrate(model, clips, PATCH_PX, budgets=_budgets(variant))
                if folder not in self.checkpoints.values():
                    store_calibration(folder, model.calibration)
            self._models[key] = model
        return self._models[key]

    def row(self, variant: str, setting: Setting, test: TestSet, *, with_ssim: bool = True) -> Row:
        """The scores of a variant (or "bicubic") at a setting on a test set. SSIM takes longer than the network itself."""
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
        """Seconds per frame of each variant at its setting on a test set, measured in turn so that they can be compared."""
        self.say(f"timing {len(runs)} settings side by side on {test.name}")
        frames = self.preset.test_frames or _TIMED_CLIPS
        lrs = [lr_gt_clip(clip, test.degradation, frames)[0] for clip in self._clips(test)[:_TIMED_CLIPS]]  # pyright: ignore[reportArgumentType]
        models = [(self.model(variant, test.degradation), setting) for variant, setting in runs]
        return seconds_side_by_side(models, lrs, 1 if self.preset.name == "smoke" else ROUNDS)

    def clip(self, frames: int = 16) -> tuple[Tensor, Tensor]:
        """The clip that figures show, from the first test set: LR and ground truth."""
        test = self.preset.tests[0]
        clips = self._clips(test)
        return lr_gt_clip(clips[self.preset.shown % len(clips)], test.degradation, frames)  # pyright: ignore[reportArgumentType]

    def _clips(self, test: TestSet) -> list[Clip]:
        return find_clips(test.kind, self.data / test.folder)

    def _calibration_clips(self, degradation: str) -> list[Tensor]:
        """LR frames of a few training clips, evenly spread over the set."""
        kind, folder = self.preset.train or (self.preset.tests[0].kind, self.preset.tests[0].folder)
        clips = find_clips(kind, self.data / folder)
        chosen = clips[:: max(1, len(clips) // _CALIBRATION_CLIPS)][:_CALIBRATION_CLIPS]
        return [lr_gt_clip(clip, degradation, _CALIBRATION_CLIPS)[0] for clip in chosen]  # pyright: ignore[reportArgumentType]

    def _trained(self, variant: str, degradation: str) -> Path:
        name = variant if degradation == "bi" else f"{variant}-{degradation}"
        if name in self.checkpoints:
            return self.checkpoints[name]
        backbone = self.out if variant == "backbone" else self._trained("backbone", degradation)
        run = self.out / "runs" / name
        config = self.preset.config(variant, self.data, backbone, degradation)
        self.say(f"training {name}")
        return train(config, run, resume=True)[-1].best


def _budgets(variant: str) -> list[float]:
    """The budgets that a variant is calibrated for."""
    return sorted(set(BUDGETS) - {1.0}) if variant in ("paper", "ours") else [HALF]
