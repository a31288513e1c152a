"""Seconds of each part of the network, and peak memory."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import psutil
import torch
from torch import Tensor

from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.recurrence import Recurrence, RunTrunk, WrappedNetwork
from skipvsr.routing.policies import ByDepth, Decide, Policy, RememberingPolicy, TrunkStep
from skipvsr.terms import Direction

Part = Literal["flow", "trunks", "router", "reconstruction"]
PARTS: tuple[Part, ...] = get_args(Part)
# Calls of each part that are not counted in medians: memory is fetched then, and convolutions are chosen.
COLD = 2


@dataclass
class PartTimes:
    """Seconds of every call.

    Args:
        device: is waited for, before and after.
        calls: by part and direction ("" for what has none), in the order in which they were made: "flow" of each frame but the
            first, "trunks" of each frame and direction, without what the "router" took in them, "reconstruction" of each frame.
    """

    device: torch.device
    calls: dict[tuple[Part, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    _router: float = 0.0

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Time what is done inside."""
        started = self._now()
        yield
        self.calls[part, ""].append(self._now() - started)

    @contextmanager
    def measure_trunk(self, direction: Direction) -> Iterator[None]:
        """Time a trunk; what `measure_router` measures inside goes to the router."""
        self._router = 0.0
        started = self._now()
        yield
        self.calls["trunks", direction].append(self._now() - started - self._router)
        self.calls["router", direction].append(self._router)

    @contextmanager
    def measure_router(self) -> Iterator[None]:
        """Time a decision, or what comes before them."""
        started = self._now()
        yield
        self._router += self._now() - started

    def seconds_per_frame(self, frames: int) -> dict[str, dict[str, float]]:
        """Mean, median and 90th percentile by part: seconds a frame.

        The mean has everything in it, cold calls and the lookahead of windows too. Median and percentile are of warm calls,
        times the calls that a frame takes in the mean (more than one with lookahead); those of both directions are added up,
        because one may cost far more than the other.
        """
        found = {part: {"mean": 0.0, "median": 0.0, "p90": 0.0} for part in PARTS}
        for (part, _), calls in self.calls.items():
            warm = np.asarray(calls[COLD:] or calls)
            per_frame = len(calls) / frames
            found[part]["mean"] += sum(calls) / frames
            found[part]["median"] += float(np.median(warm)) * per_frame
            found[part]["p90"] += float(np.percentile(warm, 90)) * per_frame
        return dict(found)

    def watch_network(self, network: Recurrence) -> Recurrence:
        """The network, with the time of its parts noted."""
        return TimedNetwork(network, self)

    def watch_routing(self, routed: RoutedTrunks) -> RoutedTrunks:
        """The same decisions, with their time noted."""
        return replace(routed, policy=_TimedPolicy(routed.policy, self))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass(frozen=True)
class TimedNetwork(WrappedNetwork):
    """A network that notes how long its parts take; see `Recurrence`."""

    network: Recurrence
    times: PartTimes

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """As the network's."""
        with self.times.measure("flow"):
            return self.network.estimate_flow(reference, support)

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
        with self.times.measure_trunk(direction):
            return self.network.propagate(direction, frame, state, flow, run, number)

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """As the network's."""
        with self.times.measure("reconstruction"):
            return self.network.reconstruct(frame, backward, forward)


@dataclass(frozen=True)
class _TimedPolicy:
    policy: Policy
    times: PartTimes

    def __call__(self, step: TrunkStep) -> Decide:
        with self.times.measure_router():
            decide = self.policy(step)
        if isinstance(decide, ByDepth):
            return decide  # all is decided

        def timed(block: int, state: Tensor) -> Tensor:
            with self.times.measure_router():
                return decide(block, state)

        return timed

    def memory(self) -> dict[str, Tensor]:
        """Of the policy, where it remembers anything."""
        return self.policy.memory() if isinstance(self.policy, RememberingPolicy) else {}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Hand it to the policy."""
        if isinstance(self.policy, RememberingPolicy):
            self.policy.recall(memory)


class PeakMemory:
    """The largest memory in use since it was made: of the GPU where the device is one, else resident, of this process.

    Linux says exactly how much that was; elsewhere it is looked at when `look` is called.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._most = 0
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._exact = True
        except OSError:
            self._exact = False
        self.look()

    def look(self) -> int:
        """Bytes, up to now."""
        if self._cuda is not None:
            return torch.cuda.max_memory_allocated(self._cuda)
        self._most = max(self._most, psutil.Process().memory_info().rss, self._high_water() if self._exact else 0)
        return self._most

    @staticmethod
    def _high_water() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next((line.split()[1] for line in lines if line.startswith("VmHWM:")), "0"))
