"""The style of figures: as wide as a column or a page, readable in print, in colours that everybody can tell apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLUMN_INCHES = 3.4
PAGE_INCHES = 7.0
# The palette of Okabe and Ito (2008), without its yellow, which is too faint for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAP = "viridis"

_SETTINGS: dict[str, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "skipvsr",
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in this style; sizes in inches."""
    mpl.rcParams.update(_SETTINGS)  # pyright: ignore[reportCallIssue, reportArgumentType] - the stubs want literal keys
    return plt.figure(figsize=(width, height))


def save(figure: Figure, stem: Path, data: dict[str, Any]) -> list[Path]:
    """Write STEM.png (300 dpi), STEM.svg and STEM.json (the numbers shown); return the files."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_suffix(suffix) for suffix in (".png", ".svg", ".json")]
    figure.savefig(files[0], dpi=300, metadata={"Software": None})
    figure.savefig(files[1], metadata={"Date": None})
    files[2].write_text(json.dumps(data, indent=1) + "\n")
    plt.close(figure)
    return files
