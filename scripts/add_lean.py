"""Put the lean parts that a run of `skipvsr train` trained, or those of another model, into a packaged model.

python scripts/add_lean.py compact runs/lean --config configs/compact/lean.toml --commit COMMIT --budget 0.45
python scripts/add_lean.py compact-video --of compact --commit COMMIT --budget 0.45

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
from torch import Tensor

from skipvsr.checkpoints.native import CARD, WEIGHTS, Checkpoint, read_folder, save_folder
from skipvsr.training.config import TrainingConfig, read_config
from skipvsr.training.lean import LeanStage

PACKAGED = Path(__file__).parents[1] / "src" / "skipvsr" / "weights"
SECTION = "## Lean parts"
NOTHING = torch.empty(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Put trained lean parts into a packaged model.")
    parser.add_argument("model", help="name of the packaged model")
    parser.add_argument("run", type=Path, nargs="?", help="that trained them; or --of")
    parser.add_argument("--config", type=Path, help="that was trained")
    parser.add_argument("--of", metavar="MODEL", help="take those of another packaged model, as they are")
    parser.add_argument(
        "--commit", required=True, help="of the code that trained them, or at which the other model is meant"
    )
    parser.add_argument("--budget", type=float, required=True, help="budgets up to this one run with them")
    args = parser.parse_args()
    folder = PACKAGED / args.model
    if args.of:
        made: dict[str, Any] = {"of": args.of, "commit": args.commit}
        checkpoint = with_parts_of(read_folder(folder), read_folder(PACKAGED / args.of), args.budget)
        text = section_of_another(made, args.budget)
    elif args.run and args.config:
        config = read_config(args.config)
        logs = [
            read_validations(args.run / f"{index}-{stage.kind}" / "log.jsonl")
            for index, stage in enumerate(config.stages)
        ]
        made = describe(args, config, logs)
        trained = read_folder(args.run / f"{len(config.stages) - 1}-lean" / "best")
        checkpoint = with_lean_parts(read_folder(folder), trained, args.budget)
        text = section(config, made, logs, args.budget)
    else:
        raise SystemExit("give a run with its --config, or --of")
    provenance = checkpoint.provenance | {"lean": made}
    with safe_open(folder / WEIGHTS, "pt") as stored:
        dtype = stored.get_tensor("forward_trunk.input.weight").dtype
    card = with_section((folder / CARD).read_text(encoding="utf-8"), text)
    save_folder(replace(checkpoint, provenance=provenance), folder, card=card, dtype=dtype, overwrite=True)


def describe(args: argparse.Namespace, config: TrainingConfig, logs: list[list[dict]]) -> dict[str, Any]:
    """Where trained lean parts come from."""
    return {
        "command": f"skipvsr train {args.config.as_posix()}",
        "commit": args.commit,
        "iterations": [log[-1]["step"] for log in logs],
        "time": [
            text for index, stage in enumerate(config.stages) if (text := read_time(args.run / f"{index}-{stage.kind}"))
        ],
    }


def with_lean_parts(model: Checkpoint, trained: Checkpoint, budget: float) -> Checkpoint:
    """The model with the lean parts of a trained one. Raises SystemExit where these were trained for another model."""
    if not all(torch.equal(weights, trained.weights.get(name, NOTHING)) for name, weights in _own(model).items()):
        raise SystemExit("the run's other weights are not the model's: its lean parts are for another")
    return with_parts_of(model, trained, budget)


def with_parts_of(model: Checkpoint, other: Checkpoint, budget: float) -> Checkpoint:
    """The model with the lean parts of another one of its shape. Raises SystemExit where that is not one."""
    own, lean = _own(model), {name: weights for name, weights in other.weights.items() if name.startswith("lean.")}
    if not lean or {name: weights.shape for name, weights in _own(other).items()} != {
        name: weights.shape for name, weights in own.items()
    }:
        raise SystemExit("it has no lean parts for a model of this shape")
    if model.calibration is None:
        raise SystemExit("the model is not calibrated")
    config, table = replace(model.config, lean=other.config.lean), replace(model.calibration, lean_budget=budget)
    return replace(model, config=config, weights=own | lean, calibration=table)


def _own(model: Checkpoint) -> dict[str, Tensor]:
    """All but its lean parts."""
    return {name: weights for name, weights in model.weights.items() if not name.startswith("lean.")}


def section_of_another(made: dict[str, Any], budget: float) -> str:
    """What the card says of lean parts of another model, in Markdown."""
    return (
        f"{SECTION}\n\nBudgets up to {budget:g} run with a flow at half of the size and a short backward trunk: those of "
        f"`{made['of']}` as packaged at commit {made['commit']}, as they are (docs/routing.md).\n"
    )


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
