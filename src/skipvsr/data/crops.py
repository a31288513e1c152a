"""Batches of random crops for training: each a pure function of (seed, step, position in the global batch).

So a resumed run sees what it would have seen, and any number of processes, each taking its own positions, see together
what one process would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from skipvsr.data.augment import USUAL, Augmentation, augment
from skipvsr.data.cache import ClipCache, LRSource, StillCache, Window
from skipvsr.data.clips import Clip
from skipvsr.data.degradations import FRAMEWISE, SCALE, Degradation, degrade
from skipvsr.data.motion import CameraPath, MotionRange, draw_path, exact_flow, render
from skipvsr.data.pool import FootagePool, PoolSettings
from skipvsr.errors import ConfigError, DataError

# LR pixels around a crop that are degraded with it and cut off again: the reach of the kernels of BI and BD, and for
# compressed video also that of motion search and of the wider blur.
_MARGIN_PX = 2
_VIDEO_MARGIN_PX = 8
_GIB = 2**30


@dataclass(frozen=True)
class CropSettings:
    """What a batch is made of.

    Attributes:
        batch: crops of the global batch, over all processes.
        frames: frames read per crop.
        crop_px: side of the square LR crop; the HR crop is `scale` times as large.
        lr: how LR comes about: a degradation, or "given" for the dataset's own LR frames, which must then be in the
            phase of BI: crops are mirrored.
        mirror: append each crop's frames in reverse, T -> 2T (BasicVSR's recipe for the 7 frames of Vimeo-90K).
        augment: which augmentations (`skipvsr.data.augment`) change the crops of clips.
        still_ratio: probability of a photograph in synthetic motion in the place of a clip.
        motion: how a synthetic camera moves.
        seed: any whole number from 0 upwards.
        cache_bytes: the most memory that decoded frames may take.
        pool: of degraded clips, for "video".
        scale: how many times smaller LR is.
        device: where decoded clips are kept and crops are cut; batches lie there.
    """

    batch: int
    frames: int
    crop_px: int
    lr: LRSource = "bi"
    mirror: bool = False
    augment: tuple[Augmentation, ...] = USUAL
    still_ratio: float = 0.0
    motion: MotionRange = field(default_factory=MotionRange)
    seed: int = 0
    cache_bytes: int = 4 * _GIB
    pool: PoolSettings = field(default_factory=PoolSettings)
    scale: int = SCALE
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        for name, minimum in (("batch", 1), ("frames", 1), ("crop_px", 2), ("seed", 0), ("cache_bytes", 0)):
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {minimum}")
        if not 0 <= self.still_ratio <= 1:
            raise ConfigError(f"still_ratio is {self.still_ratio}; it must be from 0 to 1")
        if self.lr not in (*FRAMEWISE, "video", "given"):
            raise ConfigError(f"lr is {self.lr!r}; it must be one of {', '.join((*FRAMEWISE, 'video', 'given'))}")
        if self.lr == "given" and self.still_ratio > 0:
            raise ConfigError("still_ratio must be 0 with lr = 'given': photographs have no LR frames of their own")


@dataclass(frozen=True)
class Batch:
    """Aligned crops: lr (B, T, 3, c, c) and gt (B, T, 3, 4c, 4c), RGB; `names` says where each comes from.

    `seeds` has a number for each crop, for whatever else is drawn at random in this step.

    Drawn as uint8, which is cheap to keep and to move; `floats` makes of it what a network takes.
    """

    lr: Tensor
    gt: Tensor
    names: tuple[str, ...]
    seeds: tuple[int, ...] = ()

    def floats(self, device: torch.device | str = "cpu") -> Batch:
        """The same batch on `device`, as float32 in [0, 1]."""
        return Batch(_floats(self.lr, device), _floats(self.gt, device), self.names, self.seeds)


@dataclass(frozen=True)
class FlowBatch:
    """Pairs of neighbouring LR frames, some with exactly known flow.

    reference, support: (B, 3, c, c), RGB, drawn as uint8. flow: (B, 2, c, c) float32 in LR pixels, with
    reference(x) = support(x + flow(x)); zero where it is not known. valid: (B, 1, c, c) bool: flow is exact there and
    points into the frame; False everywhere for pairs from real clips.
    """

    reference: Tensor
    support: Tensor
    flow: Tensor
    valid: Tensor
    names: tuple[str, ...]

    def floats(self, device: torch.device | str = "cpu") -> FlowBatch:
        """The same batch on `device`, frames as float32 in [0, 1]."""
        flow, valid = (part.to(device, non_blocking=True) for part in (self.flow, self.valid))
        return FlowBatch(_floats(self.reference, device), _floats(self.support, device), flow, valid, self.names)


@dataclass(frozen=True)
class _Crop:
    lr: Tensor
    gt: Tensor
    name: str


class CropSampler:
    """Draws batches of crops from clips and photographs.

    Args:
        clips: at least one, unless `still_ratio` is 1.
        settings: what a batch is made of.
        stills: photographs (clips of one frame), needed where `still_ratio` is over 0.

    Raises:
        ConfigError: photographs are asked for and there are none.
        DataError: a clip with fewer frames than a crop has.
    """

    def __init__(self, clips: Sequence[Clip], settings: CropSettings, stills: Sequence[Clip] = ()) -> None:
        if settings.still_ratio > 0 and not stills:
            raise ConfigError(f"still_ratio is {settings.still_ratio} without stills; give a folder of photographs")
        if settings.still_ratio < 1 and not clips:
            raise ConfigError("there are no clips to train on; give a dataset, or set still_ratio to 1")
        needed = max(settings.frames, 2)
        short = next((clip for clip in clips if clip.length < needed), None)
        if short is not None:
            raise DataError(
                f"{short.gt}: clip {short.name} has {short.length} frames and a crop takes {needed}; "
                "leave the clip out or lower frames"
            )
        self.settings = settings
        for_stills = settings.cache_bytes // 4 if settings.still_ratio > 0 else 0
        self.stills = StillCache(stills, for_stills)
        self.clips = ClipCache(clips, settings.lr, settings.cache_bytes - for_stills, settings.scale, settings.device)
        self._pool = self._make_pool() if settings.lr == "video" and clips else None

    def _make_pool(self) -> FootagePool:
        sizes = (self.clips.size(index) for index in range(len(self.clips.clips)))
        lr_bytes = sum(
            3 * clip.length * height * width for clip, (height, width) in zip(self.clips.clips, sizes, strict=True)
        )
        return FootagePool(self.clips.clips, lr_bytes, self.settings.pool, self.settings.seed, self.settings.scale)

    def describe(self) -> str:
        """One line on what is in memory, for a log."""
        held = f"clips: {self.clips.use}"
        return f"{held}; photographs: {self.stills.use}" if self.settings.still_ratio > 0 else held

    def preload(self) -> None:
        """Decode now what fits into memory, rather than as it is first asked for."""
        self.clips.preload()
        if self.settings.still_ratio > 0:
            self.stills.preload()

    def batch(self, step: int, positions: range | None = None) -> Batch:
        """Crops of one training step: of the whole global batch, or of the positions that one process computes.

        Raises:
            DataError: a frame that does not decode, or is smaller than the crop; the message names file and frame.
        """
        crops = [self._crop(self._random(step, position, stream=0), step) for position in self._positions(positions)]
        device = self.settings.device
        lr, gt = (torch.stack([getattr(crop, side).to(device) for crop in crops]) for side in ("lr", "gt"))
        if self.settings.mirror:
            lr, gt = (torch.cat((side, side.flip(1)), dim=1) for side in (lr, gt))
        seeds = tuple(
            int(self._random(step, position, stream=2).integers(2**31)) for position in self._positions(positions)
        )
        return Batch(lr, gt, tuple(crop.name for crop in crops), seeds)

    def flow_batch(self, step: int, positions: range | None = None) -> FlowBatch:
        """Pairs of neighbouring frames for the flow stage; `frames` and `mirror` do not matter to it."""
        pairs = [self._pair(self._random(step, position, stream=1), step) for position in self._positions(positions)]
        lr, flow, valid, names = zip(*pairs, strict=True)
        return FlowBatch(
            torch.stack([pair[0] for pair in lr]),
            torch.stack([pair[1] for pair in lr]),
            torch.stack(flow),
            torch.stack(valid),
            names,
        )

    def _positions(self, positions: range | None) -> range:
        return range(self.settings.batch) if positions is None else positions

    def _random(self, step: int, position: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.settings.seed, step, position, stream))

    def _crop(self, random: np.random.Generator, step: int) -> _Crop:
        if random.random() < self.settings.still_ratio:
            return self._moving_still(random, self.settings.frames)[0]
        crop = self._real(random, self.settings.frames, step)
        return self._augmented(crop, random)

    def _pair(self, random: np.random.Generator, step: int) -> tuple[Tensor, Tensor, Tensor, str]:
        """LR frames (2, 3, c, c), reference first; flow, mask and name."""
        if random.random() < self.settings.still_ratio:
            crop, path = self._moving_still(random, 2, sharp=False)
            side = self.settings.crop_px
            flows, masks = exact_flow(path, torch.tensor([0]), torch.tensor([1]), side, side, self.settings.scale)
            flow, valid = flows[0], masks[0]
        else:
            crop = self._augmented(self._real(random, 2, step), random)
            side = self.settings.crop_px
            flow, valid = torch.zeros(2, side, side), torch.zeros(1, side, side, dtype=torch.bool)
        return crop.lr.to(self.settings.device), flow, valid, crop.name

    def _real(self, random: np.random.Generator, frames: int, step: int) -> _Crop:
        """A window of a clip, cut at random."""
        side = self.settings.crop_px
        index = int(random.integers(len(self.clips.clips)))
        clip = self.clips.clips[index]
        start = int(random.integers(clip.length - frames + 1))
        height, width = self.clips.size(index)
        if min(height, width) < side:
            scale = self.settings.scale
            raise DataError(
                f"{clip.gt}: frames are {scale * width}x{scale * height} and a crop takes {scale * side} pixels "
                "a side; leave the clip out or lower crop_px"
            )
        y, x = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
        window = self.clips.window(index, start, frames)
        if self._pool is not None:
            window = Window(window.gt, self._pool.window(index, step, random.random(), start, frames))
        lr, gt = self._cut(window, y, x, random)
        return _Crop(lr, gt, f"{clip.name} frames {start}-{start + frames - 1} at LR ({x}, {y})")

    def _cut(self, window: Window, y: int, x: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The crop at LR (y, x); where LR is not at hand, it is made from the crop and what lies around it."""
        side, scale, lr_kind, margin = self.settings.crop_px, self.settings.scale, self.settings.lr, _MARGIN_PX
        gt = window.gt[..., scale * y : scale * (y + side), scale * x : scale * (x + side)]
        if window.lr is not None:
            return window.lr[..., y : y + side, x : x + side], gt
        assert lr_kind in FRAMEWISE
        height, width = (size // scale for size in window.gt.shape[-2:])
        top, left = max(y - margin, 0), max(x - margin, 0)
        bottom, right = min(y + side + margin, height), min(x + side + margin, width)
        around = window.gt[..., scale * top : scale * bottom, scale * left : scale * right]
        lr = _degrade_8_bit(around, lr_kind, random, scale)
        return lr[..., y - top : y - top + side, x - left : x - left + side], gt

    def _moving_still(
        self, random: np.random.Generator, frames: int, *, sharp: bool = True
    ) -> tuple[_Crop, CameraPath]:
        """A photograph in synthetic motion, and the motion."""
        side, scale, lr_kind = self.settings.crop_px, self.settings.scale, self.settings.lr
        assert lr_kind != "given"
        margin = _VIDEO_MARGIN_PX if lr_kind == "video" else _MARGIN_PX
        index = int(random.integers(len(self.stills.stills)))
        still = self.stills.sizes(index)[random.integers(2)]
        size_px = scale * (side + 2 * margin)
        path = draw_path(frames, size_px, (still.shape[-2], still.shape[-1]), random, self.settings.motion)
        gt = (render(still, path, size_px, size_px, sharp=sharp) * 255).round().byte()
        lr = _degrade_8_bit(gt, lr_kind, random, scale)[..., margin:-margin, margin:-margin]
        gt = gt[..., scale * margin : -scale * margin, scale * margin : -scale * margin]
        return _Crop(lr, gt, f"{self.stills.stills[index].name} in synthetic motion"), path

    def _augmented(self, crop: _Crop, random: np.random.Generator) -> _Crop:
        lr, gt = augment(crop.lr, crop.gt, self.settings.augment, self.settings.lr, random)
        return _Crop(lr, gt, crop.name)


def _degrade_8_bit(gt: Tensor, kind: Degradation, random: np.random.Generator, scale: int) -> Tensor:
    return (degrade(gt.float() / 255, kind, random, scale=scale) * 255).round().byte()


def _floats(pixels: Tensor, device: torch.device | str) -> Tensor:
    return pixels.to(device, non_blocking=True).float() / 255
