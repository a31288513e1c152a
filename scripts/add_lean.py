"""Put the lean parts that a run of `skipvsr train` trained into the packaged model that it started from.

python scripts/add_lean.py compact runs/lean --config configs/compact/lean.toml --commit COMMIT --budget 0.45

All else in the model stays as it is; the card says how the lean parts were made.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from package_model import read_time, read_validations, schedule
from safetensors import safe_open

from skipvsr.checkpoints.native import CARD, WEIGHTS, Checkpoint, read_folder, save_folder
from skipvsr.training.config import TrainingConfig, read_config
from skipvsr.training.lean import LeanStage

PACKAGED = Path(__file__).parents[1] / "src" / "skipvsr" / "weights"
SECTION = "## Lean parts"


def main() -> None:
    parser = argparse.ArgumentParser(description="Put trained lean parts into a packaged model.")
    parser.add_argument("model", help="name of the packaged model")
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, required=True, help="that was trained")
    parser.add_argument("--commit", required=True, help="of the code that trained it")
    parser.add_argument("--budget", type=float, required=True, help="budgets up to this one run with them")
    args = parser.parse_args()
    folder, config = PACKAGED / args.model, read_config(args.config)
    checkpoint = with_lean_parts(
        read_folder(folder), read_folder(args.run / f"{len(config.stages) - 1}-lean" / "best"), args.budget
    )
    logs = [
        read_validations(args.run / f"{index}-{stage.kind}" / "log.jsonl") for index, stage in enumerate(config.stages)
    ]
    made: dict[str, Any] = {
        "command": f"skipvsr train {args.config.as_posix()}",
        "commit": args.commit,
        "iterations": [log[-1]["step"] for log in logs],
        "time": [
            text for index, stage in enumerate(config.stages) if (text := read_time(args.run / f"{index}-{stage.kind}"))
        ],
    }
    card = with_section((folder / CARD).read_text(encoding="utf-8"), section(config, made, logs, args.budget))
    provenance = checkpoint.provenance | {"lean": made}
    with safe_open(folder / WEIGHTS, "pt") as stored:
        dtype = stored.get_tensor("forward_trunk.input.weight").dtype
    save_folder(replace(checkpoint, provenance=provenance), folder, card=card, dtype=dtype, overwrite=True)


def with_lean_parts(model: Checkpoint, trained: Checkpoint, budget: float) -> Checkpoint:
    """The model with the lean parts of a trained one. Raises SystemExit where these were trained for another model."""
    own = {name: weights for name, weights in model.weights.items() if not name.startswith("lean.")}
    lean = {name: weights for name, weights in trained.weights.items() if name.startswith("lean.")}
    if not lean or {name for name in trained.weights if name not in lean} != set(own):
        raise SystemExit("the run trained no lean parts for a model of this shape")
    if not all(torch.equal(weights, trained.weights[name]) for name, weights in own.items()):
        raise SystemExit("the run's other weights are not the model's: its lean parts are for another")
    if model.calibration is None:
        raise SystemExit("the model is not calibrated")
    config, table = replace(model.config, lean=trained.config.lean), replace(model.calibration, lean_budget=budget)
    return replace(model, config=config, weights=own | lean, calibration=table)


def section(config: TrainingConfig, made: dict[str, Any], logs: list[list[dict]], budget: float) -> str:
    """What the card says of them, in Markdown."""
    lines = [
        SECTION, "",
        f"Budgets up to {budget:g} run with a flow at half of the size and a short backward trunk, which were trained for the "
        "rest as it is (docs/routing.md):", "",
        f"    {made['command']}", "",
        f"at commit {made['commit']}, seed {config.seed}.",
    ]  # fmt: skip
    for stage, log in zip(config.stages, logs, strict=True):
        assert isinstance(stage, LeanStage)
        settings = stage.optimisation
        lines += [
            "", f"{log[-1]['step']:,} steps of {settings.batch} clips x {stage.frames} frames x {settings.crop} LR px, Adam "
            f"{settings.learning_rate:g}{schedule(settings)}, weight of the flow's distance {stage.flow:g}.", "",
            "| step | luma PSNR at half the blocks, dB | at a quarter, dB |", "|---|---|---|",
            *(f"| {row['step']:,} | {row['validation']['psnr_y_0.5']:.3f} | {row['validation']['psnr_y_0.25']:.3f} |"
              for row in log),
        ]  # fmt: skip
    best = max(logs[-1], key=lambda row: row["validation"]["psnr_y_0.5"] + row["validation"]["psnr_y_0.25"])
    lines += [
        "", f"(The first {config.validation.frames} frames of each clip; the weights of step {best['step']:,} are packaged; "
        f"{'; '.join(made['time'])}.)", "",
    ]  # fmt: skip
    return "\n".join(lines)


def with_section(card: str, text: str) -> str:
    """The card with this section at its end, in the place of the one that it has."""
    return card.partition(SECTION)[0].rstrip() + "\n\n" + text


if __name__ == "__main__":
    main()
