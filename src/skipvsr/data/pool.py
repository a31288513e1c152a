"""Whole clips degraded as real footage is, made ahead and kept on disk, so that training only has to cut.

Of every clip the pool has a few versions, each with settings of its own (`draw_footage`). Now and then the oldest version of a
clip is replaced by a new one. What is in a version follows from the seed, the clip and the version's number alone, so that
resuming and several processes see the same frames, and processes may share one folder.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skipvsr.data.clips import Clip
from skipvsr.data.degradations import video
from skipvsr.data.footage import draw_footage
from skipvsr.errors import ConfigError, DataError

# Raised when the same draws give other frames, so that what an older version left in the folder is not used.
_FORMAT = 2


@dataclass(frozen=True)
class PoolSettings:
    """How large the pool is and how it changes.

    Args:
        folder: where it is kept; None: in the folder for temporary files.
        versions: of every clip, at a time.
        renew_steps: training steps after which every clip has one new version in the place of its oldest.
        max_bytes: on disk; fewer versions are kept where they would take more.

    Raises:
        ConfigError: a number under 1.
    """

    folder: Path | None = None
    versions: int = 4
    renew_steps: int = 500
    max_bytes: int = 8 << 30

    def __post_init__(self) -> None:
        for name in ("versions", "renew_steps", "max_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the pool is {getattr(self, name)}; it must be at least 1")


class FootagePool:
    """Reads LR windows of degraded clips, which are made when they are first asked for.

    Args:
        clips: of ground truth; sides are cut to multiples of the scale at the bottom and on the right.
        lr_bytes: what the LR frames of all clips take together, in one version.
        settings: size and renewal.
        seed: of all draws.
        scale: how many times smaller the LR frames are.

    Raises:
        ConfigError: not even one version of every clip fits into `max_bytes`.
    """

    def __init__(self, clips: Sequence[Clip], lr_bytes: int, settings: PoolSettings, seed: int, scale: int = 4) -> None:
        self._clips = tuple(clips)
        self._scale = scale
        self._seed = seed
        self._renew_steps = settings.renew_steps
        # One more than are drawn from, because the new one is written before the old one goes.
        fitting = settings.max_bytes // max(lr_bytes, 1) - 1
        if fitting < 1:
            raise ConfigError(
                f"one version of all clips takes {lr_bytes / 2**30:.2f} GiB, and the pool may take "
                f"{settings.max_bytes / 2**30:.2f}; it needs at least twice the first: raise pool_bytes"
            )
        self.versions = min(settings.versions, fitting)
        self._folder = settings.folder or Path(tempfile.gettempdir()) / "skipvsr-pool"
        self._keys: dict[int, str] = {}

    def window(self, index: int, step: int, draw: float, start: int, frames: int) -> Tensor:
        """LR frames of a clip in one of its versions.

        Args:
            index: of the clip.
            step: of training; says which versions there are.
            draw: in [0, 1), chooses among them.
            start, frames: which frames.

        Returns:
            (T, 3, H / s, W / s) uint8 with the scale s.

        Raises:
            DataError: a frame of the clip does not decode, or the folder cannot be written.
        """
        # Clips take turns, so that renewal is spread over the steps.
        oldest = (step + index * self._renew_steps // len(self._clips)) // self._renew_steps
        version = oldest + int(draw * self.versions)
        path = self._path(index, version)
        try:
            whole = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            whole = self._make(index, version, path)
            if oldest > 0:
                self._path(index, oldest - 1).unlink(missing_ok=True)
        return torch.from_numpy(whole[start : start + frames].copy())

    def _make(self, index: int, version: int, path: Path) -> np.ndarray:
        gt = torch.from_numpy(self._clips[index].read()).permute(0, 3, 1, 2)
        height, width = (side // self._scale * self._scale for side in gt.shape[-2:])
        random = np.random.default_rng((self._seed, index, version, 3))
        lr = video(gt[..., :height, :width].float() / 255, draw_footage(random), random, self._scale)
        frames = (lr * 255).round().byte().numpy()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            work = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
            with work.open("wb") as file:
                np.save(file, frames)
            work.replace(path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}; give the pool another folder") from error
        return frames

    def _path(self, index: int, version: int) -> Path:
        if index not in self._keys:
            clip = self._clips[index]
            status = clip.gt.stat()
            facts = (
                _FORMAT,
                self._scale,
                self._seed,
                index,
                str(clip.gt.resolve()),
                status.st_size,
                status.st_mtime_ns,
                clip.length,
            )
            self._keys[index] = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
        return self._folder / f"{self._keys[index]}-{version}.npy"
