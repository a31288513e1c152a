"""Decoded frames of clips and photographs, kept in memory up to a stated size."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from skipvsr.data.clips import Clip
from skipvsr.data.degradations import FRAMEWISE, SCALE, degrade
from skipvsr.errors import DataError
from skipvsr.models.resize import bicubic_downsample

# "given": the dataset's own LR frames.
LRSource = Literal["bi", "bd", "bd-duf", "video", "given"]


@dataclass(frozen=True)
class Window:
    """Some frames of a clip: gt (T, 3, H, W) uint8 and lr (T, 3, H / s, W / s) with the scale s, None if it is not at hand."""

    gt: Tensor
    lr: Tensor | None


@dataclass(frozen=True)
class CacheUse:
    """What a cache holds, out of how many, and how much memory that is."""

    resident: int
    clips: int
    used_bytes: int
    max_bytes: int

    def __str__(self) -> str:
        gib = 2**30
        return (
            f"{self.resident} of {self.clips} decoded in memory, "
            f"{self.used_bytes / gib:.2f} of at most {self.max_bytes / gib:.2f} GiB"
        )


class ClipCache:
    """Reads windows of clips; whole clips are decoded at their first use and stay while they fit.

    Nothing is thrown out again: at random access over more clips than fit, every replacement policy has the same hit
    rate. What comes out does not depend on what is resident, but for the device it lies on. Safe to use from several threads.

    Args:
        clips: what to read; sides are cut to multiples of the scale at the bottom and on the right.
        lr: how LR comes about.
        max_bytes: the most that decoded frames, HR and LR, may take.
        scale: how many times smaller the LR frames are.
        device: whose memory keeps them.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        lr: LRSource,
        max_bytes: int,
        scale: int = SCALE,
        device: torch.device | str = "cpu",
    ) -> None:
        self.clips = tuple(clips)
        self.scale = scale
        self.device = torch.device(device)
        self.lr: LRSource = lr
        self.max_bytes = max_bytes
        self._resident: dict[int, Window] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._reserved: set[int] = set()
        self._used_bytes = 0
        self._lock = threading.Lock()

    @property
    def use(self) -> CacheUse:
        return CacheUse(len(self._resident), len(self.clips), self._used_bytes, self.max_bytes)

    def size(self, index: int) -> tuple[int, int]:
        """LR height and width of a clip; reads its first frame if it was not read before."""
        if index not in self._sizes:
            height, width = self.clips[index].read(0, 1).shape[1:3]
            minimum = 2 * self.scale
            if min(height, width) < minimum:
                raise DataError(
                    f"{self.clips[index].gt}: frames are {width}x{height}; at least {minimum}x{minimum} is needed"
                )
            self._sizes[index] = (height // self.scale, width // self.scale)
        return self._sizes[index]

    def window(self, index: int, start: int, frames: int) -> Window:
        """Frames start to start + frames of a clip; views of resident memory where there is some."""
        held = self._resident.get(index)
        if held is None and self._reserve(index):
            held = self._load(index)
        if held is None:
            return self._read(index, start, frames)
        span = slice(start, start + frames)
        return Window(held.gt[span], None if held.lr is None else held.lr[span])

    def preload(self) -> CacheUse:
        """Decode clips in order until memory is full; without it, they are decoded as they are first asked for."""
        for index in range(len(self.clips)):
            if index not in self._resident and self._reserve(index):
                self._load(index)
        return self.use

    def _needed_bytes(self, index: int) -> int:
        height, width = self.size(index)
        return 3 * self.clips[index].length * height * width * (self.scale**2 + (0 if self.lr == "video" else 1))

    def _reserve(self, index: int) -> bool:
        """Set the memory of a clip aside, once; False if there is not enough or another thread is loading it."""
        needed = self._needed_bytes(index)
        with self._lock:
            if index in self._reserved or self._used_bytes + needed > self.max_bytes:
                return False
            self._reserved.add(index)
            self._used_bytes += needed
            return True

    def _load(self, index: int) -> Window:
        try:
            whole = self._read(index, 0, self.clips[index].length)
            if self.lr in FRAMEWISE:
                whole = Window(whole.gt, _degrade_frames(whole.gt, self.lr, self.scale))
            whole = Window(whole.gt.to(self.device), None if whole.lr is None else whole.lr.to(self.device))
        except BaseException:
            with self._lock:
                self._reserved.remove(index)
                self._used_bytes -= self._needed_bytes(index)
            raise
        self._resident[index] = whole
        return whole

    def _read(self, index: int, start: int, frames: int) -> Window:
        clip = self.clips[index]
        (height, width), scale = self.size(index), self.scale
        gt = _planes(clip.read(start, frames))[..., : scale * height, : scale * width]
        if gt.shape[-2:] != (scale * height, scale * width):
            raise DataError(f"{clip.gt}: frames {start} to {start + frames - 1} are smaller than its first frame")
        if self.lr != "given":
            return Window(gt.contiguous(), None)
        lr = _planes(clip.read_lr(start, frames))
        if lr.shape[-2:] != (height, width):
            raise DataError(
                f"{clip.lr}: LR frames are {lr.shape[-1]}x{lr.shape[-2]}; "
                f"HR of {clip.name} asks for {width}x{height}, 1/{scale} of its sides"
            )
        return Window(gt.contiguous(), lr.contiguous())


class StillCache:
    """Photographs at full and half size, (3, H, W) uint8 each, decoded at their first use while they fit."""

    def __init__(self, stills: Sequence[Clip], max_bytes: int) -> None:
        self.stills = tuple(stills)
        self.max_bytes = max_bytes
        self._resident: dict[int, tuple[Tensor, Tensor]] = {}
        self._used_bytes = 0
        self._lock = threading.Lock()

    @property
    def use(self) -> CacheUse:
        return CacheUse(len(self._resident), len(self.stills), self._used_bytes, self.max_bytes)

    def sizes(self, index: int) -> tuple[Tensor, Tensor]:
        """A photograph, and the same at half its size for sharper, wider views."""
        if index in self._resident:
            return self._resident[index]
        full = _planes(self.stills[index].read(0, 1))[0]
        full = full[:, : full.shape[1] // 2 * 2, : full.shape[2] // 2 * 2].contiguous()
        half = (bicubic_downsample(full.float(), 2).clamp(0, 255)).round().byte()
        needed = full.numel() + half.numel()
        with self._lock:
            if index not in self._resident and self._used_bytes + needed <= self.max_bytes:
                self._used_bytes += needed
                self._resident[index] = (full, half)
        return full, half

    def preload(self) -> CacheUse:
        for index in range(len(self.stills)):
            self.sizes(index)
        return self.use


def _planes(frames: np.ndarray) -> Tensor:
    """(T, H, W, 3) uint8 array -> (T, 3, H, W) tensor of the same memory."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def _degrade_frames(gt: Tensor, kind: LRSource, scale: int) -> Tensor:
    """LR of every frame, one at a time to keep memory low: (T, 3, H, W) uint8 -> (T, 3, H / s, W / s) uint8."""
    assert kind in FRAMEWISE
    frames = (degrade(frame[None].float() / 255, kind, scale=scale) for frame in gt)
    return torch.cat([(frame * 255).round().byte() for frame in frames])
