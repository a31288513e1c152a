"""The paper's figures, drawn from numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from skipvsr.report.style import COLOURS, COLUMN_INCHES, MAP, MARKERS, PAGE_INCHES, new_figure, save


@dataclass(frozen=True)
class Curve:
    """A curve of Figure 4, or its single point.

    Args:
        name: in the legend.
        gmacs: GMAC per frame of each point.
        seconds: seconds per frame of each point; empty: not shown.
        psnr: in dB, of each point.
        line: draw a line between the points.
    """

    name: str
    gmacs: Sequence[float]
    seconds: Sequence[float]
    psnr: Sequence[float]
    line: bool = True


@dataclass(frozen=True)
class RatioCurve:
    """Quality against what ran.

    Args:
        name: in the legend.
        ratios: of the residual blocks that ran, of each point.
        psnr: in dB, of each point.
    """

    name: str
    ratios: Sequence[float]
    psnr: Sequence[float]


@dataclass(frozen=True)
class Crop:
    """A column of Figure 6.

    Args:
        name: its title.
        image: the crop, (H, W, 3) in [0, 1].
        depth: ratio of blocks that ran at each LR pixel of the whole frame, (h, w).
        box: the crop's position in `depth`: top, left, side.
    """

    name: str
    image: np.ndarray
    depth: np.ndarray | None = None
    box: tuple[int, int, int] | None = None


def patch_psnr_map(stem: Path, frame: np.ndarray, psnr: np.ndarray, method: str) -> list[Path]:
    """Figure 1: a frame (H, W, 3) in [0, 1], and the PSNR of each of its patches (rows, columns) over it."""
    figure = new_figure(COLUMN_INCHES, COLUMN_INCHES * 0.72)
    axes = figure.subplots()
    height, width = frame.shape[:2]
    _hide_axes(axes)
    axes.imshow(frame.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    image = axes.imshow(psnr, cmap=MAP, alpha=0.6, extent=(-0.5, width - 0.5, height - 0.5, -0.5), aspect="equal")
    rows, columns = psnr.shape
    if rows * columns <= 70:
        for row in range(rows):
            for column in range(columns):
                x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
                axes.text(x, y, f"{psnr[row, column]:.0f}", ha="center", va="center", fontsize=5.5, color="white")
    figure.colorbar(image, ax=axes, label="PSNR of a patch (dB)", shrink=0.8)
    axes.set_title(method)
    return save(figure, stem, {"method": method, "patch_psnr_db": psnr.round(3).tolist()})


def _style(index: int) -> dict[str, Any]:
    """How a curve is drawn, so that no two of a figure look alike."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": ("-", "--", ":")[index // len(COLOURS) % 3],
    }


def trade_off(stem: Path, curves: Sequence[Curve], measure: str = "PSNR (dB)") -> list[Path]:
    """Figure 4: quality against cost, and against measured time."""
    figure = new_figure(PAGE_INCHES, 2.6)
    panels = figure.subplots(1, 2, sharey=True)
    for index, curve in enumerate(curves):
        style = _style(index) if curve.line else _style(index) | {"linestyle": "none"}
        panels[0].plot(curve.gmacs, curve.psnr, label=curve.name, **style)
        if curve.seconds:
            panels[1].plot(curve.seconds, curve.psnr, **style)
    panels[0].set(xlabel="cost (GMAC per frame)", ylabel=measure)
    panels[1].set(xlabel="time (seconds per frame)")
    figure.legend(loc="outside right center", frameon=False)
    return save(figure, stem, {"measure": measure, "curves": [vars(curve) for curve in curves]})


def ratio_curves(stem: Path, curves: Sequence[RatioCurve], measure: str) -> list[Path]:
    """Quality against the ratio of blocks that ran, a curve for each variant.

    Points far below all others (by Tukey's outer fence) lie outside, or nothing else could be told apart; the legend has them.
    """
    figure = new_figure(PAGE_INCHES, 4.2)
    axes = figure.subplots()
    floor = _outer_fence([psnr for curve in curves for psnr in curve.psnr])
    shown = [psnr for curve in curves for psnr in curve.psnr if psnr >= floor]
    for index, curve in enumerate(curves):
        points = sorted(zip(curve.ratios, curve.psnr, strict=True))
        lowest = min(curve.psnr)
        name = curve.name if lowest >= floor else f"{curve.name} (down to {lowest:.1f} dB)"
        axes.plot([100 * ratio for ratio, _ in points], [psnr for _, psnr in points], label=name, **_style(index))
    if len(shown) < sum(len(curve.psnr) for curve in curves):
        margin = 0.05 * (max(shown) - min(shown))
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set(xlabel="residual blocks that ran (%)", ylabel=measure)
    figure.legend(loc="outside right center", frameon=False)
    return save(figure, stem, {"measure": measure, "curves": [vars(curve) for curve in curves]})


def _outer_fence(values: Sequence[float]) -> float:
    """Three times the distance of the quartiles below the lower one: what is lower still is no part of a cloud."""
    low, high = np.percentile(values, (25, 75))
    return float(low - 3 * (high - low))


def routing_statistics(
    stem: Path, per_block: np.ndarray, differences: np.ndarray, frame: np.ndarray, depth: np.ndarray, caption: str
) -> list[Path]:
    """Figure 5: the ratio of tiles on which each block ran, how much each block changes the feature, and the depth on a frame.

    Args:
        stem: path of the files, without suffix.
        per_block: (2, blocks), backward and forward trunk.
        differences: (blocks, N), root mean square change of the feature on each tile.
        frame: (H, W, 3) in [0, 1].
        depth: (h, w), ratio of blocks that ran.
        caption: what was run, for the title.
    """
    figure = new_figure(PAGE_INCHES, 2.1)
    bars, spread, over = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    blocks = np.arange(1, per_block.shape[1] + 1)
    for index, name in enumerate(("backward", "forward")):
        bars.bar(blocks + 0.4 * index - 0.2, 100 * per_block[index], 0.4, label=name, color=COLOURS[index])
    bars.set(xlabel="residual block", ylabel="tiles on which it ran (%)", ylim=(0, 100))
    bars.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1.0)
    chosen = range(0, len(differences), -(-len(differences) // 8))  # at most 8 boxes
    names = [str(block + 1) for block in chosen]
    spread.boxplot([differences[block] for block in chosen], tick_labels=names, showfliers=False, widths=0.6)
    spread.set(xlabel="residual block", ylabel="change of the feature (RMS)", title="distribution over tiles")
    _hide_axes(over)
    over.imshow(frame.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    high, wide = frame.shape[:2]
    extent = (-0.5, wide - 0.5, high - 0.5, -0.5)
    image = over.imshow(100 * depth, cmap=MAP, alpha=0.55, vmin=0, vmax=100, extent=extent)
    over.set_title(f"depth: {caption}")
    figure.colorbar(image, ax=over, label="blocks that ran (%)", shrink=0.8)
    percentiles = np.percentile(differences, (5, 25, 50, 75, 95), axis=1)
    data = {
        "caption": caption,
        "ratio_per_block": per_block.round(5).tolist(),
        "feature_difference_percentiles_5_25_50_75_95": percentiles.round(6).tolist(),
    }
    return save(figure, stem, data)


def crops(stem: Path, columns: Sequence[Crop], data: dict[str, Any]) -> list[Path]:
    """Figure 6: crops beside one another, each with its depth map below, if it has one."""
    height, width = columns[0].image.shape[:2]
    wide = PAGE_INCHES / len(columns)
    figure = new_figure(PAGE_INCHES, 2 * wide * height / width + 0.75)
    rows = figure.subplots(2, len(columns))
    image = None
    for index, column in enumerate(columns):
        above, below = rows[0][index], rows[1][index]
        _hide_axes(above)
        above.imshow(column.image.clip(0, 1), interpolation="nearest")
        above.set_title(column.name, fontsize=6)
        _hide_axes(below)
        if column.depth is None:
            below.axis("off")
        else:
            image = below.imshow(100 * column.depth, cmap=MAP, vmin=0, vmax=100, interpolation="nearest")
            if column.box is not None:
                top, left, side = column.box
                outline = Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="white", linewidth=0.8)
                below.add_patch(outline)
    if image is not None:
        label = "blocks that ran (%)"
        figure.colorbar(image, ax=rows[1], label=label, location="bottom", shrink=0.4, aspect=40)
    return save(figure, stem, data)


def _hide_axes(axes: Axes) -> None:
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
