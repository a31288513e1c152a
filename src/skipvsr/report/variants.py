"""The networks that tables and figures need, and how each is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from skipvsr.errors import ConfigError
from skipvsr.report.presets import Preset, Recipe, Sizes
from skipvsr.training.backbone import BackboneStage
from skipvsr.training.config import AnyStage, TrainingConfig
from skipvsr.training.flow import FlowStage
from skipvsr.training.paper_method import PaperMethod
from skipvsr.training.paper_skip import PaperSkipStage
from skipvsr.training.router import RouterStage
from skipvsr.training.settings import Data, Optimisation, Source, Validation
from skipvsr.training.skip import SkipStage

SPYNET = "spynet.pth"
# Those whose spread over seeds is measured.
MAIN = ("paper", "ours")
# The paper's method with one thing changed.
CHANGES = {
    "paper": {},
    "paper-alone": {"error_weight": 0.0},  # the estimator without alignment: VSR2
    "aligned": {"mask_weight": 0.0, "full_ratio": 1.0},  # alignment without the estimator: VSR1, VSR3
    "paper-psnr": {"supervision": "psnr"},
    "paper-psnr-interval": {"supervision": "psnr-interval"},
    "paper-feature": {"supervision": "feature"},
    "paper-sum": {"mapping": "sum"},
    "paper-square-max": {"mapping": "square-max"},
    "paper-raw": {"warped": False},
    "paper-literal": {"literal": True},
    "paper-cells": {"cell_px": 4},
    "paper-detached": {"joint": False},
    "paper-mask-1": {"mask_weight": 1.0},
    "paper-mask-10": {"mask_weight": 10.0},
}


def variants(preset: Preset) -> list[str]:
    """Names of the networks that a preset trains for each recipe."""
    intervals = [f"paper-every-{every}" for every in preset.intervals[:-1]]
    return ["backbone", *CHANGES, *intervals, "ours", *(f"static-{blocks}" for blocks in preset.static)]


def checkpoint_name(preset: Preset, variant: str, recipe: str) -> str:
    """The name of a network: the variant, with the recipe if that is not the first."""
    return variant if recipe == preset.recipes[0].name else f"{variant}-{recipe}"


def check_names(preset: Preset, names: Sequence[str]) -> None:
    """Raise ConfigError if a name is not that of a network of the preset."""
    known = {checkpoint_name(preset, variant, r.name) for variant in variants(preset) for r in preset.recipes}
    unknown = sorted(set(names) - known)
    if unknown:
        columns = ", ".join(f"{test.name}: backbone{_suffix(preset, test.recipe)}" for test in preset.tests)
        raise ConfigError(
            f"there is no network {unknown[0]!r}; choose from {', '.join(variants(preset))}; by column: {columns}"
        )


def seeds_of(preset: Preset, variant: str) -> tuple[int, ...]:
    """The seeds with which a variant is trained."""
    return preset.seeds if variant in MAIN else preset.seeds[:1]


def method_of(preset: Preset, variant: str) -> PaperMethod:
    """The paper's method as a variant has it."""
    method = PaperMethod(every=preset.intervals[-1])
    if variant.startswith("paper-every-"):
        return replace(method, every=int(variant.rpartition("-")[2]))
    return replace(method, **CHANGES[variant])


def training_of(
    preset: Preset, variant: str, recipe: Recipe, data: Path, backbone: Path, seed: int = 0
) -> TrainingConfig:
    """The training configuration of a variant.

    Args:
        preset: says the sizes.
        variant: one of `variants`.
        recipe: what it is trained on.
        data: folder of the data.
        backbone: model folder of the recipe's trained backbone, from which every other variant starts.
        seed: of the draws of data.
    """
    blocks = int(variant.rpartition("-")[2]) if variant.startswith("static-") else preset.network.blocks
    stills = str(data / recipe.stills) if recipe.stills else ""
    kind, folder = recipe.validation
    return TrainingConfig(
        name=f"{preset.name}-{checkpoint_name(preset, variant, recipe.name)}",
        network=replace(preset.network, blocks=blocks),
        data=Data(
            train=[Source(recipe.kind, str(data / recipe.folder))],
            degradation=recipe.degradation,  # pyright: ignore[reportArgumentType] - it is checked
            stills=stills,
            stills_ratio=0.15 if stills else 0.0,
        ),
        validation=Validation([Source(kind, str(data / folder))], frames=8, every=preset.sizes.validate_every),
        stages=_stages(preset, variant, recipe, data, str(backbone)),
        seed=seed,
    )


def _stages(preset: Preset, variant: str, recipe: Recipe, data: Path, backbone: str) -> list[AnyStage]:
    sizes, frames, mirror = preset.sizes, recipe.frames, recipe.mirror
    whole = _optimisation(sizes, sizes.backbone, sizes.batch, sizes.learning_rate)
    half = _optimisation(sizes, sizes.skip, sizes.batch, sizes.learning_rate / 2)
    skip = _optimisation(sizes, sizes.skip, sizes.skip_batch, sizes.skip_learning_rate)
    if variant == "backbone" and not sizes.flow:
        spynet = str(data / SPYNET)
        return [BackboneStage("backbone", whole, frames, mirror, flow_init=spynet, flow_learning_rate_scale=0.0)]
    if variant == "backbone":
        flow = _optimisation(sizes, sizes.flow, sizes.batch, 1e-3)
        ratio = 0.5 if recipe.stills else 0.0
        return [FlowStage("flow", flow, synthetic_ratio=ratio), BackboneStage("backbone", whole, frames, mirror)]
    if variant.startswith("static-"):
        return [BackboneStage("backbone", half, frames, mirror, init=backbone, flow_learning_rate_scale=0.0)]
    if variant == "ours":
        router = _optimisation(sizes, sizes.router, sizes.skip_batch, 2e-3)
        tile_px = preset.tile_px // 2
        return [
            SkipStage("skip", skip, frames, mirror, init=backbone, tile_px=tile_px),
            RouterStage("router", router, frames, mirror, tile_px=tile_px),
        ]
    method = method_of(preset, variant)
    return [PaperSkipStage("skip", "paper", skip, frames, mirror, backbone, tile_px=preset.tile_px, paper=method)]


def _optimisation(sizes: Sizes, steps: int, batch: int, learning_rate: float) -> Optimisation:
    return Optimisation(
        steps, batch, sizes.crop, learning_rate, warmup=min(sizes.warmup, steps // 10), clip_norm=sizes.clip_norm,
        checkpoint_every=sizes.checkpoint_every,
    )  # fmt: skip


def _suffix(preset: Preset, recipe: str) -> str:
    return "" if recipe == preset.recipes[0].name else f"-{recipe}"
