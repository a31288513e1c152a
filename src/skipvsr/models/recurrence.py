"""What streaming asks of a network, one frame at a time, and how a network asks for its trunks to be run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from skipvsr.errors import ShapeError
from skipvsr.models.blocks import Trunk
from skipvsr.terms import Direction

MIN_SIDE_PX = 16


class RunTrunk(Protocol):
    """How a trunk is run: `skipvsr.inference.routed.RoutedTrunks` skips blocks; None runs everything."""

    def __call__(
        self, trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None, number: int
    ) -> Tensor:
        """The new state (N, C, H, W) from the frame (N, 3, H, W), the aligned state and the flow that aligned it.

        `number` is that of the frame, from 0; -1 where the caller does not say.
        """
        ...


class Recurrence(Protocol):
    """A network in steps: `SkipVSR`, `Bicubic`, or what changes how one of them is computed (`WrappedNetwork`)."""

    @property
    def scale(self) -> int:
        """How many times larger each side becomes."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The first of them says on which device and in which dtype frames are wanted."""
        ...

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """Flow (N, 2, H, W) in pixels that brings `support` onto `reference`, both (N, 3, H, W)."""
        ...

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """One step of a recurrence: the state (N, C, H, W) of a frame from that of its neighbour.

        Args:
            direction: "backward": the neighbour is the next frame; "forward": it is the one before.
            frame: (N, 3, H, W).
            state: of the neighbour; None: start from zero.
            flow: (N, 2, H, W) that brings the neighbour onto the frame; None: start from zero.
            run: how the trunk is run; None runs every block everywhere.
            number: of the frame, from 0, for `run`; -1: unknown.
        """
        ...

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """Frame (N, 3, H, W) and its two states (N, C, H, W) -> (N, 3, s * H, s * W) with the scale s."""
        ...


class WrappedNetwork:
    """Base of what wraps a network: computes its steps in another way (patches, OpenVINO), or measures them."""

    network: Recurrence

    @property
    def scale(self) -> int:
        """Of the network."""
        return self.network.scale

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of the network."""
        return self.network.parameters()


def check_clip(frames: Tensor) -> None:
    """Raise ShapeError unless `frames` is (B, T, 3, H, W) with at least one frame and sides of at least 16 pixels."""
    shape = tuple(frames.shape)
    if frames.ndim != 5 or shape[2] != 3 or shape[0] < 1 or shape[1] < 1:
        raise ShapeError(f"got a tensor of shape {shape}; a clip is (batch, frames, 3, height, width), RGB in [0, 1]")
    if min(shape[-2:]) < MIN_SIDE_PX:
        raise ShapeError(f"frames are {shape[-1]}x{shape[-2]}; each side must be at least {MIN_SIDE_PX} pixels")
