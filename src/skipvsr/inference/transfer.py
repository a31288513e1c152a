"""Frames on their way to a GPU, and results on their way back: through pinned memory, so that nobody waits for too much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The values on a device, in a type; from the CPU to a GPU without waiting for what the GPU is doing.

    From ordinary memory the copy would wait until the GPU has done all that it was given before.
    """
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device=device, dtype=dtype)
    # Torch keeps pinned memory until the copy from it is done.
    return values.to(dtype).pin_memory().to(device, non_blocking=True)


class Arriving(Protocol):
    """Values on their way to the CPU."""

    def get(self) -> Tensor:
        """The values on the CPU; waits for them, and for nothing that the GPU was given after them."""
        ...


class Fetch(Protocol):
    """Starts the way of values to the CPU."""

    def __call__(self, values: Tensor) -> Arriving: ...


def make_fetch(device: torch.device) -> Fetch | None:
    """What brings results from a GPU; None where they are on the CPU already, or come no faster."""
    return GpuFetch(device) if device.type == "cuda" else None


@dataclass
class GpuFetch:
    """Copies to pinned memory in a stream of its own, while the GPU computes what follows.

    Args:
        device: the GPU.
    """

    device: torch.device
    _stream: torch.cuda.Stream = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._stream = torch.cuda.Stream(self.device)

    def __call__(self, values: Tensor) -> Arriving:
        """Start on values that the current stream makes."""
        made = torch.cuda.Event()
        made.record(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(made)
            there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            there.copy_(values, non_blocking=True)
            # Their memory may be used again when the copy is done, not before.
            values.record_stream(self._stream)
            done = torch.cuda.Event()
            done.record(self._stream)
        return _Event(there, done.synchronize)


@dataclass(frozen=True)
class _Event:
    values: Tensor
    wait: Callable[[], object]

    def get(self) -> Tensor:
        self.wait()
        return self.values
