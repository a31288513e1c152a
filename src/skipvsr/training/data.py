"""The batches of a training stage."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import torch

from skipvsr.data.clips import Clip
from skipvsr.data.crops import CropSampler, CropSettings
from skipvsr.data.datasets import find_clips
from skipvsr.data.pool import PoolSettings
from skipvsr.errors import ConfigError
from skipvsr.training.config import TrainingConfig
from skipvsr.training.settings import Source
from skipvsr.training.stage import AnyBatch, Stage
from skipvsr.video.prefetch import map_ahead

# Most clips that an objective is fitted on before the first step.
FIT_CLIPS = 8


class StageData:
    """Draws the batches of one stage, for one of several processes.

    Args:
        config, stage: what is trained.
        process, processes: this process and how many there are; together they draw the global batch.
        device: on which it trains.

    Raises:
        ConfigError: the global batch does not divide by processes and accumulation steps.
        DataError: clips are missing or too short.
    """

    def __init__(
        self,
        config: TrainingConfig,
        stage: Stage,
        process: int,
        processes: int,
        device: torch.device | str = "cpu",
    ) -> None:
        settings = stage.optimisation
        parts = processes * settings.accumulation
        if settings.batch % parts:
            raise ConfigError(
                f"the batch is {settings.batch} clips; it must be a multiple of {parts} "
                f"({processes} processes x {settings.accumulation} accumulation steps)"
            )
        shape = stage.crops()
        ratio = config.data.stills_ratio if shape.stills_ratio is None else shape.stills_ratio
        crops = CropSettings(
            batch=settings.batch,
            frames=shape.frames,
            crop_px=settings.crop,
            lr=config.data.degradation,
            mirror=shape.mirror,
            augment=tuple(config.data.augment),
            still_ratio=ratio if config.data.stills else 0.0,
            seed=config.seed,
            cache_bytes=config.data.cache_bytes // processes,
            pool=PoolSettings(
                Path(config.data.pool) if config.data.pool else None,
                config.data.pool_versions,
                config.data.pool_renew_steps,
                config.data.pool_bytes,
            ),
            scale=config.network.scale,
            device=device if config.data.cache_on_gpu else "cpu",
        )
        stills = find_clips("stills", config.data.stills) if config.data.stills else []
        self.sampler = CropSampler(gather_clips(config.data.train), crops, stills)
        self._draw = stage.draw(self.sampler)
        self._threads = config.data.threads
        each = settings.batch // parts
        mine = range(process * each * settings.accumulation, (process + 1) * each * settings.accumulation)
        self._fit = range(min(settings.batch, FIT_CLIPS))
        self._positions = [mine[start : start + each] for start in range(0, len(mine), each)]

    def first(self) -> AnyBatch:
        """The first clips of the first step, the same on every process."""
        return self._draw(0, self._fit)

    def batches(self, start: int, stop: int, executor: Executor) -> Iterator[list[AnyBatch]]:
        """This process's part of steps `start` to `stop`, drawn ahead in the executor: one part per accumulation step."""
        return map_ahead(self._parts, range(start, stop), executor, depth=self._threads)

    def _parts(self, step: int) -> list[AnyBatch]:
        return [self._draw(step, part) for part in self._positions]


def gather_clips(sources: list[Source]) -> list[Clip]:
    """All clips of several sets."""
    return [clip for source in sources for clip in find_clips(source.dataset, Path(source.root))]


def check_data(config: TrainingConfig) -> None:
    """Look whether all clips are there. Raises DataError."""
    gather_clips(config.data.train)
    gather_clips(config.validation.clips)
    if config.data.stills:
        find_clips("stills", config.data.stills)
