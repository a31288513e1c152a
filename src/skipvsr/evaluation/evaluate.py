"""Quality, cost and time of a network on clips with ground truth, for any number of settings of its dial."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from skipvsr.data.clips import Clip
from skipvsr.data.low import Pairs
from skipvsr.errors import ConfigError
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.evaluation.metrics import crop_border, luma, psnr, quantise, ssim, temporal_error
from skipvsr.evaluation.oracle import OracleGains
from skipvsr.evaluation.settings import Setting
from skipvsr.execute.patched import Patched
from skipvsr.execute.stream import Windows, upscale_stream
from skipvsr.models.resize import bicubic_upsample
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.trace import RoutingTrace, TracedTrunk

# A clip of up to so many frames is one window, as in the field's tests; a longer one is streamed with this lookahead.
WINDOW = 128
LOOKAHEAD = 16


@dataclass(frozen=True)
class Measures:
    """How pictures are compared.

    Args:
        border_px: pixels left out on each side of the large picture.
        rounded: round predictions to 8 bit first, as a saved picture would be.
        with_ssim: SSIM too (slow).
        middle_only: mirror the clip, T -> 2T, and measure its middle frame alone: Vimeo-90K-T's convention.
        frames: the first so many frames of each clip; 0: all.
        tile_px: most pixels a side of a tile; None: as the model was calibrated.
    """

    border_px: int = 0
    rounded: bool = True
    with_ssim: bool = True
    middle_only: bool = False
    frames: int = 0
    tile_px: int | None = None


@dataclass(frozen=True)
class ClipScore:
    """A clip at one setting; each list has a number per frame that was measured.

    Args:
        clip: its name.
        frames: that were super-resolved.
        psnr_rgb, psnr_y, ssim_rgb, ssim_y: the field's; SSIM is empty where it was not asked for.
        temporal_error: `metrics.temporal_error`, from the second frame on.
        executed_share: of the residual blocks' work.
        flips: share of decisions that differ from the frame before, forward direction.
        gmacs_per_frame: all that was computed, from the trace (without what tiles compute beyond their own border).
        seconds_per_frame: of the network, without reading and measuring.
    """

    clip: str
    frames: int
    psnr_rgb: list[float]
    psnr_y: list[float]
    ssim_rgb: list[float]
    ssim_y: list[float]
    temporal_error: list[float]
    executed_share: float
    flips: float
    gmacs_per_frame: float
    seconds_per_frame: float


@dataclass(frozen=True)
class Row:
    """A setting over all clips, each counted equally: frames are averaged per clip first."""

    policy: str
    value: float
    tiling: str
    psnr_rgb: float
    ssim_rgb: float | None
    psnr_y: float
    ssim_y: float | None
    temporal_error: float | None
    gmacs_per_frame: float
    executed_share: float
    flips: float
    seconds_per_frame: float
    clips: list[ClipScore]

    @classmethod
    def of(cls, setting: Setting, clips: Sequence[ClipScore]) -> Row:
        """Average the clips."""

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
            temporal_error=average("temporal_error"),
            gmacs_per_frame=total("gmacs_per_frame"), executed_share=total("executed_share"), flips=total("flips"),
            seconds_per_frame=total("seconds_per_frame"), clips=list(clips),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@torch.inference_mode()
def evaluate_clip(
    model: SkipVSR | None, clip: Clip, pairs: Pairs, setting: Setting, measures: Measures | None = None
) -> ClipScore:
    """Super-resolve a clip and compare it with its ground truth, in memory that does not grow with the clip's length.

    Args:
        model: put where it should run; None: MATLAB's bicubic.
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
    frames: Iterable[tuple[Tensor, Tensor]] = source
    if measures.middle_only:
        whole = list(source)
        frames = [*whole, *reversed(whole)]
    trace = _Sums()
    started = time.perf_counter()
    found = _Found(measures)
    count = 0
    for index, (result, high) in enumerate(_results(model, frames, setting, measures, trace)):
        source.apart += found.add(result, high, index)
        count += 1
    if measures.middle_only:
        found.keep_only((count // 2 - 1) // 2)
    seconds = time.perf_counter() - started - source.apart
    share = trace.share if model is not None else 0.0
    return ClipScore(
        clip=clip.name, frames=count, psnr_rgb=found.psnr_rgb, psnr_y=found.psnr_y, ssim_rgb=found.ssim_rgb,
        ssim_y=found.ssim_y, temporal_error=found.temporal_error, executed_share=share, flips=trace.flips,
        gmacs_per_frame=_gmacs(model, setting, trace, source.size) if model is not None else 0.0,
        seconds_per_frame=seconds / count,
    )  # fmt: skip


def evaluate(
    model: SkipVSR | None, clips: Sequence[Clip], pairs: Pairs, settings: Sequence[Setting],
    measures: Measures | None = None,
) -> list[Row]:  # fmt: skip
    """All settings on all clips; arguments as for `evaluate_clip`."""
    return [
        Row.of(setting, [evaluate_clip(model, clip, pairs, setting, measures) for clip in clips])
        for setting in settings
    ]


class _Source:
    """Pairs of frames, which remembers their size and the time that reading took."""

    def __init__(self, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
        self.apart = 0.0
        self.size = (0, 0)
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        started = time.perf_counter()
        try:
            low, high = next(self._pairs)
        finally:
            self.apart += time.perf_counter() - started
        self.size = (low.shape[-2], low.shape[-1])
        return low, high


def _results(
    model: SkipVSR | None, frames: Iterable[tuple[Tensor, Tensor]], setting: Setting, measures: Measures, trace: _Sums
) -> Iterator[tuple[Tensor, Tensor]]:
    """Result and ground truth of each frame, (3, 4H, 4W) in [0, 1] both."""
    if model is None:
        for low, high in frames:
            yield bicubic_upsample(low[None])[0], high
        return
    known: list[tuple[Tensor, Tensor]] = []

    def oracle() -> OracleGains:
        known.extend(frames)
        if len(known) > WINDOW:
            raise ConfigError(f"the oracle looks at whole clips of at most {WINDOW} frames; give --frames")
        like = next(model.parameters())
        low, high = (torch.stack(list(part)).to(like) for part in zip(*known, strict=True))
        return OracleGains(model.with_router("none").to(like).eval(), low[None], high[None])

    routed = setting.routed(model, trace, measures.tile_px, oracle)
    source = iter(known or frames)
    first = next(source, None)
    if first is None:
        return
    waiting: deque[Tensor] = deque()

    def lows() -> Iterator[Tensor]:
        pair: tuple[Tensor, Tensor] | None = first
        while pair is not None:
            waiting.append(pair[1])
            yield pair[0]
            pair = next(source, None)

    network = setting.dial().around(model, *first[0].shape[-2:])
    for result in upscale_stream(lows(), network, Windows(WINDOW, LOOKAHEAD), routed=routed):
        high = waiting.popleft()
        yield result.float().to(high.device), high


@dataclass
class _Found:
    """Measures of the frames so far."""

    measures: Measures
    psnr_rgb: list[float] = field(default_factory=list)
    psnr_y: list[float] = field(default_factory=list)
    ssim_rgb: list[float] = field(default_factory=list)
    ssim_y: list[float] = field(default_factory=list)
    temporal_error: list[float] = field(default_factory=list)
    _before: tuple[Tensor, Tensor] | None = None

    def add(self, result: Tensor, high: Tensor, index: int) -> float:
        """Measure a frame; returns the seconds that took."""
        started = time.perf_counter()
        result = quantise(result) if self.measures.rounded else result
        result, high = (crop_border(image, self.measures.border_px) for image in (result, high))
        luma_pair = luma(result.double()), luma(high.double())
        self.psnr_rgb.append(psnr(result, high, 1.0).item())
        self.psnr_y.append(psnr(*luma_pair, 255.0).item())
        if self.measures.with_ssim:
            self.ssim_rgb.append(ssim(result, high, 1.0))
            self.ssim_y.append(ssim(*luma_pair, 255.0))
        if self._before is not None:
            self.temporal_error.append(temporal_error(result, self._before[0], high, self._before[1]))
        self._before = (result, high)
        return time.perf_counter() - started

    def keep_only(self, index: int) -> None:
        """Forget all frames but one."""
        for values in (self.psnr_rgb, self.psnr_y, self.ssim_rgb, self.ssim_y):
            values[:] = values[index : index + 1]
        self.temporal_error.clear()


class _Sums:
    """What ran, in sums: a trace of bounded size."""

    def __init__(self) -> None:
        self.share_sum, self.passes = 0.0, 0
        self._changed: list[float] = []
        self._last = RoutingTrace()

    def add(self, trunk: TracedTrunk) -> None:
        """Count a pass; the mask of the last forward one is kept, for the flips."""
        self.share_sum += trunk.share
        self.passes += 1
        if trunk.direction == "forward":
            last = self._last.trunks[-1:]
            self._last = RoutingTrace([*last, trunk])
            if last and last[0].mask.shape == trunk.mask.shape:
                self._changed.append((last[0].mask != trunk.mask).float().mean().item())

    @property
    def share(self) -> float:
        return self.share_sum / self.passes

    @property
    def flips(self) -> float:
        return mean(self._changed) if self._changed else 0.0


def _gmacs(model: SkipVSR, setting: Setting, trace: _Sums, size: tuple[int, int]) -> float:
    asked = setting.policy in ("threshold", "budget", "budget-frame") and trace.share < 1
    network = setting.dial().around(model, *size)
    if isinstance(network, Patched):
        grid = network.grid
        cost = cost_per_frame(model.config, grid.patch_height, grid.patch_width, tiles=int(asked)).times(grid.patches)
    else:
        tiles = TileGrid.of(*size, setting.dial().tile_of(model)).tiles if asked else 0
        cost = cost_per_frame(model.config, *size, tiles=tiles)
    return cost.with_share(trace.share) / 1e9
