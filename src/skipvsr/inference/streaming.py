"""Super-resolution of a stream of any length in fixed memory.

Frames are taken in windows. In each window the backward recurrence starts `lookahead` frames beyond the window's end, and
what it computes there is dropped; the forward state is handed on from frame to frame, across windows, exactly. A scene
cut ends both recurrences: no state crosses it. A scene of up to `window + lookahead` frames gives exactly what the
network gives on the whole scene; in a longer one only the backward state differs, by what lies beyond the lookahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from skipvsr.errors import ShapeError
from skipvsr.inference.patched import Patched
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.inference.strips import reconstruct_in_strips
from skipvsr.inference.transfer import to_device
from skipvsr.inference.windows import Windows
from skipvsr.models.recurrence import Recurrence, check_clip

Result = TypeVar("Result")
# Called when a frame was read and its flows are estimated ("read"), or a step of the backward recurrence is done
# ("backward"), with the number of the frame. Forward steps are seen by their results.
OnStep = Callable[[Literal["read", "backward"], int], object]
OnWindow: TypeAlias = Callable[[int, int], None]
# Of one frame: then it is computed again, so that whoever waits for results never holds many.
MOST_REPEATS = 100


@dataclass(frozen=True)
class Position:
    """Where a stream can go on, between two windows.

    Args:
        number: of the next frame.
        state: forward state (1, C, H, W) of the frame before it; None where a scene starts there.
    """

    number: int
    state: Tensor | None


@dataclass
class _Pending:
    """A frame whose result is still to come: (1, 3, H, W), its number, and its flows (1, 2, H, W) to its neighbours.

    So many frames behind it are the same and get the same result: `repeats`. `given` is the frame as it came, where it came.
    """

    frame: Tensor
    number: int
    given: Tensor
    repeats: int = 0
    to_previous: Tensor | None = None
    to_next: Tensor | None = None


def upscale_stream(
    frames: Iterable[Tensor],
    model: Recurrence,
    windows: Windows,
    *,
    starts_scene: Callable[[Tensor], bool] | None = None,
    repeat_detection: bool = False,
    routed: RoutedTrunks | None = None,
    start: Position | None = None,
    at_position: Callable[[Position], None] | None = None,
    recover: Recover | None = None,
    on_step: OnStep | None = None,
    on_window: OnWindow | None = None,
) -> Iterator[Tensor]:
    """Frames (3, H, W) in, frames (3, s * H, s * W) out, one for one and in order, with the model's scale s.

    RGB in [0, 1], results not clamped.

    Args:
        frames: all of one size, on any device; they are moved to the model's device and dtype.
        model: the network; used as it is, so put it where it should run.
        windows: how the stream is cut. At most `window + lookahead` frames and their states are held.
        starts_scene: called once on each frame in order; True where a new scene starts. None: one scene throughout.
        repeat_detection: a frame with the same pixels as the one before is not computed: it gets the same result, the same
            tensor again. `on_step` hears that it was read, and a trace of what ran has nothing of it.
        routed: how the trunks run; None: every block everywhere.
        start: go on here. All frames are given nevertheless, because scene cuts are found by those before; their results are
            not repeated. What a policy remembers of them is for the caller to restore.
        at_position: called wherever the stream could go on later, when all frames before it were taken from the iterator.
        recover: called where memory runs out; what it returns is used from there on. None: the error is passed on.
        on_step: called after each step that gives no result yet, also for frames before `start`, which are only read.
        on_window: called before each window with the number of passes of the backward and of the forward trunk to come in it.

    Raises:
        ShapeError: a frame is not (3, H, W), under 16 pixels a side, or of another size than the first.
    """
    stream = _Stream(
        model, windows, routed, start or Position(0, None), at_position or _ignore, recover, on_step, on_window
    )
    return stream.results(frames, starts_scene, repeat_detection)


class Recover(Protocol):
    """Says how a stream goes on where memory ran out."""

    def __call__(self, windows: Windows, height: int, width: int) -> tuple[Windows, Patched | None]:
        """Smaller windows, and patches in the place of whole frames of this size (None: as before). Raises ResourceError."""
        ...


class _Stream:
    """The state of `upscale_stream`: frames whose results are still to come, and the forward state of the one before."""

    def __init__(
        self,
        model: Recurrence,
        windows: Windows,
        routed: RoutedTrunks | None,
        start: Position,
        at_position: Callable[[Position], None],
        recover: Recover | None,
        on_step: OnStep | None,
        on_window: OnWindow | None,
    ) -> None:
        self._model, self._windows, self._routed, self._on_window = model, windows, routed, on_window
        self._start, self._at_position, self._recover = start, at_position, recover
        self._on_step: OnStep = on_step or _ignore_step
        self._state = start.state
        self._next = start.number
        self._pending: list[_Pending] = []

    def results(
        self, frames: Iterable[Tensor], starts_scene: Callable[[Tensor], bool] | None, repeat_detection: bool
    ) -> Iterator[Tensor]:
        parameter = next(self._model.parameters())
        last: Tensor | None = None
        for number, frame in enumerate(frames):
            current = _as_batch(frame, like=parameter, last=last)
            # Looked at where it came: on a GPU, the answer would have to be waited for.
            cut = starts_scene is not None and starts_scene(frame) and last is not None
            if number < self._start.number:
                last = current
                self._on_step("read", number)
                continue
            if cut:
                yield from self._finish_scene()
                last = None
            if repeat_detection and self._repeats(frame):
                self._on_step("read", number)
                continue
            self._append(current, number, last, frame)
            self._on_step("read", number)
            last = current
            # More frames than a window and its lookahead: the scene goes on, as the newest frame shows.
            while len(self._pending) > self._windows.window + self._windows.lookahead:
                yield from self._advance()
                self._at_position(Position(self._next, self._state))
        yield from self._finish_scene()

    def _repeats(self, frame: Tensor) -> bool:
        """Whether the frame repeats the newest one that is pending; it is counted there."""
        if not self._pending or self._pending[-1].repeats == MOST_REPEATS:
            return False
        newest = self._pending[-1]
        same = torch.equal(newest.given, frame)
        newest.repeats += same
        return same

    def _append(self, frame: Tensor, number: int, last: Tensor | None, given: Tensor) -> None:
        entry = _Pending(frame, number, given)
        if last is not None:
            to_next, entry.to_previous = self._retry(lambda: _flows(self._model, last, frame))
            if self._pending:
                self._pending[-1].to_next = to_next
        self._pending.append(entry)

    def _finish_scene(self) -> Iterator[Tensor]:
        """Results of all pending frames, the last of a scene, in windows, so that no more states are held than before."""
        while self._pending:
            yield from self._advance()
            self._at_position(Position(self._next, self._state if self._pending else None))
        self._state = None

    def _advance(self) -> Iterator[Tensor]:
        """Yield the results of a window; where memory runs out, of its first frames, and be thriftier from then on."""
        memory = None if self._routed is None else self._routed.remembered()
        try:
            for result in self._window():
                yield result
                memory = None if self._routed is None else self._routed.remembered()
            return
        except (MemoryError, RuntimeError) as error:
            if self._recover is None or not is_out_of_memory(error):
                raise
        # Outside of the handler, where nothing holds on to what the window had in memory.
        if self._routed is not None and memory is not None:
            self._routed.recall(memory)
        self._shrink()

    @torch.inference_mode()
    def _window(self) -> Iterator[Tensor]:
        """Results of the next window.

        The backward recurrence starts at the end of the lookahead; only its states within the window are kept.
        """
        model, run = self._model, self._routed
        entries = self._pending[: self._windows.window + self._windows.lookahead]
        count = min(self._windows.window, len(entries))
        if self._on_window is not None:
            passes = model.passes_per_frame if isinstance(model, Patched) else 1
            self._on_window(passes * len(entries), passes * count)
        backward: list[Tensor] = []
        behind: Tensor | None = None
        for index in reversed(range(len(entries))):
            entry = entries[index]
            behind = model.propagate("backward", entry.frame, behind, entry.to_next, run, entry.number)
            if index < count:
                backward.append(behind)
            self._on_step("backward", entry.number)
        for entry in entries[:count]:
            state = model.propagate("forward", entry.frame, self._state, entry.to_previous, run, entry.number)
            result = reconstruct_in_strips(model, entry.frame, backward.pop(), state)[0]
            self._state, self._next = state, entry.number + 1 + entry.repeats
            del self._pending[0]
            for _ in range(1 + entry.repeats):
                yield result

    def _retry(self, work: Callable[[], Result]) -> Result:
        """Do some work, again with less memory where it runs out."""
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if self._recover is None or not is_out_of_memory(error):
                    raise
            self._shrink()

    def _shrink(self) -> None:
        """Go on with less memory: shorter windows, or patches, for which states and flows are cut."""
        assert self._recover is not None
        frame = self._pending[0].frame
        self._windows, patched = self._recover(self._windows, frame.shape[-2], frame.shape[-1])
        if patched is None:
            return
        before, self._model = self._model, patched

        def cut(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            whole = before.grid.merge(values, scale=1) if isinstance(before, Patched) else values
            return patched.grid.cut(whole)

        self._state = cut(self._state)
        for entry in self._pending:
            entry.to_previous, entry.to_next = cut(entry.to_previous), cut(entry.to_next)


def _ignore(position: Position) -> None:
    """What is called where nobody wants to know."""


def _ignore_step(step: Literal["read", "backward"], number: int) -> None:
    """The same, for steps."""


@torch.inference_mode()
def _flows(model: Recurrence, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Flow that brings `later` onto `earlier` (for the backward recurrence), and the other way round."""
    to_next, to_previous = model.estimate_flow(torch.cat((earlier, later)), torch.cat((later, earlier))).chunk(2)
    return to_next, to_previous


def _as_batch(frame: Tensor, like: Tensor, last: Tensor | None) -> Tensor:
    """(3, H, W) -> (1, 3, H, W) on the device of `like` and in its dtype, but never in half precision: 8 bits need more."""
    if last is not None and frame.shape != last.shape[1:]:
        raise ShapeError(f"a frame has shape {tuple(frame.shape)} after frames of shape {tuple(last.shape[1:])}")
    if frame.ndim != 3:
        raise ShapeError(f"a frame has shape {tuple(frame.shape)}; it must be (3, height, width), RGB in [0, 1]")
    check_clip(frame[None, None])
    dtype = torch.float32 if like.dtype in (torch.bfloat16, torch.float16) else like.dtype
    return to_device(frame[None], like.device, dtype)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's own, a GPU's, or that of torch's allocator on the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )
