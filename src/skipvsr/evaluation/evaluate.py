"""Quality, cost and time of a network on clips with ground truth, at any number of settings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from skipvsr.data.clips import Clip
from skipvsr.data.pairs import Pairs
from skipvsr.evaluation.clip_run import ClipRun
from skipvsr.evaluation.clock import PartTimes, PeakMemory
from skipvsr.evaluation.measures import FrameMeasures, Measures
from skipvsr.evaluation.scores import ClipScore, Row
from skipvsr.evaluation.settings import Setting
from skipvsr.models.any_model import AnyModel


@torch.inference_mode()
def evaluate_clip(
    model: AnyModel, clip: Clip, pairs: Pairs, setting: Setting, measures: Measures | None = None
) -> ClipScore:
    """Super-resolve a clip and compare it with its ground truth, in memory that does not grow with the clip's length.

    Args:
        model: put where it should run.
        clip: with its ground truth.
        pairs: where its small frames come from.
        setting: what runs.
        measures: how images are compared; None: as the field does.

    Raises:
        DataError: a frame does not decode.
        ConfigError: the model cannot follow the setting.
    """
    measures = measures or Measures()
    source = _Source(pairs.read(clip, measures.frames))
    whole = list(source) if measures.middle_only else []
    frames: Iterable[tuple[Tensor, Tensor]] = [*whole, *reversed(whole)] if whole else source
    device = next(model.parameters()).device
    run = ClipRun(model, setting, measures, PartTimes(device))
    memory = PeakMemory(device)
    started = time.perf_counter()
    found = FrameMeasures(measures)
    count = len(whole) * 2
    for result, gt in _middle(run.results(frames)) if whole else run.results(frames):
        source.apart += found.add(result, gt, run.borders, run.scale)
        memory.look()
        count += 0 if whole else 1
    seconds = time.perf_counter() - started - source.apart
    gmacs = run.gmacs(count)
    return ClipScore(
        clip=clip.name, frames=count, psnr_rgb=found.psnr_rgb, psnr_y=found.psnr_y, ssim_rgb=found.ssim_rgb,
        ssim_y=found.ssim_y, temporal_error=found.temporal_error, seams=found.seams,
        active_ratio=run.active_ratio, decision_flicker=run.sums.decision_flicker,
        gmacs_per_frame=sum(gmacs.values()) - gmacs["extra"], gmacs=gmacs,
        seconds_per_frame=seconds / count, seconds=run.times.seconds_per_frame(count), peak_bytes=memory.look(),
    )  # fmt: skip


def evaluate(
    model: AnyModel, clips: Sequence[Clip], pairs: Pairs, settings: Sequence[Setting],
    measures: Measures | None = None,
) -> list[Row]:  # fmt: skip
    """All settings on all clips; arguments as for `evaluate_clip`."""
    return [
        Row.of(
            setting,
            [evaluate_clip(model, clip, pairs, setting, measures) for clip in clips],
            (measures or Measures()).window,
        )
        for setting in settings
    ]


def _middle(results: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Of a clip that was mirrored, T -> 2T: the mean of its middle frame's two results, and its ground truth."""
    found = list(results)
    middle = (len(found) // 2 - 1) // 2
    yield (found[middle][0] + found[-1 - middle][0]) / 2, found[middle][1]


class _Source:
    """Pairs of frames, which remembers the time that reading took."""

    def __init__(self, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
        self.apart = 0.0
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        started = time.perf_counter()
        try:
            return next(self._pairs)
        finally:
            self.apart += time.perf_counter() - started
