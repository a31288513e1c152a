"""`skipvsr benchmark`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skipvsr.cli.choices import PRECISIONS
from skipvsr.cli.show import add_json, print_event, progress_bar
from skipvsr.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from skipvsr.benchmark.full import Benchmark
    from skipvsr.benchmark.kernels import KernelTimes
    from skipvsr.benchmark.quick import QuickBenchmark
    from skipvsr.models.vsr import SkipVSR

PAPER_SIZE = "64 channels, 30 blocks, random weights"
PARTS = ("flow", "trunks", "router", "reconstruction")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "benchmark",
        help="measure how fast it is on this machine",
        description="Run a network in every way that there is on this machine, in turn, against plain PyTorch: some minutes. "
        "With --quick, measure what each preset means: frames a second for inputs of 320x180, 854x480 and 1280x720, in less "
        "than a minute, which is remembered for 'skipvsr upscale --dry-run'.",
    )
    parser.add_argument("--quick", action="store_true", help="the presets on three sizes")
    parser.add_argument("--model", default="compact", help="packaged name, folder, checkpoint or Hub id (%(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (auto: a GPU if there is one)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of weights and features (%(default)s: the fastest)"
    )
    full = parser.add_argument_group("without --quick")
    full.add_argument("--size", type=_size, default=(320, 180), metavar="WxH", help="of the frames (320x180)")
    full.add_argument("--frames", type=int, metavar="N", help="of the clip (6; on a GPU 48)")
    full.add_argument("--rounds", type=int, default=7, metavar="N", help="that count, after a first one (%(default)s)")
    full.add_argument("--no-growth", action="store_true", help="leave out how time grows with size and length")
    full.add_argument(
        "--paper-size",
        action=argparse.BooleanOptionalAction,
        help="also a network of the paper's size, 64 channels and 30 blocks, with random weights (on a GPU: yes)",
    )
    full.add_argument("--output", type=Path, metavar="FILE", help="write everything to this file (.json)")
    full.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw what each technique adds (.png, .svg; needs skipvsr[research])",
    )
    add_json(parser)
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Measure, and print a table."""
    from skipvsr.benchmark.full import check_precision

    check_precision(args.precision)
    if args.quick:
        _quick(args)
        return
    from skipvsr.benchmark.full import FRAMES, GPU_FRAMES, SIZES, benchmark
    from skipvsr.benchmark.spread import paper_size
    from skipvsr.checkpoints.load import load_model

    model = load_model(args.model, device=args.device)
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    frames = args.frames if args.frames is not None else GPU_FRAMES if on_gpu else FRAMES
    if min(frames, args.rounds) < 1:
        raise ConfigError("frames and rounds must be at least 1")
    measure = partial(
        benchmark, precision=args.precision, width=args.size[0], height=args.size[1], frames=frames, rounds=args.rounds
    )  # fmt: skip
    networks = [model]
    if on_gpu if args.paper_size is None else args.paper_size:
        networks.append(paper_size().to(device))
    # First: what it remembers is how the rest runs.
    kernels = [_kernels(args, each, device) for each in networks] if on_gpu else []
    values: dict[str, Any] = {"model": args.model}
    values["kernels"] = [each if isinstance(each, str) else asdict(each) for each in kernels]
    with _bar(args, "measuring") as tell:
        found = measure(model, sizes=() if args.no_growth else SIZES, on_progress=tell)
    values |= asdict(found)
    # What is known by now is kept, should the rest be broken off.
    _write(args, values | {"paper_size": None})
    large = None
    for each in networks[1:]:
        with _bar(args, "measuring") as tell:
            large = measure(each, sizes=(), spread=True, on_progress=tell)
    values["paper_size"] = None if large is None else asdict(large)
    _write(args, values)
    if args.figure is not None:
        from skipvsr.report.waterfall import draw_waterfall

        draw_waterfall(args.figure, args.model, found)
        if large is not None:
            draw_waterfall(args.figure.with_stem(f"{args.figure.stem}-paper-size"), PAPER_SIZE, large)
    if args.json:
        print_event("report", **values)
        return
    print(full_table(args.model, found))
    if large is not None:
        print("", full_table(PAPER_SIZE, large), sep="\n")
    if kernels:
        print("", kernel_table(kernels), sep="\n")


def _write(args: argparse.Namespace, values: dict[str, Any]) -> None:
    if args.output is None:
        return
    from skipvsr.video.errors import writing
    from skipvsr.video.files import write_whole

    with writing(args.output):
        write_whole(args.output, json.dumps(values, indent=1) + "\n")


def _kernels(args: argparse.Namespace, model: SkipVSR, device: torch.device) -> KernelTimes | str:
    """Of a block of the model's width, in the precision in which it is going to run."""
    from skipvsr.benchmark.kernels import measure_kernels
    from skipvsr.inference.precision import fastest_precision

    precision = fastest_precision(model) if args.precision == "auto" else args.precision
    width, height = args.size
    with _bar(args, "trying kernels") as tell:
        return measure_kernels(device, precision, model.config.channels, height, width, on_progress=tell)


def kernel_table(kernels: Sequence[KernelTimes | str]) -> str:
    """A row for each width: a block through torch and through our kernels, by the ratio of active tiles."""
    times = [each for each in kernels if not isinstance(each, str)]
    lines = [f"no kernels: {each}" for each in kernels if isinstance(each, str)]
    if times:
        ratios = list(times[0].tiles)
        heads = ["torch", "one tile", *(f"{float(ratio):.0%}" for ratio in ratios)]
        lines.append(f"{'microseconds a block':42}" + "".join(f"{head:>10}" for head in heads))
    for each in times:
        name = f"{each.channels} channels, {each.precision}, {each.width}x{each.height}"
        cells = [each.dense, each.whole, *each.tiles.values()]
        lines.append(f"{name:42}" + "".join(f"{1e6 * seconds:10.1f}" for seconds in cells))
        best = each.settings
        dense = "never" if each.dense_ratio > 1 else f"from {each.dense_ratio:.0%} of the tiles on"
        lines.append(
            f"  fastest with {best.block_pixels} pixels, {best.warps} warps, {best.stages} stages, remembered; torch is "
            f"faster {dense}"
        )
    return "\n".join(lines)


def full_table(model: str, found: Benchmark) -> str:
    """A row for each way to run the network, and what is known of the machine."""
    lines = [
        f"{model} on {_where(found.machine, found.device)}: {found.width}x{found.height}, {found.frames} frames, median of "
        f"{found.rounds} rounds",
        f"{'':42}{'s/frame':>9}{'quartiles':>16}{'times':>8}{'blocks':>8}{'GMAC':>7}{'of peak':>9}{'MiB':>7}",
    ]
    for row in found.rows:
        low, middle, high = row.seconds
        share = "" if row.share_of_peak is None else f"{row.share_of_peak:.0%}"
        lines.append(
            f"{row.name:42}{middle:9.4f}{f'{low:.4f}-{high:.4f}':>16}{row.speed_up:7.2f}x{row.active_ratio:8.0%}{row.gmacs:7.1f}"
            f"{share:>9}{row.peak_bytes >> 20:7}"
        )
    lines.append("")
    lines.append(f"{'milliseconds a frame':42}" + "".join(f"{part:>16}" for part in PARTS))
    lines += [
        f"{row.name:42}" + "".join(f"{1000 * row.parts.get(part, 0):16.1f}" for part in PARTS)
        for row in found.rows
        if row.parts
    ]
    if found.growth:
        lines.append("")
    for growth in found.growth:
        each = ", ".join(f"{name}: {seconds:.3f} s/frame" for name, seconds in growth.seconds.items())
        lines.append(f"{growth.width}x{growth.height}, {growth.frames} frames: {each}; {growth.peak_bytes >> 20} MiB")
    peaks = ", ".join(f"{precision} {gflops:,.0f}" for precision, gflops in found.gflops.items())
    lines.append(f"GFLOP/s of large matrix products, of which 'of peak' is the share: {peaks}")
    return "\n".join(lines)


@contextmanager
def _bar(args: argparse.Namespace, what: str) -> Iterator[Callable[[float], object]]:
    """A progress bar, as a function to call with how much is done."""
    with progress_bar("", hidden=args.json, total=100) as bar:
        bar.bar_format = f"{what} {{percentage:3.0f}}%|{{bar}}|"
        yield lambda done: bar.update(100 * done - bar.n)


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT with sides of at least 16, as in 320x180")
    return int(width), int(height)


def _where(machine: dict[str, Any], device: str) -> str:
    on = machine["gpu"] if device.startswith("cuda") else f"{machine['processor']}, {machine['threads']} threads"
    return f"{on}, torch {machine['torch']}"


def _quick(args: argparse.Namespace) -> None:
    from skipvsr.benchmark.quick import quick_benchmark
    from skipvsr.checkpoints.load import load_any_model

    model = load_any_model(args.model, device=args.device)
    with _bar(args, "measuring") as tell:
        found = quick_benchmark(model, device=args.device, precision=args.precision, on_progress=tell)
    if args.json:
        print_event("report", model=args.model, **asdict(found))
    else:
        print(table(args.model, found))


def table(model: str, found: QuickBenchmark) -> str:
    """A row for each preset, a column for each size."""
    sizes = list(dict.fromkeys((speed.width, speed.height) for speed in found.speeds))
    by_place = {(speed.preset, speed.width, speed.height): speed for speed in found.speeds}
    lines = [
        f"{model} in {found.precision} on {_where(found.machine, found.device)}",
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
