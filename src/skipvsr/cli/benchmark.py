"""`skipvsr benchmark`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from skipvsr.cli.choices import PRECISIONS
from skipvsr.cli.show import add_json, print_event, progress_bar
from skipvsr.errors import ConfigError

if TYPE_CHECKING:
    from skipvsr.benchmark.quick import QuickBenchmark


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "benchmark",
        help="measure how fast each preset is on this machine",
        description="Measure what each preset means on this machine: frames a second for inputs of 320x180, 854x480 and "
        "1280x720, in less than a minute. What is measured is remembered for 'skipvsr upscale --dry-run'.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="the presets on three sizes (the only kind there is so far)"
    )
    parser.add_argument(
        "--model", default="compact", help="packaged name, folder, checkpoint, Hub id, or bicubic (%(default)s)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (auto: a GPU if there is one)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of weights and features (%(default)s: the fastest)"
    )
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Measure, and print a table."""
    if not args.quick:
        raise ConfigError("only the quick benchmark exists so far; give --quick")
    from skipvsr.benchmark.quick import quick_benchmark
    from skipvsr.checkpoints.load import load_any_model

    model = load_any_model(args.model, device=args.device)
    with progress_bar("", hidden=args.json, total=100) as bar:
        bar.bar_format = "measuring {percentage:3.0f}%|{bar}|"
        found = quick_benchmark(
            model, device=args.device, precision=args.precision, on_progress=lambda done: bar.update(100 * done - bar.n)
        )
    if args.json:
        print_event("report", model=args.model, **asdict(found))
    else:
        print(table(args.model, found))


def table(model: str, found: QuickBenchmark) -> str:
    """A row for each preset, a column for each size."""
    machine = found.machine
    on = machine["gpu"] if found.device.startswith("cuda") else f"{machine['processor']}, {machine['threads']} threads"
    sizes = list(dict.fromkeys((speed.width, speed.height) for speed in found.speeds))
    by_place = {(speed.preset, speed.width, speed.height): speed for speed in found.speeds}
    lines = [
        f"{model} in {found.precision} on {on}, torch {machine['torch']}",
        f"{'frames a second':28}" + "".join(f"{f'{width}x{height}':>12}" for width, height in sizes),
    ]
    for preset, budget in dict.fromkeys((speed.preset, speed.budget) for speed in found.speeds):
        name = f"{preset} ({budget:.0%} of the blocks)"
        cells = [f"{by_place[preset, *place].frames_per_second:12.3g}" for place in sizes]
        lines.append(f"{name:28}" + "".join(cells))
    if len({speed.preset for speed in found.speeds}) == 1:
        lines.append("This model has no router: there is only one preset.")
    if found.busy:
        lines.append("Other programs used the processor meanwhile: without them it is faster.")
    return "\n".join(lines)
