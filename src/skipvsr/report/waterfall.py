"""A figure of the benchmark: what each technique takes off the time of a frame."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from skipvsr.benchmark.full import Benchmark
from skipvsr.report.style import COLOURS, PAGE_INCHES, new_figure, save


def draw_waterfall(path: Path, model: str, found: Benchmark) -> list[Path]:
    """Write the figure as .png and .svg, with its numbers as .json beside it; return the files.

    Every bar hangs from the time before a technique down to the time with it; the last ones, in grey, stand for themselves.

    Args:
        path: whose ending does not matter.
        model: its name, for the title.
        found: by the benchmark.
    """
    steps = [row for row in found.rows if row.step]
    others = [row for row in found.rows if not row.step]
    figure = new_figure(PAGE_INCHES, 0.3 * (len(found.rows) + 3))
    axes = figure.subplots()
    axes.set_axisbelow(True)
    before = 0.0
    for place, row in enumerate(steps + others):
        low, middle, high = (1000 * value for value in row.seconds)
        if row.step and place:
            axes.barh(place, before - middle, left=middle, color=COLOURS[2], height=0.62)
            axes.plot((middle, middle), (place - 0.31, place + 0.31), color=COLOURS[6])
        else:
            axes.barh(place, middle, color=COLOURS[7] if place else COLOURS[0], height=0.62)
        axes.plot((low, high), (place, place), color=COLOURS[6], linewidth=0.8)
        axes.annotate(
            f" {middle:.0f} ms, {row.speed_up:.1f}x",
            (max(before if row.step else 0.0, high), place),
            va="center",
            fontsize=7,
        )
        before = middle if row.step else before
    axes.set_yticks(
        range(len(found.rows)),
        [("+ " if row.step and place else "") + row.name for place, row in enumerate(steps + others)],
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(1000 * row.seconds[2] for row in found.rows))
    axes.set_xlabel("milliseconds a frame (median; line: quartiles)")
    on = (
        found.machine["gpu"]
        if found.device.startswith("cuda")
        else f"{found.machine['processor']}, {found.machine['threads']} threads"
    )
    axes.set_title(f"{model}, {found.width}x{found.height}, {on}")
    return save(figure, path.with_suffix(""), {"model": model, **asdict(found)})
