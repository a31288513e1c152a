"""A running stream of an `Upscaler`: its results, and the state from which it can go on later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol, TypeVar

from torch import Tensor

from skipvsr.inference.budget import BudgetAccount
from skipvsr.inference.controllers import SpeedController
from skipvsr.inference.graphs import graphed_gains
from skipvsr.inference.lean import LeanWithin
from skipvsr.inference.memory import MemoryFallback
from skipvsr.inference.patched import PATCH_PX, Patched
from skipvsr.inference.policies import ThresholdPolicy
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.inference.scenes import SceneCuts
from skipvsr.inference.streaming import OnStep, Position, upscale_stream
from skipvsr.inference.windows import Windows
from skipvsr.models.recurrence import Recurrence, check_clip
from skipvsr.routing.learned import GainThreshold
from skipvsr.routing.policies import RememberingPolicy
from skipvsr.routing.rest import Rest
from skipvsr.routing.trace import Tally, Trace, Traces

if TYPE_CHECKING:
    from skipvsr.inference.upscaler import Upscaler

Value = TypeVar("Value")


class Instrument(Protocol):
    """Measures a stream while it runs, by wrapping its network and its routing."""

    def watch_network(self, network: Recurrence) -> Recurrence: ...

    def watch_routing(self, routed: RoutedTrunks) -> RoutedTrunks: ...


@dataclass(frozen=True)
class StreamState:
    """The state of a stream between two windows, from which it can be resumed.

    Args:
        number: of the next frame.
        numbers: by name: what ran so far, and what the controller of the budget knows.
        tensors: by name, on the CPU: the forward state, and what the router's policy remembers.
    """

    number: int
    numbers: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


# Number of the next frame, and what makes the state at this moment (copying it takes time).
AtPosition = Callable[[int, Callable[[], StreamState]], None]


class FrameStream(Iterator[Tensor]):
    """The results of `Upscaler.stream`, and how it stands.

    Attributes:
        tally: how much ran.
        scenes: found so far; 1 where scene cuts are not looked for.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        frames: Iterable[Tensor],
        trace: Trace | None,
        start: StreamState | None,
        at_position: AtPosition | None,
        instrument: Instrument | None,
        on_step: OnStep | None,
    ) -> None:
        self.tally = Tally()
        self.scenes = 1
        self._account: BudgetAccount | None = None
        self._upscaler, self._trace = upscaler, trace
        self._start, self._at_position, self._instrument, self._on_step = start, at_position, instrument, on_step
        self._routed = self._make_routed()
        self._controller: SpeedController | None = None
        policy = None if self._routed is None else self._routed.policy
        # Where a router compares frames, or somebody looks at tiles, blended tiles cannot stand in for the whole frame.
        whole = isinstance(policy, RememberingPolicy) or upscaler.compute.tiling == "patch" or trace is not None
        tile_px = 0 if start is None else int(start.numbers.get("tile_px", 0))
        self._fallback = MemoryFallback(tiles_allowed=not whole, tile_px=tile_px)
        self._results = self._run(iter(frames))
        self._since: float | None = None

    def __next__(self) -> Tensor:
        now = time.perf_counter()
        if self._controller is not None and self._since is not None:
            self._controller.frame_done(now - self._since)
        self._since = now
        return next(self._results)

    def _make_routed(self) -> RoutedTrunks | None:
        """How the trunks run, with a policy that remembers nothing yet; None where everything runs and nobody looks."""
        upscaler, compute = self._upscaler, self._upscaler.compute
        if not upscaler.routes and self._trace is None:
            return None
        policy, calibration = upscaler.make_policy(), upscaler.model.calibration
        budget = compute.budget if compute.target_fps is None else 1.0  # where a frame rate was asked for, it is turned
        if budget is not None and calibration is not None and isinstance(policy, ThresholdPolicy):
            policy.account = self._account = BudgetAccount(calibration, budget, self.tally)
        if upscaler.graphs is not None and isinstance(policy, GainThreshold):
            policy.gains = graphed_gains(policy.gains, upscaler.graphs)
        counted = self._account or self.tally
        traces = Traces((counted,) if self._trace is None else (counted, self._trace))
        if compute.tiling == "patch":
            return RoutedTrunks(policy, PATCH_PX, upscaler.execution(compute.patch_batch_size), traces)
        rest = Rest() if compute.rest and compute.skips and isinstance(policy, GainThreshold) else None
        return RoutedTrunks(policy, upscaler.tile_size, upscaler.execution(), traces, rest)

    def _run(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        first = next(frames, None)
        if first is None:
            return
        check_clip(first[None, None])
        height, width = first.shape[-2:]
        windows = self._upscaler.windows(height, width)
        network = self._network(height, width)
        self._controller = self._make_controller(windows.window)
        position = None if self._start is None else self._restore(self._start)
        if position is not None and isinstance(network, Patched) and position.state is not None:
            position = _in_patches(position, network)
        routed = self._routed
        if self._instrument is not None:
            network = self._instrument.watch_network(network)
            routed = routed and self._instrument.watch_routing(routed)
        yield from upscale_stream(
            chain((first,), frames),
            network,
            windows,
            starts_scene=self._count_scenes(SceneCuts()) if self._upscaler.stream_options.scene_detection else None,
            repeat_detection=self._upscaler.stream_options.repeat_detection,
            routed=routed,
            start=position,
            at_position=self._tell_position,
            recover=self._recover,
            on_step=self._on_step,
            on_window=None if self._account is None else self._account.begin_window,
        )

    def _network(self, height: int, width: int) -> Recurrence:
        network, grid = self._whole_network(), self._upscaler.patch_grid(height, width)
        if grid is not None:
            return Patched(network, grid, self._upscaler.compute.patch_batch_size)
        return self._blended(height, width) if self._fallback.tile_px else network

    def _whole_network(self) -> Recurrence:
        """For whole frames."""
        network, lean = self._upscaler.network, self._upscaler.lean_network
        return network if lean is None or self._account is None else LeanWithin(network, lean, self._account)

    def _blended(self, height: int, width: int) -> Patched:
        if self._routed is not None and self._routed.rest is not None:
            self._routed.rest.stop()
        return Patched(self._whole_network(), self._fallback.grid(height, width), patch_batch_size=1, all_at_once=False)

    def _recover(self, windows: Windows, height: int, width: int) -> tuple[Windows, Patched | None]:
        before = self._fallback.tile_px
        windows = self._fallback.shrink(windows)
        return windows, self._blended(height, width) if self._fallback.tile_px != before else None

    def _make_controller(self, window: int) -> SpeedController | None:
        """What changes the budget while the video runs, where a frame rate was asked for."""
        target = self._upscaler.compute.target_fps
        return None if target is None or self._account is None else SpeedController(self._account, target, window)

    def _count_scenes(self, detector: SceneCuts) -> Callable[[Tensor], bool]:
        def starts_scene(frame: Tensor) -> bool:
            cut = detector(frame)
            self.scenes += cut
            return cut

        return starts_scene

    def _tell_position(self, position: Position) -> None:
        if self._at_position is not None:
            self._at_position(position.number, partial(self._state_at, position))

    def _state_at(self, position: Position) -> StreamState:
        numbers = {
            "passes": float(self.tally.passes),
            "ratios": self.tally.ratios,
            "tile_px": float(self._fallback.tile_px),
        }
        for controller in (self._account, self._controller):
            if controller is not None:
                numbers |= {f"controller.{name}": value for name, value in controller.state().items()}
        tensors = {} if position.state is None else {"state": position.state}
        if position.state is not None and self._routed is not None:
            known = self._routed.remembered().items()
            tensors |= {f"memory.{name}": value for name, value in known if value is not position.state}
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        return StreamState(position.number, numbers, copies)

    def _restore(self, state: StreamState) -> Position:
        self.tally.passes, self.tally.ratios = int(state.numbers["passes"]), state.numbers["ratios"]
        for controller in (self._account, self._controller):
            if controller is not None:
                controller.restore(_under("controller.", state.numbers))
        tensors = {name: tensor.to(self._upscaler.device) for name, tensor in state.tensors.items()}
        if self._routed is not None:
            known = _under("memory.", tensors)
            # What was the same tensor was kept once.
            last = {"rest.state": tensors["state"]} if "rest.frame" in known else {}
            self._routed.recall(last | known)
        return Position(state.number, tensors.get("state"))


def _in_patches(position: Position, network: Patched) -> Position:
    """The position with its state cut into patches, where it is that of a whole frame."""
    assert position.state is not None
    if position.state.shape[0] == network.grid.patches:
        return position
    return Position(position.number, network.grid.cut(position.state))


def _under(prefix: str, values: dict[str, Value]) -> dict[str, Value]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
