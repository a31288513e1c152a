"""One pass of a model over one clip: its results, and what they cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from statistics import mean

import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.evaluation.clock import PartTimes
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.evaluation.measures import WINDOW, Measures
from skipvsr.evaluation.oracle import OracleGains
from skipvsr.evaluation.settings import ORACLES, Setting
from skipvsr.inference.lean import running_config
from skipvsr.inference.options import StreamOptions
from skipvsr.inference.patched import PatchGrid
from skipvsr.inference.tiled import extra_macs
from skipvsr.models.any_model import AnyModel
from skipvsr.models.bicubic import Bicubic
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.trace import Tally, TracedTrunk


class ClipRun:
    """One pass of a model over one clip: its results, and what they cost."""

    def __init__(self, model: AnyModel, setting: Setting, measures: Measures, times: PartTimes) -> None:
        self.times = times
        self.sums = _Sums(model.config.channels)
        self._has_blocks = not isinstance(model, Bicubic)
        # Other runtimes have no trace: every block runs.
        self._traced = self._has_blocks and measures.runtime == "torch"
        # Rows and columns of the large image where tiles or patches meet.
        self.borders: tuple[list[int], list[int]] = ([], [])
        self._model, self._setting, self._measures = model, setting, measures
        self.scale = model.scale
        self._size = (0, 0)
        self._config = model.config  # of what runs
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

        stream = StreamOptions(
            self._measures.window, self._measures.lookahead, scene_detection=False, repeat_detection=False
        )
        truth = oracle() if self._setting.policy in ORACLES else None
        upscaler = self._setting.upscaler(model, stream, lambda: truth, self._measures.options())
        self._config = running_config(model, upscaler.compute)
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
        config, setting = self._config, self._setting
        ratio = self.active_ratio
        asked = setting.policy in ("threshold", "budget", "budget-frame") and ratio < 1
        overlap = 0
        if setting.tiling == "patch":
            patches = PatchGrid(*self._size)
            cost = cost_per_frame(config, *self._size, tiles=patches.patches if asked else 0)
            one = cost_per_frame(config, patches.patch_height, patches.patch_width, tiles=int(asked))
            overlap = one.times(patches.patches).at_ratio(ratio) - cost.at_ratio(ratio)
        else:
            cost = cost_per_frame(
                config, *self._size, tiles=self._tiles.tiles if asked and self._tiles is not None else 0
            )
        parts = cost.by_part(ratio) | {"overlap": overlap, "extra": self.sums.extra_macs / frames}
        return {name: macs / 1e9 for name, macs in parts.items()}


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
