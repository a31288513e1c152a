"""Quality, cost and time of a network on clips with ground truth, for any number of settings of its dial."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from skipvsr.data.clips import Clip
from skipvsr.data.pairs import Pairs
from skipvsr.errors import ConfigError
from skipvsr.evaluation.clock import PartTimes, PeakMemory
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.evaluation.metrics import crop_border, luma, psnr, quantize, seam_ratio, ssim, temporal_error
from skipvsr.evaluation.oracle import OracleGains
from skipvsr.evaluation.settings import Setting
from skipvsr.inference.options import Precision, Runtime, StreamOptions
from skipvsr.inference.patched import PatchGrid
from skipvsr.inference.tiled import extra_macs
from skipvsr.models.any_model import AnyModel
from skipvsr.models.bicubic import Bicubic
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.trace import Tally, TracedTrunk

# A clip of up to so many frames is one window, as in the field's tests; a longer one is streamed with this lookahead.
WINDOW = 128
LOOKAHEAD = 16


@dataclass(frozen=True)
class Measures:
    """How pictures are compared.

    Args:
        crop_border: pixels left out on each side of the large picture.
        quantize: round predictions to 8 bit first, as a saved picture would be.
        with_ssim: SSIM too (slow).
        middle_only: mirror the clip, T -> 2T, and measure its middle frame alone, the mean of its two results: Vimeo-90K-T's
            convention.
        frames: the first so many frames of each clip; 0: all.
        tile_size: longest side of a tile; None: as the model was calibrated.
        window, lookahead: frames, see `Windows`; clips of up to `window` frames are one.
        runtime, precision: what computes, see `ComputeOptions`.
    """

    crop_border: int = 0
    quantize: bool = True
    with_ssim: bool = True
    middle_only: bool = False
    frames: int = 0
    tile_size: int | None = None
    window: int = WINDOW
    lookahead: int = LOOKAHEAD
    runtime: Runtime = "torch"
    precision: Precision | None = None


@dataclass(frozen=True)
class ClipScore:
    """A clip at one setting; each list has a number per frame that was measured.

    Args:
        clip: its name.
        frames: that were super-resolved.
        psnr_rgb, psnr_y, ssim_rgb, ssim_y: the field's; SSIM is empty where it was not asked for.
        temporal_error: `metrics.temporal_error`, from the second frame on.
        seams: `metrics.seam_ratio` at the borders of tiles or patches; empty where there are none.
        active_ratio: of the residual blocks' work.
        decision_flicker: ratio of decisions that differ from the frame before, forward direction.
        gmacs_per_frame: of all parts but "extra": what the decisions cost, however it is executed.
        gmacs: by part, from the trace: those of `Cost`; "overlap": what patches compute more than once; "extra": what tiles
            compute beyond their own border, and where everything is computed because that is faster.
        seconds_per_frame: of the network, without reading and measuring.
        seconds: mean, median and 90th percentile by part (`PartTimes.seconds_per_frame`).
        peak_bytes: most memory in use (`PeakMemory`), the ground truth and everything else included.
    """

    clip: str
    frames: int
    psnr_rgb: list[float]
    psnr_y: list[float]
    ssim_rgb: list[float]
    ssim_y: list[float]
    temporal_error: list[float]
    seams: list[float]
    active_ratio: float
    decision_flicker: float
    gmacs_per_frame: float
    gmacs: dict[str, float]
    seconds_per_frame: float
    seconds: dict[str, dict[str, float]]
    peak_bytes: int


@dataclass(frozen=True)
class Row:
    """A setting over all clips, each counted equally: frames are averaged per clip first.

    Args:
        window_jump: temporal error from window to window over that within windows; None where every clip is one window.
        peak_bytes: the largest of all clips.
        others: as for a clip.
    """

    policy: str
    value: float
    tiling: str
    psnr_rgb: float
    ssim_rgb: float | None
    psnr_y: float
    ssim_y: float | None
    temporal_error: float | None
    seams: float | None
    window_jump: float | None
    gmacs_per_frame: float
    gmacs: dict[str, float]
    active_ratio: float
    decision_flicker: float
    seconds_per_frame: float
    seconds: dict[str, dict[str, float]]
    peak_bytes: int
    clips: list[ClipScore]

    @classmethod
    def of(cls, setting: Setting, clips: Sequence[ClipScore], window: int = WINDOW) -> Row:
        """Average the clips; `window` as they were measured."""

        def average(name: str) -> float | None:
            found = [mean(values) for clip in clips if (values := getattr(clip, name))]
            return mean(found) if found else None

        def total(name: str) -> float:
            return mean(getattr(clip, name) for clip in clips)

        psnr_rgb, psnr_y = average("psnr_rgb"), average("psnr_y")
        assert psnr_rgb is not None
        assert psnr_y is not None
        return cls(
            policy=setting.policy, value=setting.value, tiling=setting.tiling,
            psnr_rgb=psnr_rgb, ssim_rgb=average("ssim_rgb"), psnr_y=psnr_y, ssim_y=average("ssim_y"),
            temporal_error=average("temporal_error"), seams=average("seams"), window_jump=_window_jump(clips, window),
            gmacs_per_frame=total("gmacs_per_frame"),
            gmacs={part: mean(clip.gmacs[part] for clip in clips) for part in clips[0].gmacs},
            active_ratio=total("active_ratio"), decision_flicker=total("decision_flicker"),
            seconds_per_frame=total("seconds_per_frame"),
            seconds={
                part: {kind: mean(clip.seconds[part][kind] for clip in clips) for kind in kinds}
                for part, kinds in clips[0].seconds.items()
            },
            peak_bytes=max(clip.peak_bytes for clip in clips), clips=list(clips),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


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
        measures: how pictures are compared; None: as the field does.

    Raises:
        DataError: a frame does not decode.
        ConfigError: the model cannot follow the setting.
    """
    measures = measures or Measures()
    source = _Source(pairs.read(clip, measures.frames))
    whole = list(source) if measures.middle_only else []
    frames: Iterable[tuple[Tensor, Tensor]] = [*whole, *reversed(whole)] if whole else source
    device = next(model.parameters()).device
    run = _Run(model, setting, measures, PartTimes(device))
    memory = PeakMemory(device)
    started = time.perf_counter()
    found = _Found(measures)
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


class _Run:
    """One pass of a model over one clip: its results, and what they cost."""

    def __init__(self, model: AnyModel, setting: Setting, measures: Measures, times: PartTimes) -> None:
        self.times = times
        self.sums = _Sums(model.config.channels)
        self._has_blocks = not isinstance(model, Bicubic)
        # Other runtimes have no trace: every block runs.
        self._traced = self._has_blocks and measures.runtime == "torch"
        # Rows and columns of the large picture where tiles or patches meet.
        self.borders: tuple[list[int], list[int]] = ([], [])
        self._model, self._setting, self._measures = model, setting, measures
        self.scale = model.scale
        self._size = (0, 0)
        self._tiles: TileGrid | None = None

    def results(self, frames: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Result and ground truth of each frame, (3, s * H, s * W) in [0, 1] both, with the scale s."""
        model = self._model
        known: list[tuple[Tensor, Tensor]] = []

        def oracle() -> OracleGains:
            if isinstance(model, Bicubic):
                raise ConfigError("the oracle measures what blocks bring, and bicubic has none; take a model")
            known.extend(frames)
            if len(known) > WINDOW:
                raise ConfigError(f"the oracle looks at whole clips of at most {WINDOW} frames; give --frames")
            like = next(model.parameters())
            lr, gt = (torch.stack(list(part)).to(like) for part in zip(*known, strict=True))
            return OracleGains(model.with_router("none").to(like).eval(), lr[None], gt[None])

        stream = StreamOptions(self._measures.window, self._measures.lookahead, scene_detection=False)
        gains = oracle() if self._setting.policy == "oracle" else None
        upscaler = self._setting.upscaler(
            model, stream, self._measures.tile_size, lambda: gains, self._measures.runtime, self._measures.precision
        )
        source = iter(known or frames)
        first = next(source, None)
        if first is None:
            return
        self._size = (first[0].shape[-2], first[0].shape[-1])
        if self._has_blocks:
            self._tiles = upscaler.tile_grid(*self._size)
            lines = (upscaler.patch_grid(*self._size) or self._tiles).borders
            self.borders = ([self.scale * row for row in lines[0]], [self.scale * column for column in lines[1]])
        waiting: deque[Tensor] = deque()

        def lrs() -> Iterator[Tensor]:
            for lr, gt in chain([first], source):
                waiting.append(gt)
                yield lr

        for result in upscaler.stream(lrs(), self.sums if self._traced else None, instrument=self.times):
            gt = waiting.popleft()
            yield result.float().to(gt.device), gt

    @property
    def active_ratio(self) -> float:
        """Of the residual blocks' work."""
        return self.sums.active_ratio if self._traced else float(self._has_blocks)

    def gmacs(self, frames: int) -> dict[str, float]:
        """Of each part, a frame; see `ClipScore`."""
        model, setting = self._model, self._setting
        ratio = self.active_ratio
        asked = setting.policy in ("threshold", "budget", "budget-frame") and ratio < 1
        overlap = 0
        if setting.tiling == "patch":
            patches = PatchGrid(*self._size)
            cost = cost_per_frame(model.config, *self._size, tiles=patches.patches if asked else 0)
            one = cost_per_frame(model.config, patches.patch_height, patches.patch_width, tiles=int(asked))
            overlap = one.times(patches.patches).at_ratio(ratio) - cost.at_ratio(ratio)
        else:
            cost = cost_per_frame(
                model.config, *self._size, tiles=self._tiles.tiles if asked and self._tiles is not None else 0
            )
        parts = cost.by_part(ratio) | {"overlap": overlap, "extra": self.sums.extra_macs / frames}
        return {name: macs / 1e9 for name, macs in parts.items()}


@dataclass
class _Found:
    """Measures of the frames so far."""

    measures: Measures
    psnr_rgb: list[float] = field(default_factory=list)
    psnr_y: list[float] = field(default_factory=list)
    ssim_rgb: list[float] = field(default_factory=list)
    ssim_y: list[float] = field(default_factory=list)
    temporal_error: list[float] = field(default_factory=list)
    seams: list[float] = field(default_factory=list)
    _before: tuple[Tensor, Tensor] | None = None

    def add(self, result: Tensor, gt: Tensor, borders: tuple[list[int], list[int]], scale: int) -> float:
        """Measure a frame; returns the seconds that took."""
        started = time.perf_counter()
        result = quantize(result) if self.measures.quantize else result
        seam = seam_ratio(result - gt, *borders, every=scale)
        self.seams += [] if seam is None else [seam]
        result, gt = (crop_border(image, self.measures.crop_border) for image in (result, gt))
        luma_pair = luma(result.double()), luma(gt.double())
        self.psnr_rgb.append(psnr(result, gt, 1.0).item())
        self.psnr_y.append(psnr(*luma_pair, 255.0).item())
        if self.measures.with_ssim:
            self.ssim_rgb.append(ssim(result, gt, 1.0))
            self.ssim_y.append(ssim(*luma_pair, 255.0))
        if self._before is not None:
            self.temporal_error.append(temporal_error(result, self._before[0], gt, self._before[1]))
        self._before = (result, gt)
        return time.perf_counter() - started


class _Sums:
    """What ran, in sums: a trace of bounded size."""

    def __init__(self, channels: int) -> None:
        self.extra_macs = 0
        self._channels = channels
        self._tally = Tally()
        self._changed: list[float] = []
        self._last: Tensor | None = None

    def add(self, trunk: TracedTrunk) -> None:
        """Count a pass; the mask of the last forward one is kept, for the decision_flicker."""
        self._tally.add(trunk)
        self.extra_macs += extra_macs(trunk.mask, trunk.grid, self._channels)
        if trunk.direction == "forward":
            if self._last is not None and self._last.shape == trunk.mask.shape:
                self._changed.append((self._last != trunk.mask).float().mean().item())
            self._last = trunk.mask

    @property
    def active_ratio(self) -> float:
        return self._tally.active_ratio if self._tally.passes else 0.0

    @property
    def decision_flicker(self) -> float:
        return mean(self._changed) if self._changed else 0.0


def _window_jump(clips: Sequence[ClipScore], window: int) -> float | None:
    """Mean temporal error where a window starts over the mean elsewhere, of clips of more than one window."""
    ratios = []
    for clip in clips:
        errors = list(enumerate(clip.temporal_error, start=1))
        at = [error for frame, error in errors if frame % window == 0]
        within = [error for frame, error in errors if frame % window]
        if at and within:
            ratios.append(mean(at) / mean(within))
    return mean(ratios) if ratios else None
