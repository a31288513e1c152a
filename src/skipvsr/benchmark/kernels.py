"""The kernels for active tiles on a GPU: a block's time against torch's convolutions, and the best way to launch them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from skipvsr.inference.device import DTYPES
from skipvsr.inference.execution import kernel_key, why_no_kernels
from skipvsr.inference.graphs import CudaRecord
from skipvsr.inference.options import Precision
from skipvsr.inference.remembered import remember
from skipvsr.inference.triton_blocks import LaunchSettings, TritonBlocks
from skipvsr.models.blocks import ResidualBlock
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import ByDepth

# Ratios of active tiles.
RATIOS = (0.25, 0.5, 0.85, 1.0)
# With one stage, loads go through the cache of the multiprocessor, where neighbours of a pixel meet, and not past it.
SETTINGS = (
    LaunchSettings(128, 4, 3),
    LaunchSettings(64, 4, 3),
    LaunchSettings(64, 4, 4),
    LaunchSettings(128, 8, 3),
    LaunchSettings(128, 4, 2),
    LaunchSettings(256, 8, 3),
    LaunchSettings(64, 4, 1),
    LaunchSettings(128, 8, 1),
)
TILE_PX = 24
# Blocks of a step: the list of active tiles is made once for all of them, as in a trunk.
_BLOCKS, _ROUNDS, _STARTS = 8, 9, 20

# Seconds that a step takes on the device.
SecondsOf = Callable[[Callable[[], Tensor]], float]


@dataclass(frozen=True)
class KernelTimes:
    """Seconds of a residual block on a frame.

    Args:
        channels, precision, height, width: of its state.
        dense: through torch, on the whole frame.
        whole: through our kernels, the whole frame as one tile; where that is faster than torch, it is used.
        tiles: through our kernels, for each ratio of active tiles.
        settings: with which the kernels were fastest.
        dense_ratio: ratio of active tiles from which torch is faster; 2: it is never.
    """

    channels: int
    precision: str
    height: int
    width: int
    dense: float
    whole: float
    tiles: dict[str, float]
    settings: LaunchSettings
    dense_ratio: float


def measure_kernels(
    device: torch.device,
    precision: Precision,
    channels: int,
    height: int,
    width: int,
    *,
    candidates: Sequence[LaunchSettings] = SETTINGS,
    seconds_of: SecondsOf | None = None,
    on_progress: Callable[[float], object] | None = None,
) -> KernelTimes | str:
    """Try all settings, remember the fastest for this machine, and say how long a block takes with it.

    Args:
        device: a GPU.
        precision, channels, height, width: of the state.
        candidates: settings to try.
        seconds_of: measures; None: by CUDA graphs and the GPU's own clock.
        on_progress: called with how much is done, from 0 to 1: kernels are compiled for each setting, which takes seconds.

    Returns:
        What was found, or why the kernels cannot be used here.
    """
    dtype = DTYPES[precision]
    reason = why_no_kernels(device, dtype, channels)
    if reason is not None:
        return reason
    clock = seconds_of or GpuClock(device)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        blocks = [ResidualBlock(channels) for _ in range(_BLOCKS)]
        network = nn.Sequential(*blocks).to(device, dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - the stubs forget it
        state = torch.randn(1, channels, height, width).to(device, dtype).to(memory_format=torch.channels_last)
        grid = TileGrid.of(height, width, TILE_PX)
        dense = clock(lambda: network(state)) / _BLOCKS

        def seconds(settings: LaunchSettings, ratio: float, tiles: TileGrid) -> float:
            run, depth = TritonBlocks(2.0, settings=settings), spread_depth(tiles, ratio, _BLOCKS)
            decide = ByDepth(depth.to(device), depth)
            # Below 1 a single tile rests, or more: then the frame is not taken for one large tile.
            return clock(lambda: run(blocks, state, decide, tiles)[0]) / _BLOCKS

        least = {}
        for settings in candidates:
            least[settings] = _or_never(partial(seconds, settings, 0.5, grid))
            if on_progress is not None:
                on_progress(len(least) / len(candidates))
        best = min(least, key=lambda settings: least[settings])
        if least[best] == math.inf:
            return "none of the launch settings runs on this GPU"
        times = {ratio: seconds(best, min(ratio, 1 - 1 / grid.tiles), grid) for ratio in RATIOS}
        whole = seconds(best, 1.0, grid)
    ratio = crossover(list(times), list(times.values()), dense)
    fastest = {"dense_ratio": ratio, "whole": whole < dense, "settings": asdict(best)}
    remember("kernels", kernel_key(device, dtype, channels), fastest)
    by_ratio = {f"{each:g}": value for each, value in times.items()}
    return KernelTimes(channels, precision, height, width, dense, whole, by_ratio, best, ratio)


def _or_never(seconds: Callable[[], float]) -> float:
    """What it measures; infinite where it cannot: not every GPU has the shared memory for every setting."""
    try:
        return seconds()
    except Exception:  # noqa: BLE001 - compilers and drivers raise what they like
        return math.inf


def crossover(ratios: Sequence[float], seconds: Sequence[float], dense: float) -> float:
    """The ratio from which running everything, which takes `dense` seconds, is faster; 2 where it never is.

    Args:
        ratios: of active tiles, rising.
        seconds: of each; between them, they are taken to lie on straight lines.
        dense: seconds.
    """
    if dense >= seconds[-1]:
        return 2.0
    rising = np.maximum.accumulate(seconds)
    return float(np.interp(dense, rising, ratios)) if dense > rising[0] else ratios[0]


def spread_depth(grid: TileGrid, ratio: float, blocks: int) -> Tensor:
    """All blocks on so many tiles, spread over the frame at random but always in the same way: (1, rows, columns) int64."""
    order = torch.randperm(grid.tiles, generator=torch.Generator().manual_seed(0))
    return torch.where(order < round(ratio * grid.tiles), blocks, 0).view(1, grid.rows, grid.columns)


@dataclass(frozen=True)
class GpuClock:
    """Times steps by the GPU's own clock, each as a CUDA graph, so that giving it the work is not measured.

    Args:
        device: the GPU.
    """

    device: torch.device

    def __call__(self, step: Callable[[], Tensor]) -> float:
        """Seconds of a step, the median of some rounds of some starts."""
        replay = CudaRecord(self.device)(step)
        rounds = []
        for _ in range(_ROUNDS):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(_STARTS):
                replay()
            end.record()
            end.synchronize()
            rounds.append(start.elapsed_time(end) / 1000 / _STARTS)
        return float(np.median(rounds))
