"""`skipvsr evaluate CLIPS...`."""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from skipvsr.errors import ConfigError

if TYPE_CHECKING:
    from skipvsr.evaluation.evaluate import Row
    from skipvsr.evaluation.settings import Setting

_COLUMNS = (
    ("setting", ""), ("PSNR RGB", ".3f"), ("SSIM RGB", ".4f"), ("PSNR Y", ".3f"), ("SSIM Y", ".4f"), ("temporal", ".3f"),
    ("seams", ".3f"), ("GMAC/frame", ".2f"), ("blocks", ".1%"), ("s/frame", ".3f"), ("MiB", ".0f"),
)  # fmt: skip


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="PSNR, SSIM, cost and time of a model on clips with ground truth",
        description="Run a model at any number of settings on clips with ground truth. Clips are high-resolution: they are "
        "made small by the degradation, or have small versions of their own. Goes on where it stopped, with --json.",
    )
    parser.add_argument("clips", metavar="DIR", type=Path, help="the dataset's folder, or any folder of clips")
    parser.add_argument("--dataset", default="folder", help="folder, reds4, vid4, udm10, vimeo-test ... (%(default)s)")
    parser.add_argument("--degradation", default="bi", help="bi, bd, bd-duf or video (%(default)s)")
    parser.add_argument("--lr", choices=("bi", "bd"), help="use the small frames that the dataset comes with")
    parser.add_argument("--model", default="compact", help="as for upscale, or 'bicubic' (%(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (auto: a GPU if there is one)")

    what = parser.add_argument_group("settings (everything runs, if none is given)")
    what.add_argument("--budget", type=float, nargs="+", default=[], metavar="B")
    what.add_argument("--threshold", type=float, nargs="+", default=[], metavar="A")
    what.add_argument(
        "--policy", nargs="+", default=[], metavar="NAME:share",
        help="full, budget-frame:0.5, gradient:0.5, random:0.5, uniform:0.5, shallow:0.5, deep:0.5, oracle:0.5",
    )  # fmt: skip
    what.add_argument("--tiling", nargs="+", choices=("frame", "patch"), default=["frame"])
    what.add_argument(
        "--tile-size", type=int, metavar="PX", help="most pixels a side of a tile (as the model was calibrated)"
    )

    how = parser.add_argument_group("measures")
    how.add_argument("--frames", type=int, default=0, metavar="N", help="the first so many of each clip (all)")
    how.add_argument("--crop-border", type=int, default=0, metavar="PX", help="leave out at each side (%(default)s)")
    how.add_argument("--no-quantize", action="store_true", help="do not round to 8 bit first")
    how.add_argument("--no-ssim", action="store_true", help="PSNR only, which is much faster")

    how.add_argument("--window", type=int, metavar="N", help="frames per window; longer clips are streamed (128)")
    how.add_argument("--lookahead", type=int, metavar="N", help="frames beyond a window (16)")

    output = parser.add_argument_group("output")
    output.add_argument("--parts", action="store_true", help="also what each part of the network costs and takes")
    output.add_argument(
        "--json", type=Path, metavar="FILE", help="every number per clip and frame; resumed if it exists"
    )
    output.add_argument("--markdown", type=Path, metavar="FILE")
    output.add_argument("--csv", type=Path, metavar="FILE")
    output.add_argument("--overwrite", action="store_true", help="start over")
    parser.set_defaults(command=command)
    return parser


def command(args: argparse.Namespace) -> None:
    """Evaluate, and show the table."""
    from skipvsr.checkpoints.load import load_model
    from skipvsr.data.datasets import find_clips
    from skipvsr.data.degradations import DEGRADATIONS
    from skipvsr.data.pairs import Pairs
    from skipvsr.evaluation.evaluate import LOOKAHEAD, WINDOW, Measures
    from skipvsr.evaluation.results import Evaluation, ProcessGroup, markdown, parts_table, write_text
    from skipvsr.inference.streaming import Windows

    if args.degradation not in DEGRADATIONS:
        raise ConfigError(f"degradation is {args.degradation!r}; it must be one of {', '.join(DEGRADATIONS)}")
    if args.frames < 0 or args.crop_border < 0:
        raise ConfigError("--frames and --crop-border must be 0 or more")
    windows = Windows(
        WINDOW if args.window is None else args.window, LOOKAHEAD if args.lookahead is None else args.lookahead
    )
    group = ProcessGroup.of_launcher(cpu=args.device == "cpu")
    model = None if args.model == "bicubic" else load_model(args.model, device=args.device)
    clips = find_clips(args.dataset, args.clips, lr=args.lr)
    settings = _settings(args)
    measures = Measures(
        args.crop_border, not args.no_quantize, not args.no_ssim, args.dataset == "vimeo-test", args.frames, args.tile_size,
        windows.window, windows.lookahead,
    )  # fmt: skip
    pairs = Pairs(args.degradation, own=args.lr is not None)
    evaluation = Evaluation(
        args.model, model, args.dataset, clips, pairs, measures=measures, path=args.json, overwrite=args.overwrite,
        command="skipvsr " + " ".join(shlex.quote(word) for word in sys.argv[1:]), group=group,
    )  # fmt: skip
    rows: list[Row] = []
    with tqdm(
        total=len(settings) * len(clips), unit=" clips", leave=False, disable=group.index > 0 or not sys.stderr.isatty()
    ) as bar:
        for setting in settings:

            def show(name: str, label: str = setting.label) -> None:
                bar.set_description(f"{label}: {name}")
                bar.update(group.size)

            rows.append(evaluation.row(setting, show))
    if group.index:
        return  # the first process shows and writes
    table = [
        tuple(name for name, _ in _COLUMNS),
        *(_cells(setting, row) for setting, row in zip(settings, rows, strict=True)),
    ]
    print(
        f"{args.model} on {len(clips)} clips of {args.dataset}, {'own ' if pairs.own else ''}{args.lr or args.degradation}"
    )
    _print_table(table)
    text = markdown(table)
    if args.parts:
        for setting, row in zip(settings, rows, strict=True):
            print(f"\n{setting.label}, a frame")
            _print_table(parts_table(row))
            text += f"\n{setting.label}, a frame\n\n{markdown(parts_table(row))}"
    if args.markdown is not None:
        write_text(args.markdown, text)
    if args.csv is not None:
        _write_csv(args.csv, rows)


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


def _write_csv(path: Path, rows: list[Row]) -> None:
    """A line per setting and clip."""
    import io
    from statistics import mean

    from skipvsr.evaluation.results import write_text

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
    write_text(path, text.getvalue())


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
