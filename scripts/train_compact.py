"""Train the first packaged model, `compact`, with a plain loop.

    python scripts/train_compact.py --data ../shared/data --out runs/compact --steps 2500

Random crops of LR 48x48 over 7 frames, antialiased bicubic x1/4, Charbonnier, Adam, cosine. Flow is learnt only through
the reconstruction loss. All clips are decoded into memory (1.1 GB). Continues from OUT/last.pt where there is one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from skipvsr.evaluation.metrics import psnr_y, quantise
from skipvsr.models.resize import bicubic_downsample, bicubic_upsample
from skipvsr.models.vsr import SkipVSR, VSRConfig

SCALE = 4


def read_clip(path: Path) -> Tensor:
    """A whole clip as (T, 3, H, W) uint8, sides cut to multiples of 4."""
    with av.open(str(path)) as container:
        frames = [
            frame.to_ndarray(format="rgb24", src_colorspace="ITU709", src_color_range="MPEG", dst_color_range="JPEG")
            for frame in container.decode(video=0)
        ]
    clip = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    return clip[..., : clip.shape[-2] // SCALE * SCALE, : clip.shape[-1] // SCALE * SCALE].contiguous()


def degrade(clip: Tensor) -> Tensor:
    """(T, 3, H, W) uint8 -> (T, 3, H/4, W/4) uint8."""
    return (bicubic_downsample(clip.float() / 255).clamp(0, 1) * 255).round().byte()


class Crops:
    """Random aligned crops of clips: LR (B, T, 3, c, c) and HR (B, T, 3, 4c, 4c), floats in [0, 1]."""

    def __init__(self, clips: list[Tensor], batch: int, frames: int, crop: int, seed: int) -> None:
        self.clips = clips
        self.low = [degrade(clip) for clip in clips]
        self.batch, self.frames, self.crop = batch, frames, crop
        self.generator = np.random.default_rng(seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        pairs = [self._one() for _ in range(self.batch)]
        low, high = (torch.stack(side).float() / 255 for side in zip(*pairs, strict=True))
        return low, high

    def _one(self) -> tuple[Tensor, Tensor]:
        random = self.generator
        index = int(random.integers(len(self.clips)))
        high, low = self.clips[index], self.low[index]
        t = int(random.integers(low.shape[0] - self.frames + 1))
        y = int(random.integers(low.shape[2] - self.crop + 1))
        x = int(random.integers(low.shape[3] - self.crop + 1))
        flips = [dim for dim in (0, 2, 3) if random.random() < 0.5]
        transpose = random.random() < 0.5

        def cut(clip: Tensor, scale: int) -> Tensor:
            rows = slice(scale * y, scale * (y + self.crop))
            columns = slice(scale * x, scale * (x + self.crop))
            part = clip[t : t + self.frames, :, rows, columns].flip(flips)
            return part.transpose(2, 3) if transpose else part

        return cut(low, 1), cut(high, SCALE)


def charbonnier(prediction: Tensor, target: Tensor, epsilon: float = 1e-6) -> Tensor:
    return torch.sqrt((prediction - target).square() + epsilon**2).mean()


@torch.inference_mode()
def validate(model: SkipVSR, clips: dict[str, Tensor]) -> dict[str, float]:
    """Mean luma PSNR over the frames of each clip."""
    scores = {}
    for name, clip in clips.items():
        high = clip.float() / 255
        low = degrade(clip).float() / 255
        scores[name] = psnr_y(model(low[None])[0], high).mean().item()
    return scores


def bicubic_scores(clips: dict[str, Tensor]) -> dict[str, float]:
    scores = {}
    for name, clip in clips.items():
        low = degrade(clip).float() / 255
        scores[name] = psnr_y(quantise(bicubic_upsample(low)), clip.float() / 255).mean().item()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the first packaged model.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "log.jsonl").open("a")

    def say(**values: object) -> None:
        print(values, flush=True)
        print(json.dumps(values), file=log, flush=True)

    torch.manual_seed(args.seed)
    model = SkipVSR(VSRConfig(channels=32, blocks=8, flow="light", tail="light"))
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - the stubs forget it
    optimiser = torch.optim.Adam(model.parameters(), lr=args.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / args.steps, 1.0)))
    )
    crops = Crops(
        [read_clip(path) for path in sorted((args.data / "train" / "clips").glob("*.mp4"))],
        batch=4, frames=7, crop=48, seed=args.seed,
    )  # fmt: skip
    held_out = {path.stem: read_clip(path) for path in sorted((args.data / "val").glob("*.mp4"))}
    start = 0
    last = args.out / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        start = saved["step"]
        crops.generator = np.random.default_rng([args.seed, start])
    else:
        baseline = bicubic_scores(held_out)
        say(step=0, bicubic_psnr_y=sum(baseline.values()) / len(baseline), clips=baseline)

    began, losses = time.time(), []
    for step in range(start + 1, args.steps + 1):
        low, high = crops.draw()
        loss = charbonnier(model(low), high)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0:
            rate = (step - start) / (time.time() - began)
            say(step=step, loss=sum(losses) / len(losses), steps_per_second=rate)
            losses = []
        if step % 250 == 0 or step == args.steps:
            scores = validate(model, held_out)
            say(step=step, psnr_y=sum(scores.values()) / len(scores), clips=scores)
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            torch.save({**state, "schedule": schedule.state_dict()}, last.with_suffix(".new"))
            last.with_suffix(".new").replace(last)


if __name__ == "__main__":
    main()
