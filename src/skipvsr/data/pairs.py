"""Whole low-resolution clips, made from the high-resolution ones of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skipvsr.data.clips import Clip, stream_frames
from skipvsr.data.datasets import find_clips
from skipvsr.data.degradations import FRAMEWISE, SCALE, Degradation, degrade
from skipvsr.errors import DataError


def lr_gt_clip(clip: Clip, degradation: Degradation, frames: int = 0, *, scale: int = SCALE) -> tuple[Tensor, Tensor]:
    """A clip as LR (T, 3, H, W) and HR (T, 3, s * H, s * W), RGB in [0, 1]; sides are cut to multiples of the scale s.

    Args:
        clip: the high-resolution clip.
        degradation: how LR comes about, rounded to 8 bit; its random draws are the same for every clip.
        frames: the first so many frames; 0: all.
        scale: how many times smaller LR is.

    Raises:
        DataError: a frame does not decode.
    """
    count = min(frames or clip.length, clip.length)
    gt = _cut(_read(clip.read(0, count)), scale)
    return degrade(gt, degradation, np.random.default_rng(0), scale=scale), gt


@dataclass(frozen=True)
class Pairs:
    """Where the small frames of a clip come from.

    Args:
        degradation: made from the large ones, rounded to 8 bit.
        own: the dataset's own small frames, in the place of made ones.
        scale: how many times smaller they are.
    """

    degradation: Degradation = "bi"
    own: bool = False
    scale: int = SCALE

    def read(self, clip: Clip, frames: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """LR (3, H, W) and HR (3, s * H, s * W) of each frame in order, RGB in [0, 1]; HR sides are cut to multiples of s.

        One frame is in memory at a time, but where an encoder is part of the degradation: it needs the whole clip.

        Raises:
            DataError: a frame does not decode, or the small frames do not fit the large ones.
        """
        count = min(frames or clip.length, clip.length)
        if self.degradation not in FRAMEWISE and not self.own:
            yield from zip(*lr_gt_clip(clip, self.degradation, count, scale=self.scale), strict=True)
            return
        lrs = map(_read, stream_frames(clip.lr, count)) if self.own and clip.lr is not None else None
        for pixels in stream_frames(clip.gt, count):
            gt = _cut(_read(pixels), self.scale)
            if lrs is None:
                yield degrade(gt[None], self.degradation, scale=self.scale)[0], gt
                continue
            lr = next(lrs)
            if lr.shape[-2] * self.scale != gt.shape[-2] or lr.shape[-1] * self.scale != gt.shape[-1]:
                raise DataError(
                    f"clip {clip.name}: small frames are {lr.shape[-1]}x{lr.shape[-2]} and large ones "
                    f"{gt.shape[-1]}x{gt.shape[-2]}; they must be 1/{self.scale} of them"
                )
            yield lr, gt


def _read(pixels: np.ndarray) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels).movedim(-1, -3).float() / 255


def _cut(gt: Tensor, scale: int) -> Tensor:
    height, width = (side // scale * scale for side in gt.shape[-2:])
    return gt[..., :height, :width]


def lr_clips(folder: Path, degradation: Degradation, *, frames: int, most: int, scale: int = SCALE) -> list[Tensor]:
    """LR clips of a folder, spread evenly over it where it has more than `most`. Raises DataError."""
    chosen = spread(find_clips("folder", folder), most)
    return [lr_gt_clip(clip, degradation, frames, scale=scale)[0] for clip in chosen]


def spread(clips: list[Clip], most: int) -> list[Clip]:
    """At most so many of the clips, spread evenly over the list."""
    return [clips[index] for index in sorted({round(i) for i in np.linspace(0, len(clips) - 1, most)})]
