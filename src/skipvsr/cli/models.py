"""`skipvsr models`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from skipvsr.cli.show import add_json, print_event

if TYPE_CHECKING:
    from skipvsr.checkpoints.native import Checkpoint


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    description = "List the models that come with the package: size, cost, quality, and how they were made."
    parser = commands.add_parser("models", help="list the packaged models, with their numbers", description=description)
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """List the packaged models."""
    from skipvsr.checkpoints.load import packaged_names, read_checkpoint

    models = {name: describe(read_checkpoint(name)) for name in packaged_names()}
    if args.json:
        print_event("report", models=models)
        return
    for name, values in models.items():
        print(name)
        for key, value in values.items():
            label = key.replace("gmacs_per", "GMAC per").replace("_", " ")
            listed = value if isinstance(value, list) else [value]
            print(f"  {label:<34} {'; '.join(f'{each:,}' if isinstance(each, int) else str(each) for each in listed)}")
    print(
        "\nupscale takes the one that fits the file (--model auto): compact for clean footage, compact-video for what a codec "
        "has damaged, by codec and bits a pixel; -x2 where x2 is asked for or enough for the size that is. "
        "Taken only by their names: base, the best at x4 on all footage, for a machine with a GPU; compact-bd, for comparing "
        "with papers."
    )


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Size, cost and provenance of a model, flat enough to print."""
    from skipvsr.evaluation.cost import cost_per_frame

    config = checkpoint.config
    cost = cost_per_frame(config, 180, 320)
    shown = {
        "network": f"{config.channels} channels, {config.blocks} blocks per direction, {config.flow} flow, "
        f"{config.reconstruction} reconstruction",
        "parameters": sum(tensor.numel() for tensor in checkpoint.weights.values()),
        "gmacs_per_180x320_frame": round(cost.total / 1e9, 2),
    }
    for key, value in checkpoint.provenance.items():
        if isinstance(value, dict):
            shown |= {f"{key} {inner}": number for inner, number in value.items() if not isinstance(number, dict)}
        else:
            shown[key] = value
    return shown
