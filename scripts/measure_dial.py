"""Quality for time: the dial of a model beside static networks, on validation clips; a table, a figure and its numbers.

    python scripts/measure_dial.py ../shared/data/val --static runs/static4/0-backbone/best --out docs/figures/dial

Luma PSNR is that of the first frames of every clip. Times are those of the same frames, and of the same ones enlarged, all
contenders in turn in every round, the median of the rounds but the first; run it on an idle machine. Writes OUT.png, OUT.svg
and OUT.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.allocation import keep_freed_memory
from skipvsr.checkpoints.load import load_model
from skipvsr.data.datasets import find_clips
from skipvsr.data.pairs import lr_gt_clip
from skipvsr.evaluation.metrics import psnr_y
from skipvsr.inference.machine import describe_machine
from skipvsr.inference.options import ComputeOptions
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.report.style import COLOURS, MARKERS, PAGE_INCHES, new_figure, save

BUDGETS = (1.0, 0.75, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.15)
DIAL, OWN, STATIC = "dial", "dial, own parts alone", "static"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the dial of a model beside static networks.")
    parser.add_argument("clips", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--static", type=Path, nargs="*", default=[], help="folders of static networks")
    parser.add_argument("--budget", type=float, nargs="*", default=BUDGETS)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    keep_freed_memory()
    pairs = [lr_gt_clip(clip, "bi", args.frames) for clip in find_clips("folder", args.clips)]
    runs = contenders(args)
    rows = [
        {"kind": kind, "name": name, "psnr_y": mean(quality(run, lr, gt) for lr, gt in pairs)}
        for (kind, name), run in runs.items()
    ]
    for enlarged in (1, 2):
        clips = [enlarge(lr, enlarged) for lr, _ in pairs]
        for row, milliseconds in zip(rows, times(list(runs.values()), clips, args.rounds), strict=True):
            row[f"ms_x{enlarged}"] = milliseconds
    for row in rows:
        print(f"| {row['kind']}, {row['name']} | {row['psnr_y']:.3f} | {row['ms_x1']:.1f} | {row['ms_x2']:.1f} |")
    sizes = sorted({tuple(lr.shape[:-3:-1]) for lr, _ in pairs})
    draw(
        args.out,
        args.model,
        rows,
        {"model": args.model, "sizes": sizes, "precision": args.precision, "rounds": args.rounds},
    )


def contenders(args: argparse.Namespace) -> dict[tuple[str, str], Upscaler]:
    """By kind and name."""

    def upscaler(model: AnyModel, budget: float = 1.0) -> Upscaler:
        return Upscaler(model, ComputeOptions(budget=budget if budget < 1 else None, precision=args.precision))

    model, own = (load_model(args.model, device="cpu") for _ in range(2))
    assert own.calibration is not None
    own.calibration = replace(own.calibration, lean_budget=0.0)
    runs = {(DIAL, f"{budget:g}"): upscaler(model, budget) for budget in args.budget}
    lean = model.calibration.lean_budget if model.calibration is not None else 0.0
    runs |= {(OWN, f"{budget:g}"): upscaler(own, budget) for budget in args.budget if budget <= lean}
    for folder in args.static:
        network = load_model(folder, device="cpu")
        half = ", half flow" if network.config.flow == "half" else ""
        runs[STATIC, f"{network.config.blocks} blocks{half}"] = upscaler(network)
    return runs


def quality(upscaler: Upscaler, lr: Tensor, gt: Tensor) -> float:
    """Luma PSNR in dB, as a user gets it."""
    return psnr_y(torch.stack([frame.float().clamp(0, 1) for frame in upscaler.stream(lr)]), gt).mean().item()


def enlarge(lr: Tensor, factor: int) -> list[Tensor]:
    """The frames, for timing alone."""
    if factor == 1:
        return list(lr)
    return list(F.interpolate(lr, scale_factor=factor, mode="bicubic", align_corners=False).clamp(0, 1))


def times(runs: list[Upscaler], clips: list[list[Tensor]], rounds: int) -> list[float]:
    """Milliseconds a frame of each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for taken, upscaler in zip(seconds, runs, strict=True):
            began = time.perf_counter()
            for clip in clips:
                for _ in upscaler.stream(clip):
                    pass
            taken.append(time.perf_counter() - began)
    frames = sum(map(len, clips))
    return [1000 * median(taken[1:]) / frames for taken in seconds]


def draw(out: Path, model: str, rows: list[dict], about: dict) -> None:
    """PSNR against time, for both sizes."""
    figure = new_figure(PAGE_INCHES, 2.6)
    for axes, size, title in zip(figure.subplots(1, 2), (1, 2), ("as they are", "twice as large"), strict=True):
        for place, kind in enumerate((DIAL, OWN, STATIC)):
            points = sorted((row[f"ms_x{size}"], row["psnr_y"], row["name"]) for row in rows if row["kind"] == kind)
            if not points:
                continue
            across, up = [x for x, _, _ in points], [y for _, y, _ in points]
            axes.plot(across, up, marker=MARKERS[place], color=COLOURS[place], label=kind)
            for x, y, name in points if kind != OWN else ():
                axes.annotate(name, (x, y), (0, -8 if kind == DIAL else 4), textcoords="offset points", fontsize=5.5)
        axes.set_xlabel(f"milliseconds a frame, frames {title}")
    figure.axes[0].set_ylabel("luma PSNR, dB")
    figure.axes[0].legend()
    save(figure, out, {**about, "machine": describe_machine(), "rows": rows, "title": model})


if __name__ == "__main__":
    main()
