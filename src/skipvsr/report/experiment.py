"""The networks and numbers of a reproduction: trained and measured when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.data.clips import Clip
from skipvsr.data.datasets import find_clips
from skipvsr.data.degradations import Degradation
from skipvsr.data.pairs import Pairs, lr_gt_clip
from skipvsr.errors import ConfigError
from skipvsr.evaluation.measures import Measures
from skipvsr.evaluation.results import Evaluation, ProcessGroup
from skipvsr.evaluation.scores import Row
from skipvsr.evaluation.settings import Setting
from skipvsr.evaluation.side_by_side import ROUNDS, seconds_side_by_side
from skipvsr.inference.options import ComputeOptions, Tiling
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.vsr import SkipVSR
from skipvsr.report.presets import Preset, TestSet
from skipvsr.report.thresholds import find_threshold, one_window, sorted_scores
from skipvsr.report.variants import check_names, checkpoint_name, seeds_of, training_of
from skipvsr.training.config import TrainingConfig
from skipvsr.training.loop import train
from skipvsr.training.state import read_finished

# The ratios of active blocks that give the paper's six costs (100, 96, 88, 78, 63, 43 %); the rest of the cost, about a quarter
# (trunk inputs and reconstruction), is never skipped.
BUDGETS = (1.0, 0.947, 0.84, 0.707, 0.507, 0.24)
HALF = BUDGETS[4]

_TIMED_CLIPS, _TIMED_FRAMES = 8, 8
# Frames of each clip on whose scores the first guess of a threshold rests.
_SCORED_FRAMES = 6


@dataclass
class Experiment:
    """A reproduction in a folder, where everything that was trained or measured is kept and used again.

    Args:
        preset: sizes of networks and trainings, and the test sets.
        data: folder of the data.
        out: folder for runs, results, tables and figures.
        checkpoints: trained models by name (`variants.checkpoint_name`), used instead of training them.
        say: called with a line of text before each step.
        group: the processes that share clips and batches; the first one writes.
        trained_only: train nothing; variants and seeds that are not trained to their end are left out of tables and curves
            that can do without them.

    Raises:
        ConfigError: a checkpoint for a network that the preset does not have.
    """

    preset: Preset
    data: Path
    out: Path
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    say: Callable[[str], object] = print
    group: ProcessGroup = field(default_factory=ProcessGroup)
    trained_only: bool = False
    _models: dict[tuple[str, str, int], SkipVSR] = field(default_factory=dict, init=False)
    _evaluations: dict[str, Evaluation] = field(default_factory=dict, init=False)
    _scores: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_names(self.preset, list(self.checkpoints))
        self.out.mkdir(parents=True, exist_ok=True)

    def seeds(self, variant: str, test: TestSet) -> tuple[int, ...]:
        """The seeds with which a variant is trained for a column; one for a network that was given."""
        given = checkpoint_name(self.preset, variant, test.recipe) in self.checkpoints
        seeds = self.preset.seeds[:1] if given else seeds_of(self.preset, variant)
        return tuple(seed for seed in seeds if self._usable(variant, test.recipe, seed)) if self.trained_only else seeds

    def has(self, variant: str) -> bool:
        """Whether there is a network of a variant for the first column, or it may be trained."""
        there = bool(self.seeds(variant, self.preset.tests[0]))
        if not there:
            self.tell(f"{variant} is not trained: left out")
        return there

    def model(self, variant: str, test: TestSet | None = None, seed: int | None = None) -> SkipVSR:
        """The network of a variant for a column (the first), trained."""
        recipe = (test or self.preset.tests[0]).recipe
        key = (variant, recipe, self.preset.seeds[0] if seed is None else seed)
        if key not in self._models:
            self._models[key] = load_model(self._trained(*key))
        return self._models[key]

    def rows(self, variant: str, setting: Setting, test: TestSet, *, with_ssim: bool = True) -> list[Row]:
        """The scores of a variant (or "bicubic") at a setting on a test set, one for each seed."""
        seeds = (0,) if variant == "bicubic" else self.seeds(variant, test)
        return [self._row(variant, seed, setting, test, with_ssim) for seed in seeds]

    def row(self, variant: str, setting: Setting, test: TestSet) -> Row:
        """As `rows`, of the first seed alone, and without SSIM."""
        return self._row(variant, self.seeds(variant, test)[0], setting, test, False)

    def row_near(self, variant: str, ratio: float, test: TestSet, tiling: Tiling = "patch") -> Row:
        """The scores of the first seed where about a ratio of the blocks runs: the quantile of the scores, as it comes."""
        seed = self.seeds(variant, test)[0]
        scores = self._router_scores(variant, seed, test, tiling)
        setting = Setting("threshold", float(scores[int(ratio * len(scores))]), tiling)
        return self._row(variant, seed, setting, test, False)

    def rows_at(
        self, variant: str, ratio: float, test: TestSet, tiling: Tiling = "patch", *, with_ssim: bool = True
    ) -> list[Row]:
        """The scores of a variant where its router runs a ratio of the blocks, one for each seed; see `thresholds`."""
        seeds = self.seeds(variant, test)
        return [self._row_at(variant, seed, ratio, test, tiling, with_ssim) for seed in seeds]

    def row_at(self, variant: str, ratio: float, test: TestSet, tiling: Tiling = "patch") -> Row:
        """As `rows_at`, of the first seed alone, and without SSIM."""
        return self._row_at(variant, self.seeds(variant, test)[0], ratio, test, tiling, False)

    def threshold_at(self, variant: str, ratio: float, tiling: Tiling = "frame") -> float:
        """The threshold of the first seed at a ratio, on the first test set."""
        if ratio == 1:
            return 0.0
        return self.row_at(variant, ratio, self.preset.tests[0], tiling).value

    def seconds(self, runs: Sequence[tuple[str, Setting]], test: TestSet, clips: int = _TIMED_CLIPS) -> list[float]:
        """Seconds per frame of each variant at its setting on a test set's first clips, in turn, so that they compare."""
        self.tell(f"timing {len(runs)} settings side by side on {test.name}")
        degradation = self._degradation(test)
        lrs = [lr_gt_clip(clip, degradation, _TIMED_FRAMES)[0] for clip in self._clips(test)[:clips]]
        models = [(self.model(variant, test), setting) for variant, setting in runs]
        rounds = 1 if self.preset.name == "smoke" else ROUNDS
        # One process measures, while the others wait: their work would be in the times.
        return self.group.gather(seconds_side_by_side(models, lrs, rounds) if self.group.index == 0 else [])

    def clip(self, frames: int = 16) -> tuple[Tensor, Tensor]:
        """The clip that figures show, from the first test set: LR and ground truth."""
        test = self.preset.tests[0]
        clips = self._clips(test)
        return lr_gt_clip(clips[self.preset.shown % len(clips)], self._degradation(test), frames)

    def tile_size(self, variant: str) -> int:
        """The side of the tiles on whole frames: that with which the variant's router was trained."""
        return self.preset.tile_px // 2 if variant == "ours" else self.preset.tile_px

    def tell(self, text: str) -> None:
        """Say something, once."""
        if self.group.index == 0:
            self.say(text)

    def _row_at(self, variant: str, seed: int, ratio: float, test: TestSet, tiling: Tiling, with_ssim: bool) -> Row:
        if ratio == 1:
            return self._row(variant, seed, Setting("full", 1.0, tiling), test, with_ssim)

        def run(threshold: float) -> Row:
            return self._row(variant, seed, Setting("threshold", threshold, tiling), test, False)

        scores = self._router_scores(variant, seed, test, tiling)
        threshold, row = find_threshold(scores, ratio, run, lambda row: row.active_ratio)
        return self._row(variant, seed, Setting("threshold", threshold, tiling), test, True) if with_ssim else row

    def _row(self, variant: str, seed: int, setting: Setting, test: TestSet, with_ssim: bool) -> Row:
        evaluation = self._evaluation(variant, seed, test, True)
        if not with_ssim and not evaluation.knows(setting):
            evaluation = self._evaluation(variant, seed, test, False)
        self.tell(f"measuring {variant}, seed {seed}, {setting.label}, on {test.name}")
        return evaluation.row(setting)

    def _evaluation(self, variant: str, seed: int, test: TestSet, with_ssim: bool) -> Evaluation:
        name = f"{variant}-{seed}-{test.name}{'' if with_ssim else ' PSNR'}".replace(" ", "-")
        if name not in self._evaluations:
            folder = self.out / "results"
            folder.mkdir(exist_ok=True)
            measures = Measures(
                middle_only=test.kind == "vimeo-test", frames=self.preset.test_frames, with_ssim=with_ssim,
                tile_size=self.tile_size(variant),
            )  # fmt: skip
            model = Bicubic() if variant == "bicubic" else self.model(variant, test, seed)
            self._evaluations[name] = Evaluation(
                variant, model, test.name, self._clips(test), Pairs(self._degradation(test)), measures=measures,
                path=folder / f"{name}.json", command=f"skipvsr reproduce --preset {self.preset.name}", group=self.group,
            )  # fmt: skip
        return self._evaluations[name]

    def _router_scores(self, variant: str, seed: int, test: TestSet, tiling: Tiling) -> Tensor:
        key = f"{variant} {seed} {test.name} {tiling}"
        if key not in self._scores:
            degradation, model = self._degradation(test), self.model(variant, test, seed)
            lrs = [lr_gt_clip(clip, degradation, _SCORED_FRAMES)[0] for clip in self._clips(test)[:_TIMED_CLIPS]]
            compute = ComputeOptions(tile_size=self.tile_size(variant), tiling=tiling)
            make = partial(_upscaler, model, compute)
            self._scores[key] = sorted_scores(model, lrs, make)
        return self._scores[key]

    def _clips(self, test: TestSet) -> list[Clip]:
        return find_clips(test.kind, self.data / test.folder)

    def _degradation(self, test: TestSet) -> Degradation:
        return self.preset.recipe(test.recipe).degradation  # pyright: ignore[reportReturnType] - training checks it

    def _trained(self, variant: str, recipe: str, seed: int) -> Path:
        name = checkpoint_name(self.preset, variant, recipe)
        if name in self.checkpoints:
            return self.checkpoints[name]
        if self.trained_only and not self._usable(variant, recipe, seed):
            raise ConfigError(f"{name} is not trained to its end in {self.out}; leave --trained-only out to train it")
        run, config = self._training(variant, recipe, seed)
        self.tell(f"training {run.name}")
        return train(config, run, resume=True)[-1].best

    def _usable(self, variant: str, recipe: str, seed: int) -> bool:
        if checkpoint_name(self.preset, variant, recipe) in self.checkpoints:
            return True
        run, config = self._training(variant, recipe, seed)
        return read_finished(run / f"{len(config.stages) - 1}-{config.stages[-1].kind}") is not None

    def _training(self, variant: str, recipe: str, seed: int) -> tuple[Path, TrainingConfig]:
        """The folder of a run, and its configuration."""
        first, name = self.preset.seeds[0], checkpoint_name(self.preset, variant, recipe)
        backbone = self.out if variant == "backbone" else self._trained("backbone", recipe, first)
        run = self.out / "runs" / (name if seed == first else f"{name}-seed-{seed}")
        return run, training_of(self.preset, variant, self.preset.recipe(recipe), self.data, backbone, seed)


def _upscaler(model: SkipVSR, compute: ComputeOptions, policy: Callable) -> Upscaler:
    return Upscaler(model, compute, one_window(_SCORED_FRAMES), policy=policy)
