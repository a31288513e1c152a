"""The paper's testing: the frame is cut into overlapping patches that know nothing of each other, and merged by weights.

Every patch is a video of its own: flow, warping, propagation and decisions stay within it, and one decision holds for the
whole patch. It loses context at the patches' borders and does the overlap twice; `frame` tiling does neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.models.recurrence import MIN_SIDE_PX, Recurrence, RunTrunk, WrappedNetwork
from skipvsr.terms import Direction

PATCH_PX = 48
STRIDE_PX = 46
PATCH_BATCH_SIZE = 16


@dataclass(frozen=True)
class PatchGrid:
    """Patches of a frame: `rows` x `columns` of patch_height x patch_width pixels, the last ones moved inward to end with it.

    Example: 180 x 320 in patches of 48 with stride 46 is 4 x 7 patches, at rows 0, 46, 92, 132 and columns 0, 46, ... 272.
    """

    height: int
    width: int
    patch_px: int = PATCH_PX
    stride_px: int = STRIDE_PX

    def __post_init__(self) -> None:
        if self.patch_px < MIN_SIDE_PX:
            raise ConfigError(f"patches are {self.patch_px} pixels; they must be at least {MIN_SIDE_PX}")
        if not 1 <= self.stride_px <= self.patch_px:
            raise ConfigError(
                f"the stride is {self.stride_px} pixels; it must be from 1 to the patch's {self.patch_px}"
            )

    @property
    def patch_height(self) -> int:
        return min(self.patch_px, self.height)

    @property
    def patch_width(self) -> int:
        return min(self.patch_px, self.width)

    @property
    def tops(self) -> list[int]:
        """First row of each row of patches."""
        return _starts(self.height, self.patch_height, self.stride_px)

    @property
    def lefts(self) -> list[int]:
        """First column of each column of patches."""
        return _starts(self.width, self.patch_width, self.stride_px)

    @property
    def patches(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def borders(self) -> tuple[list[int], list[int]]:
        """The first row below, and column right of, each line inside the frame where a patch starts or ends."""
        return _borders(self.tops, self.patch_height), _borders(self.lefts, self.patch_width)

    def cut(self, frames: Tensor) -> Tensor:
        """(N, C, height, width) -> (N * patches, C, patch_height, patch_width), row by row within each frame."""
        patches = [
            frames[..., top : top + self.patch_height, left : left + self.patch_width]
            for top in self.tops
            for left in self.lefts
        ]
        return torch.stack(patches, dim=1).flatten(0, 1)

    def merge(self, patches: Tensor, scale: int) -> Tensor:
        """Super-resolved patches (N * patches, C, scale * patch_height, scale * patch_width) -> whole frames.

        Where patches overlap, each counts by its distance to its own border, so that one fades into the other.
        """
        high, wide = self.patch_height * scale, self.patch_width * scale
        weight = _ramp(high)[:, None].to(patches) * _ramp(wide)[None].to(patches)
        count, channels = patches.shape[0] // self.patches, patches.shape[1]
        total = patches.new_zeros(count, channels, self.height * scale, self.width * scale)
        weights = patches.new_zeros(self.height * scale, self.width * scale)
        of_frame = patches.view(count, self.patches, *patches.shape[1:])
        places = ((top * scale, left * scale) for top in self.tops for left in self.lefts)
        for index, (top, left) in enumerate(places):
            total[..., top : top + high, left : left + wide] += of_frame[:, index] * weight
            weights[top : top + high, left : left + wide] += weight
        return total / weights

    def expand(self, values: Tensor) -> Tensor:
        """One value a patch, (patches,), at the pixels for which it is the last to start: (height, width)."""
        rows = torch.bucketize(torch.arange(self.height), torch.tensor(self.tops), right=True) - 1
        columns = torch.bucketize(torch.arange(self.width), torch.tensor(self.lefts), right=True) - 1
        return values.view(len(self.tops), len(self.lefts))[rows][:, columns]


@dataclass(frozen=True)
class Patched(WrappedNetwork):
    """A network that works on the patches of a frame as if each were a video of its own.

    It takes and gives whole frames; flows and states are those of all patches: (patches, C, patch_height, patch_width).

    Args:
        network: the network.
        grid: of the frames.
        patch_batch_size: patches in a call of the flow network and of the reconstruction, and tiles at once in the trunks.
        all_at_once: False: the trunks, too, take so many patches at a time, for less memory; then a policy must not remember
            anything from frame to frame.
    """

    network: Recurrence
    grid: PatchGrid
    patch_batch_size: int = PATCH_BATCH_SIZE
    all_at_once: bool = True

    def __post_init__(self) -> None:
        if self.patch_batch_size < 1:
            raise ConfigError(f"{self.patch_batch_size} patches in a batch; it must be at least 1")

    @property
    def passes_per_frame(self) -> int:
        """Calls of a trunk that a frame takes."""
        return 1 if self.all_at_once else -(-self.grid.patches // self.patch_batch_size)

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """Frames (N, 3, H, W) twice -> flows (N * patches, 2, patch_height, patch_width)."""
        return self._in_parts(self.network.estimate_flow, self.grid.cut(reference), self.grid.cut(support))

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """As the network's, on the patches."""

        def step(patches: Tensor, state: Tensor | None = None, flow: Tensor | None = None) -> Tensor:
            return self.network.propagate(direction, patches, state, flow, run, number)

        patches = self.grid.cut(frame)
        if self.all_at_once:
            return step(patches, state, flow)
        if state is None or flow is None:
            return self._in_parts(step, patches)
        return self._in_parts(step, patches, state, flow)

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """The whole frame, (1, 3, s * H, s * W) with the scale s."""
        patches = self._in_parts(self.network.reconstruct, self.grid.cut(frame), backward, forward)
        return self.grid.merge(patches, self.scale)

    def _in_parts(self, work: Callable[..., Tensor], *patches: Tensor) -> Tensor:
        parts = zip(*(values.split(self.patch_batch_size) for values in patches), strict=True)
        return torch.cat([work(*part) for part in parts])


def _starts(side: int, patch: int, stride: int) -> list[int]:
    return [*range(0, side - patch, stride), side - patch]


def _borders(starts: list[int], length: int) -> list[int]:
    return sorted({*starts[1:], *(start + length for start in starts[:-1])})


def _ramp(length: int) -> Tensor:
    """Distance of each pixel's centre to the nearer border: 0.5, 1.5, ... 1.5, 0.5."""
    position = torch.arange(length) + 0.5
    return torch.minimum(position, length - position)
