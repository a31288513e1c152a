"""Write the mean of two models of one shape, to be trained on: of a model and of one that was trained on from it.

python scripts/mean_of_models.py compact-video compact runs/mean --weight 0.5

Where two models have an ancestor in common and were trained for different footage, their mean can be good at both
(Wortsman et al., "Model soups", ICML 2022).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import Checkpoint, save_folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the mean of two models of one shape, to be trained on.")
    parser.add_argument("first", help="a packaged name or a model folder; the calibration is its own")
    parser.add_argument("second")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weight", type=float, default=0.5, help="of the second (default 0.5)")
    args = parser.parse_args()
    first, second = load_model(args.first, device="cpu"), load_model(args.second, device="cpu")
    if first.config != second.config:
        raise SystemExit(f"{args.first} is a network of {first.config} and {args.second} one of {second.config}")
    command = f"python scripts/mean_of_models.py {args.first} {args.second} {args.out} --weight {args.weight:g}"
    weights = mean_weights(first.state_dict(), second.state_dict(), args.weight)
    save_folder(Checkpoint(first.config, weights, {"command": command}, first.calibration), args.out)


def mean_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
    """Every weight of the first, so much of it the second's. Raises KeyError where the second lacks one."""
    return {name: torch.lerp(mine, second[name], weight) for name, mine in first.items()}


if __name__ == "__main__":
    main()
