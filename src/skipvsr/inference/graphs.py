"""Steps of fixed shapes as CUDA graphs: recorded once, then started by one call instead of a hundred.

On a fast GPU a step of a small frame takes less time than giving the GPU its kernels one by one. A graph is recorded where a
step has been asked for often enough with tensors of the same shapes. It works on tensors to which inputs are copied, and from
which the result is: nobody holds memory that the next start overwrites. All graphs share these tensors, and one pool of working
memory, because one runs after the other: however many there are, they take little more than one. What a graph gives is
compared with the step itself before it is used. Where recording fails, or memory runs out in it, steps go on as they are, and
a note says why.

Convolutions are those that cuDNN chooses by its rules, with and without graphs, so that going on with a job gives identical
frames. (cuDNN's own trials, `torch.backends.cudnn.benchmark`, may choose others each time.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor

from skipvsr.models.recurrence import Recurrence, RunTrunk, WrappedNetwork
from skipvsr.routing.learned import Gains
from skipvsr.routing.policies import TrunkStep
from skipvsr.terms import Direction

_LOG = logging.getLogger("skipvsr")
# Graphs that are kept; further steps run without one.
MOST_GRAPHS = 96
# Call of a step at which it is recorded: recording takes about as long as some dozens of calls save.
RECORD_AT = 24
# Pixels of a step's first input, of all its images, from which it keeps the GPU busy anyway; memory of graphs is theirs alone.
MOST_PIXELS = 1 << 18
# Relative difference up to which a graph gives what the step gives: the order of sums may differ, no more.
_TOLERANCE = 2e-3


class Record(Protocol):
    """Records what a step does on the device."""

    def __call__(self, step: Callable[[], object]) -> Callable[[], object]:
        """Run the step to warm up, and record it: what does it all again, on the same tensors."""
        ...


# A process records one graph at a time.
_ONE_AT_A_TIME = Lock()


class CudaRecord:
    """Records CUDA graphs (HIP graphs on AMD's GPUs) on one stream and in one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Libraries make their handles for a stream when it is first used, which must not happen while it is recorded.
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None

    def __call__(self, step: Callable[[], object]) -> Callable[[], object]:
        """See `Record`."""
        with _ONE_AT_A_TIME, torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(2):
                    step()
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            try:
                # Other threads of ours fetch results meanwhile: what they do is no part of it, and no mistake either.
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    step()
            finally:
                torch.cuda.set_stream(current)  # where recording fails, torch leaves the other one in its place
            self._pool = self._pool or graph.pool()
        return graph.replay


@dataclass(frozen=True)
class _Graph:
    inputs: tuple[Tensor, ...]
    result: Tensor
    replay: Callable[[], object]

    def start(self, *inputs: Tensor) -> Tensor:
        for static, values in zip(self.inputs, inputs, strict=True):
            static.copy_(values)
        self.replay()
        return self.result.clone()


@dataclass
class StepGraphs:
    """Runs steps that are asked for again and again through graphs.

    Args:
        record: how a step is recorded.
        most: graphs that are kept.
        record_at: the call of a step, counted from 1, at which it is recorded.
    """

    record: Record
    most: int = MOST_GRAPHS
    record_at: int = RECORD_AT
    _graphs: dict[Hashable, _Graph] = field(default_factory=dict, init=False, repr=False)
    _calls: dict[Hashable, int] = field(default_factory=dict, init=False, repr=False)
    _tensors: dict[Hashable, Tensor] = field(default_factory=dict, init=False, repr=False)
    _given_up: bool = field(default=False, init=False)
    # Streams in several threads may share the graphs, whose inputs and results are one tensor each.
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def run(self, name: Hashable, step: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """What the step makes of the inputs; a new tensor.

        Args:
            name: of the step; the same name must always mean the same step. All that it depends on beside the inputs'
                numbers, their shapes, types and strides belongs into it.
            step: gives one tensor of floating-point numbers and leaves its inputs alone. It neither waits for the device nor
                looks at numbers there.
            inputs: on the device; the first is (N, C, H, W).
        """
        key = (name, *((each.shape, each.stride(), each.dtype) for each in inputs))
        count, _, height, width = inputs[0].shape
        if count * height * width > MOST_PIXELS:
            return step(*inputs)
        with self._lock:
            graph = self._graphs.get(key)
            if graph is not None:
                return graph.start(*inputs)
            result = step(*inputs)
            if not self._given_up and len(self._graphs) < self.most:
                self._calls[key] = self._calls.get(key, 0) + 1
                if self._calls[key] >= self.record_at:
                    self._keep(key, step, inputs, result)
            return result

    def _keep(self, key: Hashable, step: Callable[..., Tensor], inputs: tuple[Tensor, ...], expected: Tensor) -> None:
        try:
            static = tuple(self._shared(place, each) for place, each in enumerate(inputs))
            result = self._shared("result", expected)
            for one, two in zip(static, inputs, strict=True):
                one.copy_(two)  # warming up needs numbers, too
            graph = _Graph(static, result, self.record(lambda: result.copy_(step(*static))))
            result.fill_(torch.nan)
            found = graph.start(*inputs)
        except (RuntimeError, MemoryError) as error:
            self._give_up(str(error).partition("\n")[0])
            return
        scale = expected.float().norm().clamp(min=1e-12)
        difference = ((found.float() - expected.float()).norm() / scale).item()
        if not difference <= _TOLERANCE:  # NaN is no number that is less
            self._give_up(f"a graph differs from what it was recorded from by {difference:.2g}")
            return
        self._graphs[key] = graph

    def _shared(self, role: Hashable, like: Tensor) -> Tensor:
        """The tensor of a role that all graphs use that have one of this shape, type and strides there."""
        key = (role, like.shape, like.stride(), like.dtype)
        if key not in self._tensors:
            self._tensors[key] = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)
        return self._tensors[key]

    def _give_up(self, reason: str) -> None:
        self._given_up = True
        for kept in (self._graphs, self._calls, self._tensors):
            kept.clear()
        _LOG.warning("steps run without CUDA graphs: %s", reason)


@dataclass(frozen=True)
class GraphedNetwork(WrappedNetwork):
    """A network whose steps run through graphs. Trunks that are routed do so in their own way (`RunTrunk`).

    Args:
        network: whole frames, not patches.
        graphs: those of other networks too, if these have other names.
        name: of the network.
    """

    network: Recurrence
    graphs: StepGraphs
    name: str = ""

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """As the network's."""
        return self.graphs.run((self.name, "flow"), self.network.estimate_flow, reference, support)

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """As the network's."""
        if run is not None:
            return self.network.propagate(direction, frame, state, flow, run, number)
        if state is None or flow is None:
            return self.graphs.run(
                (self.name, direction, "first"),
                lambda frame: self.network.propagate(direction, frame, None, None),
                frame,
            )
        return self.graphs.run((self.name, direction), partial(self.network.propagate, direction), frame, state, flow)

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """As the network's."""
        return self.graphs.run((self.name, "reconstruction"), self.network.reconstruct, frame, backward, forward)


def graphed_gains(gains: Gains, graphs: StepGraphs) -> Gains:
    """The gains that a router predicts, through graphs."""

    def of_step(step: TrunkStep) -> Tensor:
        def predict(frame: Tensor, state: Tensor, flow: Tensor | None = None) -> Tensor:
            return gains(replace(step, frame=frame, state=state, flow=flow))

        inputs = (step.frame, step.state) if step.flow is None else (step.frame, step.state, step.flow)
        return graphs.run(("gains", step.direction, step.grid, step.blocks), predict, *inputs)

    return of_step


def make_graphs(device: torch.device) -> StepGraphs | None:
    """Graphs for steps on a device; None where there is no such thing."""
    return StepGraphs(CudaRecord(device)) if device.type == "cuda" else None
