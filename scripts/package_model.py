"""Package the best model of a run of `skipvsr train`, with a card that says how it was made and what it reaches.

python scripts/package_model.py runs/compact src/skipvsr/weights/compact --commit COMMIT --config configs/compact/compact.toml
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from mean_of_models import mean_weights
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import Checkpoint, build, read_folder, save_folder
from skipvsr.data.degradations import Degradation
from skipvsr.data.pairs import lr_clips, lr_gt_clip
from skipvsr.evaluation.calibrate import calibrate
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.evaluation.metrics import psnr_y, quantize
from skipvsr.evaluation.ranges import measure_ranges
from skipvsr.models.resize import bicubic_upsample, lanczos_upsample
from skipvsr.models.router import Calibration
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import TrainingConfig, read_config
from skipvsr.training.data import gather_clips
from skipvsr.training.flow import FlowStage
from skipvsr.training.imitation import ImitationStage
from skipvsr.training.settings import Optimisation
from skipvsr.training.state import read_finished

UNITS = {
    "psnr_y": "luma PSNR, dB",
    "psnr_rgb": "RGB PSNR, dB",
    "psnr_y_0.5": "luma PSNR at half the blocks, dB",
    "psnr_y_0.25": "at a quarter, dB",
    "warping_error": "warping error, levels of 255",
}


def main() -> None:
    args = parse_arguments()
    config = read_config(args.config)
    stages = [args.run / f"{index}-{stage.kind}" for index, stage in enumerate(config.stages)]
    stages = [
        folder for folder in stages if (folder / "best").is_dir()
    ]  # a run may not have come to its last stage yet
    config = replace(config, stages=config.stages[: len(stages)])
    logs = [read_validations(folder / "log.jsonl") for folder in stages]
    checkpoint = read_folder(stages[-1] / "best")
    if args.mean:
        checkpoint = replace(
            checkpoint,
            weights=mean_weights(checkpoint.weights, load_model(args.mean, device="cpu").state_dict(), args.weight),
        )
    dtype = torch.float16 if args.half else torch.float32
    stored = {name: weights.to(dtype).float() for name, weights in checkpoint.weights.items()}
    network = build(replace(checkpoint, weights=stored)).requires_grad_(requires_grad=False)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - the stubs forget it
    scale = checkpoint.config.scale
    degradations: list[Degradation] = config.validation.degradations or [config.data.degradation]
    networks = {args.destination.name: network} | {name: load_model(name) for name in args.against}
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        scores = {kind: score_all(config, kind, scale, networks) for kind in degradations}
    provenance = describe_training(args, config, logs) | {"validation": describe_scores(scores, args.destination.name)}
    if args.bf16:
        provenance["validation"]["precision"] = "bf16"
    table = ranges = None
    if args.calibrate is not None:
        clips = lr_clips(
            args.calibrate,
            config.data.degradation,
            frames=args.calibrate_frames,
            most=args.calibrate_clips,
            scale=scale,
        )
        table = calibrate(network, clips, args.tile_size, least_backward=args.least_backward)
        ranges = measure_ranges(network, clips)
        provenance["calibration"] = (
            f"{len(clips)} clips x {args.calibrate_frames} frames of {args.calibrate.as_posix()}"
        )
    card = write_card(args.destination.name, args.about, config, checkpoint, provenance, scores, logs, table)
    save_folder(
        Checkpoint(checkpoint.config, checkpoint.weights, provenance, table, ranges),
        args.destination, card=card, dtype=dtype, overwrite=True,
    )  # fmt: skip
    print(json.dumps(provenance, indent=2))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Package the best model of a training run.")
    parser.add_argument("run", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--config", type=Path, required=True, help="that was trained")
    parser.add_argument("--commit", required=True, help="of the code that trained it")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="as it was given to skipvsr train")
    parser.add_argument("--calibrate", type=Path, help="folder of clips to calibrate the router on")
    parser.add_argument("--calibrate-clips", type=int, default=24, help="at most so many of them (%(default)s)")
    parser.add_argument("--calibrate-frames", type=int, default=12, help="the first so many of each (%(default)s)")
    parser.add_argument(
        "--least-backward", type=int, default=0, help="backward blocks that budgets leave (%(default)s)"
    )
    parser.add_argument("--tile-size", type=int, default=24, help="tiles it is calibrated for (%(default)s)")
    parser.add_argument("--half", action="store_true", help="store fp16")
    parser.add_argument("--bf16", action="store_true", help="measure quality in bf16, where fp32 would take hours")
    parser.add_argument("--mean", default="", help="package the mean of the run's model and of this one")
    parser.add_argument("--weight", type=float, default=0.5, help="of that one in the mean (%(default)s)")
    parser.add_argument("--against", nargs="*", default=[], help="packaged models to put beside it in the card")
    parser.add_argument("--about", default="", help="a paragraph for the card: what it is for")
    return parser.parse_args()


def describe_training(args: argparse.Namespace, config: TrainingConfig, logs: list[list[dict]]) -> dict[str, Any]:
    """Command, commit, iterations and data: where the weights come from."""
    return {
        "command": " ".join(["skipvsr train", args.config.as_posix(), *(f"--set {text}" for text in args.overrides)]),
        "commit": args.commit,
        "iterations": {stage.kind: log[-1]["step"] for stage, log in zip(config.stages, logs, strict=True)},
        "time": {
            stage.kind: text
            for index, stage in enumerate(config.stages)
            if (text := read_time(args.run / f"{index}-{stage.kind}"))
        },
        "data": describe_data(config),
        **({"mean": f"{args.weight:g} of {args.mean} at commit {args.commit}"} if args.mean else {}),
    }


def describe_scores(scores: dict[str, dict[str, dict[str, float]]], name: str) -> dict[str, Any]:
    """Luma PSNR on the validation clips at the first degradation, of the network and of bicubic."""
    first = next(iter(scores))
    bicubic, reached = scores[first]["bicubic"], scores[first][name]
    return {
        "luma_psnr": round(mean(reached.values()), 3),
        "luma_psnr_of_bicubic": round(mean(bicubic.values()), 3),
        "clips": {clip: round(value, 3) for clip, value in reached.items()},
        **({} if list(scores) == ["bi"] else {"degradation": first}),
    }


def describe_data(config: TrainingConfig) -> str:
    """What was trained on, in a line."""
    data = config.data
    clips = ", ".join(source.root for source in data.train)
    stills = f", and {data.stills_ratio:.0%} photographs in synthetic motion ({data.stills})" if data.stills else ""
    return f"{clips}{stills}; {data.degradation}"


def read_validations(path: Path) -> list[dict]:
    """The validation rows of a stage's log, one a step (a stage that was resumed may have logged a step twice)."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return list({row["step"]: row for row in rows if "validation" in row}.values())


@torch.inference_mode()
def score_all(
    config: TrainingConfig, degradation: Degradation, scale: int, networks: dict[str, SkipVSR]
) -> dict[str, dict[str, float]]:
    """Luma PSNR in dB on each validation clip, all of its frames, of bicubic, Lanczos and each network."""
    upscalers: dict[str, Callable[[Tensor], Tensor]] = {
        "bicubic": lambda lr: bicubic_upsample(lr, scale),
        "lanczos": lambda lr: lanczos_upsample(lr, scale),
    }
    for name, network in networks.items():
        upscalers[name] = lambda lr, network=network: network(lr[None])[0].float()
    scores: dict[str, dict[str, float]] = {name: {} for name in upscalers}
    for clip in gather_clips(config.validation.clips):
        lr, gt = lr_gt_clip(clip, degradation, scale=scale)
        for name, upscale in upscalers.items():
            scores[name][clip.name] = psnr_y(quantize(upscale(lr)), gt).mean().item()
    return scores


def read_time(folder: Path) -> str:
    """How long a stage took and on what, in words; empty where it is not finished, or an older version trained it."""
    finished = read_finished(folder) or {}
    if "seconds" not in finished:
        return ""
    minutes = finished["seconds"] / 60
    return f"{f'{minutes:.1f} minutes' if minutes < 6 else f'{minutes / 60:.1f} hours'} on {finished['machine']}"


def time_taken(provenance: dict, kind: str) -> str:
    """The same in the middle of a sentence."""
    text = provenance["time"].get(kind)
    return f"; {text}" if text else ""


def schedule(settings: Optimisation) -> str:
    """How the learning rate goes on, in words."""
    words = " with a cosine" if settings.final_learning_rate < settings.learning_rate else ", constant"
    return f"{words}, weights averaged at {settings.ema:g}" if settings.ema else words


def write_card(
    name: str, about: str, config: TrainingConfig, checkpoint: Checkpoint, provenance: dict,
    scores: Mapping[str, dict[str, dict[str, float]]], logs: list[list[dict]], table: Calibration | None,
) -> str:  # fmt: skip
    """The model card, in Markdown."""
    network = checkpoint.config
    parameters = sum(weights.numel() for weights in checkpoint.weights.values())
    router = {"none": "no router", "gain": "our router", "paper": "the paper's router"}[network.router]
    lines = [
        "---", "library_name: skipvsr", "license: apache-2.0", "pipeline_tag: video-to-video",
        "tags:", "- video-super-resolution", "- skipvsr", "---",
        f"# {name}", "",
        f"Video super-resolution x{network.scale}: BasicVSR of {network.channels} channels, {network.blocks} residual blocks a "
        f"direction, {network.flow} flow, {network.reconstruction} reconstruction, {router}; {parameters:,} parameters, "
        f"{cost_per_frame(network, 180, 320).total / 1e9:.1f} GMAC per 180x320 frame.", "",
        *([about, ""] if about else []),
        "## How it was made", "",
        f"    {provenance['command']}", "",
        f"at commit {provenance['commit']}, seed {config.seed}. Data: {provenance['data']}.",
    ]  # fmt: skip
    for stage, log in zip(config.stages, logs, strict=True):
        settings = stage.optimisation
        frames = "pairs" if isinstance(stage, FlowStage | ImitationStage) else f"clips x {stage.frames} frames"
        lines += [
            "", f"**{stage.kind}**: {log[-1]['step']:,} steps of {settings.batch} {frames} x {settings.crop} LR px, "
            f"Adam {settings.learning_rate:g}{schedule(settings)}{time_taken(provenance, stage.kind)}.", "",
        ]  # fmt: skip
        measures = list(log[0]["validation"])
        lines += [
            "| step | " + " | ".join(UNITS.get(str(measure), str(measure)) for measure in measures) + " |",
            "|---" * (len(measures) + 1) + "|",
        ]
        lines += [
            f"| {row['step']:,} | " + " | ".join(f"{row['validation'][measure]:.3f}" for measure in measures) + " |"
            for row in log
        ]
    if config.validation.frames:
        lines += ["", f"(Validation while training: the first {config.validation.frames} frames of each clip.)"]
    if "mean" in provenance:
        lines += ["", f"What is packaged is the mean of these weights and of others: {provenance['mean']}."]
    lines += [
        "", "## What it reaches", "",
        "Luma PSNR in dB (BT.601, frames averaged per clip, prediction rounded to 8 bit) on clips that no training saw. "
        "Bicubic is MATLAB's, Lanczos has three lobes; the gain is that over bicubic. `h264-23` is `bi` and then H.264 at "
        f"CRF 23 (docs/datasets.md).{' Networks ran in bf16.' if 'precision' in provenance['validation'] else ''}", "",
        *(line for kind, rows in scores.items() for line in table_of(name, kind, rows)),
        *(["## The dial", "",
           f"Thresholds of each budget for tiles of at most {table.tile_px} px, measured on {provenance['calibration']}:",
           "", "| budget | threshold |", "|---|---|",
           *(f"| {budget:g} | {threshold:.4g} |"
             for budget, threshold in zip(table.budgets, table.thresholds, strict=True)), ""]
          if table is not None else []),
    ]  # fmt: skip
    return "\n".join(lines)


def table_of(name: str, degradation: str, scores: dict[str, dict[str, float]]) -> list[str]:
    """The scores under one degradation, in Markdown: a line for each clip, and their mean."""
    ours, base = scores[name], scores["bicubic"]
    rows = {clip: {column: values[clip] for column, values in scores.items()} for clip in ours}
    rows["**mean**"] = {column: mean(values.values()) for column, values in scores.items()}
    gain = mean(ours.values()) - mean(base.values())
    return [
        f"**{degradation}: {gain:+.2f} dB over bicubic**", "",
        f"| clip | {' | '.join(scores)} | gain |", "|---" * (len(scores) + 2) + "|",
        *(f"| {clip} | {' | '.join(f'{value:.2f}' for value in row.values())} | {row[name] - row['bicubic']:+.2f} |"
          for clip, row in rows.items()), "",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
