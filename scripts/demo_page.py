"""Draws the comparison of the demo: rows of images, pixel for pixel, with titles, labels and a legend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from skipvsr.upscale.frames import to_array
from skipvsr.upscale.overlay import draw_depth

DPI = 100
GAP_PX, TITLE_PX, LABEL_PX, LEGEND_PX = 16, 58, 32, 124
# Images of this width or more stand in two columns, smaller ones in four.
_WIDE_PX = 900


@dataclass(frozen=True)
class Row:
    """One frame of a scene in four ways.

    Args:
        title: the scene.
        images: (H, W, 3) uint8 of one size: bicubic, full, half, depth.
        scores: luma PSNR in dB of those that have a ground truth.
    """

    title: str
    images: dict[str, np.ndarray]
    scores: dict[str, float]


def draw_page(path: Path, rows: list[Row], half: float) -> None:
    """Write all rows, one below the other, and the legend of the depth, as a PNG."""
    labels = {
        "bicubic": "bicubic",
        "full": "SkipVSR, all blocks",
        "half": f"SkipVSR, --budget {half}",
        "depth": f"depth at --budget {half} (legend below)",
    }
    width = max(_columns(row) * (_size(row)[1] + GAP_PX) + GAP_PX for row in rows)
    height = sum(_height(row) for row in rows) + LEGEND_PX
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    top = 0
    for row in rows:
        _text(figure, GAP_PX, top + 24, row.title, size=15, weight="bold")
        for index, (name, image) in enumerate(row.images.items()):
            line, column = divmod(index, _columns(row))
            left = GAP_PX + column * (image.shape[1] + GAP_PX)
            above = top + TITLE_PX + line * (image.shape[0] + LABEL_PX)
            score = f": {row.scores[name]:.2f} dB" if name in row.scores else ""
            _text(figure, left, above + 6, labels[name] + score, size=12)
            _image(figure, left, above + LABEL_PX, image)
        top += _height(row)
    _legend(figure, top)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def _legend(figure: Figure, top: int) -> None:
    """The colours of the depth as they appear over mid-grey."""
    ratio = torch.linspace(0, 1, 480)[None].expand(24, -1)
    bar = to_array(draw_depth(torch.full((3, 24, 480), 0.5), ratio), np.dtype(np.uint8))
    _text(figure, GAP_PX, top + 24, "Depth: ratio of the residual blocks that ran in each tile", size=13)
    _image(figure, GAP_PX, top + 52, bar)
    for percent in (0, 25, 50, 75, 100):
        align = {0: "left", 100: "right"}.get(percent, "center")
        _text(figure, GAP_PX + 480 * percent / 100, top + 82, f"{percent}%", size=11, align=align)
    _text(
        figure, 540, top + 56, "dB: luma PSNR of this frame. The real scene has no ground truth at this size.", size=12
    )


def _columns(row: Row) -> int:
    return 2 if _size(row)[1] >= _WIDE_PX else 4


def _size(row: Row) -> tuple[int, int]:
    height, width, _ = next(iter(row.images.values())).shape
    return height, width


def _height(row: Row) -> int:
    return TITLE_PX + -(-len(row.images) // _columns(row)) * (_size(row)[0] + LABEL_PX)


def _image(figure: Figure, left: int, top: int, image: np.ndarray) -> None:
    height = round(figure.get_figheight() * DPI)
    figure.figimage(image, left, height - top - image.shape[0], origin="upper")


def _text(
    figure: Figure, left: float, top: float, text: str, *, size: int, align: str = "left", weight: str = "normal"
) -> None:
    width, height = figure.get_figwidth() * DPI, figure.get_figheight() * DPI
    figure.text(left / width, 1 - top / height, text, fontsize=size, ha=align, va="top", weight=weight)
