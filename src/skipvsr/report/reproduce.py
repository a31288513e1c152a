"""Makes the tables and figures of the paper, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.evaluation.metrics import psnr
from skipvsr.evaluation.scores import Row
from skipvsr.evaluation.settings import PolicyName, Setting
from skipvsr.inference.options import ComputeOptions
from skipvsr.models.blocks import SCALE
from skipvsr.models.resize import bicubic_upsample
from skipvsr.report.experiment import BUDGETS, HALF, Experiment
from skipvsr.report.figures import (
    Crop,
    Curve,
    RatioCurve,
    crops,
    patch_psnr_map,
    ratio_curves,
    routing_statistics,
    trade_off,
)
from skipvsr.report.observations import feature_differences, patch_psnr, run_routed
from skipvsr.report.tables import TABLES
from skipvsr.report.variants import variants

_CURVE_RATIOS = (0.24, 0.507, 0.707)
_FIXED: tuple[PolicyName, ...] = ("gradient", "random", "uniform", "deep")


def fig1(experiment: Experiment, stem: Path) -> list[Path]:
    """PSNR of each patch of a frame."""
    lr, gt = experiment.clip()
    middle = len(lr) // 2
    result = run_routed(experiment.model("backbone"), lr, ComputeOptions()).result
    method = f"BasicVSR, {psnr(result[middle], gt[middle], 1.0).item():.2f} dB"
    return patch_psnr_map(stem, to_image(gt[middle]), patch_psnr(result[middle], gt[middle]).numpy(), method)


def fig4(experiment: Experiment, stem: Path) -> list[Path]:
    """Quality against cost and time on whole frames: both routers, oracles, policies without a router, static networks."""
    test = experiment.preset.tests[0]
    full = Setting("full")
    lines: dict[str, list[tuple[str, Setting]]] = {}
    for name, variant in (("our router", "ours"), ("the paper's router", "paper")):
        settings = [Setting("threshold", experiment.threshold_at(variant, ratio)) for ratio in _CURVE_RATIOS]
        lines[name] = [*((variant, setting) for setting in settings), (variant, full)]
    for policy in _FIXED:
        lines[policy] = _at_ratios(policy)
    lines["static networks"] = [
        *((f"static-{blocks}", full) for blocks in experiment.preset.static),
        ("backbone", full),
    ]
    timed = list(dict.fromkeys(point for line in lines.values() for point in line))
    seconds = dict(zip(timed, experiment.seconds(timed, test), strict=True))
    # Their time means nothing; that of blocks takes some hundred passes of a trunk for each of its own.
    oracles = {"oracle of depths": _at_ratios("oracle"), "oracle of blocks": _at_ratios("oracle-blocks", (HALF,))}
    points = list(dict.fromkeys(point for line in (lines | oracles).values() for point in line))
    rows = {point: experiment.row(*point, test) for point in points}
    curves = []
    for name, line in (lines | oracles).items():
        ordered = sorted(line, key=lambda point: rows[point].gmacs_per_frame)
        curves.append(
            Curve(
                name,
                [rows[point].gmacs_per_frame for point in ordered],
                [seconds[point] for point in ordered] if name in lines else [],
                [rows[point].psnr_rgb for point in ordered],
            )
        )
    return trade_off(stem, curves, f"RGB PSNR on {test.name} (dB)")


def _at_ratios(policy: PolicyName, ratios: Sequence[float] = _CURVE_RATIOS) -> list[tuple[str, Setting]]:
    """Our network by a policy that keeps to a ratio in every frame, and with every block."""
    return [*(("ours", Setting(policy, ratio)) for ratio in ratios), ("ours", Setting("full"))]


def curves(experiment: Experiment, stem: Path) -> list[Path]:
    """Quality against the ratio of blocks that ran, in patches: every variant of the paper's method, and fixed strategies."""
    test = experiment.preset.tests[0]
    lines: dict[str, list[Row]] = {}
    for variant in variants(experiment.preset):
        if (variant == "ours" or variant.startswith("paper")) and experiment.has(variant):
            # Those of the tables, and one that need not be at a ratio.
            found = [experiment.row_at(variant, ratio, test) for ratio in (*_CURVE_RATIOS[:2], 1.0)]
            lines[variant] = [*found[:2], experiment.row_near(variant, _CURVE_RATIOS[2], test), found[2]]
    for variant in ("paper", "backbone"):
        for policy in ("random", "shallow", "deep"):
            settings = [Setting(policy, ratio, "patch") for ratio in _CURVE_RATIOS]  # pyright: ignore[reportArgumentType]
            lines[f"{policy}, {variant}"] = [
                experiment.row(variant, setting, test) for setting in (*settings, Setting("full", 1.0, "patch"))
            ]
    drawn = [
        RatioCurve(name, [row.active_ratio for row in rows], [row.psnr_rgb for row in rows])
        for name, rows in lines.items()
    ]
    return ratio_curves(stem, drawn, f"RGB PSNR on {test.name} (dB)")


def fig5(experiment: Experiment, stem: Path) -> list[Path]:
    """Where blocks run, by block and on a frame, and how much each changes the feature."""
    lr, gt = experiment.clip()
    model = experiment.model("paper")
    compute = ComputeOptions(threshold=experiment.threshold_at("paper", HALF), tile_size=experiment.tile_size("paper"))
    routed = run_routed(model, lr, compute)
    middle = len(lr) // 2
    return routing_statistics(
        stem, routed.per_block.numpy(), feature_differences(model, lr).numpy(), to_image(gt[middle]),
        routed.depth[middle].numpy(), f"the paper's router, {routed.ratio:.0%}",
    )  # fmt: skip


def fig6(experiment: Experiment, stem: Path) -> list[Path]:
    """A crop at several thresholds, beside the ground truth, bicubic and the full network."""
    lr, gt = experiment.clip()
    middle = len(lr) // 2
    top, left, side = _busiest(gt[middle])
    box = (top // SCALE, left // SCALE, side // SCALE)

    def cut(image: Tensor) -> np.ndarray:
        return to_image(image[..., top : top + side, left : left + side])

    bicubic = bicubic_upsample(lr[middle][None])[0]
    columns = [Crop("ground truth", cut(gt[middle])), Crop(_named("bicubic", bicubic, gt[middle]), cut(bicubic))]
    shown: dict[str, object] = {"frame": middle, "crop": {"top": top, "left": left, "side": side}}
    for variant, name in (("paper", "paper"), ("ours", "ours")):
        model = experiment.model(variant)
        for budget in (1.0, BUDGETS[4], BUDGETS[5]):
            threshold = experiment.threshold_at(variant, budget)
            routed = run_routed(model, lr, ComputeOptions(threshold=threshold, tile_size=experiment.tile_size(variant)))
            label = f"{name}, {routed.ratio:.0%}"
            shown[label] = psnr(routed.result[middle], gt[middle], 1.0).item()
            title = _named(label, routed.result[middle], gt[middle])
            columns.append(Crop(title, cut(routed.result[middle]), routed.depth[middle].numpy(), box))
    return crops(stem, columns, shown)


FIGURES: dict[str, Callable[[Experiment, Path], list[Path]]] = {
    "fig1": fig1, "fig4": fig4, "fig5": fig5, "fig6": fig6, "curves": curves,
}  # fmt: skip
NAMES = (*TABLES, *FIGURES)


def reproduce(names: Sequence[str], experiment: Experiment) -> list[Path]:
    """Make tables and figures; the networks and numbers that they need are made first, and kept.

    Args:
        names: any of `NAMES`, or "all".
        experiment: supplies networks and numbers; files are written to its folder.

    Returns:
        The files that were written.

    Raises:
        ConfigError: an unknown name.
    """
    wanted = NAMES if "all" in names else tuple(names)
    for name in wanted:
        if name not in NAMES:
            raise ConfigError(f"there is no {name!r}; choose from {', '.join(NAMES)}, all")
    files: list[Path] = []
    with TemporaryDirectory() as spare:
        # Every process measures its clips; what the others would write is thrown away.
        folder = experiment.out if experiment.group.index == 0 else Path(spare)
        for name in wanted:
            stem = folder / name
            files += TABLES[name](experiment).save(stem) if name in TABLES else FIGURES[name](experiment, stem)
            experiment.tell(f"{name}: done")
    return files


def to_image(frame: Tensor) -> np.ndarray:
    """(3, H, W) -> (H, W, 3) in [0, 1]."""
    return frame.clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def _named(name: str, result: Tensor, gt: Tensor) -> str:
    """A title: the name, and the PSNR below it."""
    return f"{name}\n{psnr(result.clamp(0, 1), gt, 1.0).item():.2f} dB"


def _busiest(gt: Tensor) -> tuple[int, int, int]:
    """Top, left and side of the square crop of a frame (3, H, W) with the most detail, on whole LR pixels."""
    side = min(192, gt.shape[-2] // 2, gt.shape[-1] // 2) // SCALE * SCALE
    slope = gt.mean(dim=0).diff(dim=-1).abs()[None, None]
    energy = torch.nn.functional.avg_pool2d(slope, side, stride=SCALE)[0, 0]
    index = int(energy.argmax())
    return index // energy.shape[1] * SCALE, index % energy.shape[1] * SCALE, side
