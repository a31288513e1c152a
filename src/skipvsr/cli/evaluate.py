"""`skipvsr evaluate CLIPS`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skipvsr.cli.choices import (
    DATASETS,
    DEGRADATIONS,
    EVALUATION_LOOKAHEAD,
    EVALUATION_WINDOW,
    LR_KINDS,
    PRECISIONS,
    RUNTIMES,
    SCALES,
    TILINGS,
)
from skipvsr.cli.show import add_json, print_event, progress_bar
from skipvsr.errors import ConfigError

if TYPE_CHECKING:
    from skipvsr.data.clips import Clip
    from skipvsr.evaluation.results import Evaluation, ProcessGroup
    from skipvsr.evaluation.scores import Row
    from skipvsr.evaluation.settings import Setting

_COLUMNS = (
    ("setting", ""), ("PSNR RGB", ".3f"), ("SSIM RGB", ".4f"), ("PSNR Y", ".3f"), ("SSIM Y", ".4f"), ("temporal", ".3f"),
    ("seams", ".3f"), ("GMAC/frame", ".2f"), ("blocks", ".1%"), ("s/frame", ".3f"), ("MiB", ".0f"),
)  # fmt: skip


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="measure PSNR, SSIM, cost and time of a model",
        description="Run a model at any number of settings on clips with ground truth. The clips are high-resolution; "
        "their low-resolution frames are made by a degradation, or come with the dataset (--lr). With --output, an "
        "interrupted evaluation continues where it stopped.",
    )
    parser.add_argument("clips", metavar="CLIPS", type=Path, help="the folder of a dataset, or any folder of clips")
    parser.add_argument(
        "--dataset", choices=DATASETS, default="folder", metavar="NAME",
        help=f"how the folder is laid out: {', '.join(DATASETS)} (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--degradation", choices=DEGRADATIONS, default="bi", help="how low-resolution frames are made (%(default)s)"
    )
    parser.add_argument("--lr", choices=LR_KINDS, help="use the low-resolution frames that come with the dataset")
    parser.add_argument("--model", default="compact", help="as for upscale, or 'bicubic' (%(default)s)")
    parser.add_argument("--scale", type=int, choices=SCALES, help="of bicubic (4); a model has its own")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (auto: a GPU if there is one)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="as for upscale, but as the model is stored unless it is said: fp32"
    )
    parser.add_argument("--runtime", choices=RUNTIMES, default="torch", help="as for upscale (%(default)s)")
    parser.add_argument("--no-rest", action="store_true", help="as for upscale")
    _add_settings(parser.add_argument_group("settings, one row each (every block runs, if none is given)"))
    _add_measures(parser.add_argument_group("measures"))

    output = parser.add_argument_group("output")
    output.add_argument("--parts", action="store_true", help="also show the cost and time of each part of the network")
    output.add_argument(
        "--output", type=Path, metavar="FILE",
        help="write every number of every clip and frame to this file, as JSON; continue from it if it exists",
    )  # fmt: skip
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to this file")
    output.add_argument(
        "--csv", type=Path, metavar="FILE", help="write one line for each setting and clip to this file"
    )
    output.add_argument("--overwrite", action="store_true", help="measure everything again, whatever is in --output")
    add_json(output)
    parser.set_defaults(command=command)
    return parser


def _add_settings(group: Any) -> None:
    group.add_argument(
        "--budget", type=float, nargs="+", default=[], metavar="B", help="ratio of the residual blocks' work, up to 1"
    )
    group.add_argument(
        "--threshold", type=float, nargs="+", default=[], metavar="A", help="run a block where its score is above this"
    )
    group.add_argument(
        "--policy", nargs="+", default=[], metavar="NAME:RATIO",
        help="full, budget-frame:0.5, gradient:0.5, random:0.5, uniform:0.5, shallow:0.5, deep:0.5, oracle:0.5, "
        "oracle-blocks:0.5",
    )  # fmt: skip
    group.add_argument(
        "--tiling", nargs="+", choices=TILINGS, default=["frame"], help="tiles of whole frames, or isolated patches"
    )
    group.add_argument(
        "--tile-size", type=int, metavar="PX", help="longest side of a tile (the one the model was calibrated with)"
    )


def _add_measures(group: Any) -> None:
    group.add_argument("--frames", type=int, default=0, metavar="N", help="only the first N frames of each clip (all)")
    group.add_argument(
        "--most", type=int, default=0, metavar="N", help="only N clips, spread evenly over the folder (all)"
    )
    group.add_argument(
        "--crop-border", type=int, default=0, metavar="PX", help="leave this many pixels out at each side (%(default)s)"
    )
    group.add_argument("--no-quantize", action="store_true", help="do not round results to 8 bit before measuring")
    group.add_argument("--no-ssim", action="store_true", help="PSNR only, which is much faster")
    group.add_argument(
        "--window", type=int, default=EVALUATION_WINDOW, metavar="N",
        help="frames per window; longer clips are streamed (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--lookahead", type=int, default=EVALUATION_LOOKAHEAD, metavar="N",
        help="frames beyond a window at which the backward recurrence starts (%(default)s)",
    )  # fmt: skip


def command(args: argparse.Namespace) -> None:
    """Evaluate, and show the table."""
    from skipvsr.data.datasets import find_clips
    from skipvsr.data.pairs import spread
    from skipvsr.evaluation.results import ProcessGroup

    if min(args.frames, args.most, args.crop_border) < 0:
        raise ConfigError("--frames, --most and --crop-border must be 0 or more")
    group = ProcessGroup.of_launcher(cpu=args.device == "cpu")
    clips = find_clips(args.dataset, args.clips, lr=args.lr)
    clips = spread(clips, args.most) if args.most else clips
    settings = _settings(args)
    rows = _measure(args, _evaluation(args, clips, group), settings, len(clips), group)
    if group.index == 0:  # the first process shows and writes
        _show(args, settings, rows, clips)


def _evaluation(args: argparse.Namespace, clips: list[Clip], group: ProcessGroup) -> Evaluation:
    from skipvsr.checkpoints.load import load_any_model
    from skipvsr.data.pairs import Pairs
    from skipvsr.evaluation.measures import Measures
    from skipvsr.evaluation.results import Evaluation
    from skipvsr.inference.windows import Windows

    windows = Windows(args.window, args.lookahead)
    if args.runtime != "torch" and args.device not in ("auto", "cpu"):
        raise ConfigError("evaluate measures the OpenVINO runtime on the CPU; leave --device out")
    model = load_any_model(args.model, device=args.device, scale=args.scale)
    measures = Measures(
        args.crop_border, not args.no_quantize, not args.no_ssim, args.dataset == "vimeo-test", args.frames, args.tile_size,
        windows.window, windows.lookahead, args.runtime, args.precision, not args.no_rest,
    )  # fmt: skip
    return Evaluation(
        args.model, model, args.dataset, clips, Pairs(args.degradation, args.lr is not None, model.scale), measures=measures,
        path=args.output, overwrite=args.overwrite,
        command="skipvsr " + " ".join(shlex.quote(word) for word in sys.argv[1:]), group=group,
    )  # fmt: skip


def _settings(args: argparse.Namespace) -> list[Setting]:
    from skipvsr.evaluation.settings import Setting, parse_setting

    found = []
    for tiling in args.tiling:
        found += [Setting("budget", value, tiling) for value in args.budget]
        found += [Setting("threshold", value, tiling) for value in args.threshold]
        found += [parse_setting(text, tiling) for text in args.policy]
        if not (args.budget or args.threshold or args.policy):
            found.append(Setting("full", 1.0, tiling))
    return list(dict.fromkeys(found))


def _measure(
    args: argparse.Namespace, evaluation: Evaluation, settings: list[Setting], clips: int, group: ProcessGroup
) -> list[Row]:
    rows: list[Row] = []
    total = len(settings) * clips
    with progress_bar("clips", hidden=args.json or group.index > 0, total=total) as bar:
        for setting in settings:

            def advance(name: str, label: str = setting.label) -> None:
                bar.set_description(f"{label}: {name}")
                bar.update(group.size)
                if args.json and group.index == 0:
                    print_event("progress", setting=label, clip=name)

            rows.append(evaluation.row(setting, advance))
    return rows


def _show(args: argparse.Namespace, settings: list[Setting], rows: list[Row], clips: list[Clip]) -> None:
    from skipvsr.evaluation.results import markdown, parts_table
    from skipvsr.video.files import write_whole

    degradation = f"own {args.lr}" if args.lr else args.degradation
    table = [tuple(name for name, _ in _COLUMNS)]
    table += [_cells(setting, row) for setting, row in zip(settings, rows, strict=True)]
    parts = {setting.label: parts_table(row) for setting, row in zip(settings, rows, strict=True)} if args.parts else {}
    if args.markdown is not None:
        more = "".join(f"\n{label}, per frame\n\n{markdown(lines)}" for label, lines in parts.items())
        write_whole(args.markdown, markdown(table) + more)
    if args.csv is not None:
        _write_csv(args.csv, rows)
    if args.json:
        plain = [{"setting": setting.label, **row.to_dict()} for setting, row in zip(settings, rows, strict=True)]
        for row in plain:
            row["clips"] = [clip["clip"] for clip in row["clips"]]  # every number of each is in --output
        print_event("report", model=args.model, dataset=args.dataset, degradation=degradation, rows=plain)
        return
    print(f"{args.model} on {len(clips)} clips of {args.dataset}, {degradation}")
    _print_table(table)
    for label, lines in parts.items():
        print(f"\n{label}, per frame")
        _print_table(lines)


def _write_csv(path: Path, rows: list[Row]) -> None:
    """One line for each setting and clip."""
    import csv
    import io
    from statistics import mean

    from skipvsr.video.files import write_whole

    text = io.StringIO()
    writer = csv.writer(text)
    names = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y", "temporal_error", "seams")
    plain = ("active_ratio", "decision_flicker", "gmacs_per_frame", "seconds_per_frame", "peak_bytes")
    writer.writerow(["policy", "value", "tiling", "clip", "frames", *names, *plain])
    for row in rows:
        for clip in row.clips:
            means = [mean(values) if (values := getattr(clip, name)) else "" for name in names]
            known = [getattr(clip, name) for name in plain]
            writer.writerow([row.policy, row.value, row.tiling, clip.clip, clip.frames, *means, *known])
    write_whole(path, text.getvalue())


def _cells(setting: Setting, row: Row) -> tuple[str, ...]:
    values = (
        setting.label, row.psnr_rgb, row.ssim_rgb, row.psnr_y, row.ssim_y, row.temporal_error, row.seams,
        row.gmacs_per_frame, row.active_ratio, row.seconds_per_frame, row.peak_bytes / 2**20,
    )  # fmt: skip
    return tuple(
        "" if value is None else format(value, form) for value, (_, form) in zip(values, _COLUMNS, strict=True)
    )


def _print_table(lines: list[tuple[str, ...]]) -> None:
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *cells]).rstrip())
