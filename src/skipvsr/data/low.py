"""Whole low-resolution clips, made from the high-resolution ones of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skipvsr.data.clips import Clip
from skipvsr.data.datasets import find_clips
from skipvsr.data.degradations import SCALE, Degradation, degrade


def low_and_high(clip: Clip, degradation: Degradation, frames: int = 0) -> tuple[Tensor, Tensor]:
    """A clip as LR (T, 3, H, W) and HR (T, 3, 4H, 4W), RGB in [0, 1]; sides are cut to multiples of 4.

    Args:
        clip: the high-resolution clip.
        degradation: how LR comes about, rounded to 8 bit; its random draws are the same for every clip.
        frames: the first so many frames; 0: all.

    Raises:
        DataError: a frame does not decode.
    """
    count = min(frames or clip.length, clip.length)
    high = torch.from_numpy(clip.read(0, count)).permute(0, 3, 1, 2).float() / 255
    height, width = (side // SCALE * SCALE for side in high.shape[-2:])
    high = high[..., :height, :width]
    return degrade(high, degradation, np.random.default_rng(0)), high


def low_clips(folder: Path, degradation: Degradation, *, frames: int, most: int) -> list[Tensor]:
    """LR clips of a folder, spread evenly over it where it has more than `most`. Raises DataError."""
    clips = find_clips("folder", folder)
    chosen = [clips[index] for index in sorted({round(i) for i in np.linspace(0, len(clips) - 1, most)})]
    return [low_and_high(clip, degradation, frames)[0] for clip in chosen]
