"""Super-resolution of a stream of any length in fixed memory.

Frames are taken in windows. In each window the backward recurrence starts `lookahead` frames beyond the window's end, and
what it computes there is dropped; the forward state is handed on from frame to frame, across windows, exactly. A scene
cut ends both recurrences: no state crosses it. A scene of up to `window + lookahead` frames gives exactly what the
network gives on the whole scene; in a longer one only the backward state differs, by what lies beyond the lookahead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from skipvsr.errors import ConfigError, ShapeError
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.blocks import SCALE
from skipvsr.models.vsr import Recurrence, VSRConfig, check_clip

DEFAULT_LOOKAHEAD = 4
MAX_WINDOW = 32
MIN_WINDOW = 4
STATE_BYTES = 1 << 30
# The reconstruction's largest features of so many pixels take 1 GiB at 64 channels.
STRIP_PIXELS = 1 << 18
# Low-resolution pixels beyond which nothing changes a pixel of the reconstruction's result (its convolutions reach 2 of them).
RECONSTRUCTION_HALO_PX = 4


@dataclass(frozen=True)
class Windows:
    """How a stream is cut.

    Args:
        window: frames per window; the backward states of one window are in memory at a time.
        lookahead: frames beyond a window's end from which the backward recurrence starts.

    Raises:
        ConfigError: window under 1 or lookahead under 0.
    """

    window: int
    lookahead: int = DEFAULT_LOOKAHEAD

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"the window is {self.window} frames; it must be at least 1")
        if self.lookahead < 0:
            raise ConfigError(f"the lookahead is {self.lookahead} frames; it must be 0 or more")


def default_window(config: VSRConfig, height: int, width: int) -> int:
    """Frames per window, from 4 to 32: as many as keep the stored backward states (fp32) within 1 GiB.

    A longer window wastes less of the backward recurrence on lookahead, a shorter one takes less memory; the picture
    depends on the lookahead alone, but for rounding (docs/streaming.md has the measurement).
    """
    per_frame = 4 * config.channels * height * width
    return max(MIN_WINDOW, min(MAX_WINDOW, STATE_BYTES // per_frame))


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
    """A frame whose result is still to come: (1, 3, H, W), its number, and its flows (1, 2, H, W) to its neighbours."""

    frame: Tensor
    number: int
    to_previous: Tensor | None = None
    to_next: Tensor | None = None


def upscale_stream(
    frames: Iterable[Tensor],
    model: Recurrence,
    windows: Windows,
    *,
    starts_scene: Callable[[Tensor], bool] | None = None,
    routed: RoutedTrunks | None = None,
    start: Position | None = None,
    at_position: Callable[[Position], None] | None = None,
) -> Iterator[Tensor]:
    """Frames (3, H, W) in, frames (3, 4H, 4W) out, one for one and in order; RGB in [0, 1], results not clamped.

    Args:
        frames: all of one size, on any device; they are moved to the model's device and dtype.
        model: a `SkipVSR`, or `Patched` around one; used as it is, so put it where it should run.
        windows: how the stream is cut. At most `window + lookahead` frames and their states are held.
        starts_scene: called once on each frame in order; True where a new scene starts. None: one scene throughout.
        routed: how the trunks run; None: every block everywhere.
        start: go on here. All frames are given nevertheless, because cuts are found by those before; their results are not
            repeated. What a policy remembers of them is for the caller to restore.
        at_position: called wherever the stream could go on later, when all frames before it were taken from the iterator.

    Raises:
        ShapeError: a frame is not (3, H, W), under 16 pixels a side, or of another size than the first.
    """
    parameter = next(model.parameters())
    at_position = at_position or _ignore
    start = start or Position(0, None)
    pending: list[_Pending] = []
    state = start.state
    last: Tensor | None = None

    for number, frame in enumerate(frames):
        current = _as_batch(frame, like=parameter, last=last)
        cut = starts_scene is not None and starts_scene(current[0]) and last is not None
        if number < start.number:
            last = current
            continue
        if cut:
            yield from _drain(model, pending, windows.window, state, routed, at_position)
            pending, state, last = [], None, None
        entry = _Pending(current, number)
        if last is not None:
            to_next, entry.to_previous = _flows(model, last, current)
            if pending:
                pending[-1].to_next = to_next
        pending.append(entry)
        last = current
        if len(pending) > windows.window + windows.lookahead:
            # The scene goes on beyond the lookahead: the newest frame says so, and has no other part in this window.
            state = yield from _advance(model, pending[:-1], windows.window, state, routed)
            del pending[: windows.window]
            at_position(Position(pending[0].number, state))
    yield from _drain(model, pending, windows.window, state, routed, at_position)


def _drain(
    model: Recurrence,
    pending: list[_Pending],
    window: int,
    state: Tensor | None,
    routed: RoutedTrunks | None,
    at_position: Callable[[Position], None],
) -> Iterator[Tensor]:
    """Results of all pending frames, the last of a scene, in windows, so that no more states are held than before."""
    while pending:
        state = yield from _advance(model, pending, window, state, routed)
        done, pending = pending[:window], pending[window:]
        at_position(Position(done[-1].number + 1, state if pending else None))


def _ignore(position: Position) -> None:
    """What is called where nobody wants to know."""


@torch.inference_mode()
def _advance(
    model: Recurrence, pending: list[_Pending], count: int, state: Tensor | None, routed: RoutedTrunks | None
) -> Generator[Tensor, None, Tensor | None]:
    """Yield the results of the first `count` pending frames, and return the forward state of the last of them.

    The backward recurrence starts at the last pending frame; only the states of the first `count` are kept.
    """
    backward: list[Tensor] = []
    behind: Tensor | None = None
    for index in reversed(range(len(pending))):
        entry = pending[index]
        run = routed and routed.at(entry.number)
        behind = model.propagate_backward(entry.frame, behind, entry.to_next, run)
        if index < count:
            backward.append(behind)
    for entry in pending[:count]:
        state = model.propagate_forward(entry.frame, state, entry.to_previous, routed and routed.at(entry.number))
        yield reconstruct_in_strips(model, entry.frame, backward.pop(), state)[0]
    return state


def reconstruct_in_strips(
    model: Recurrence, frame: Tensor, backward: Tensor, forward: Tensor, *, most_pixels: int = STRIP_PIXELS
) -> Tensor:
    """`model.reconstruct`, for a large frame a few rows at a time: at four times the size its features would fill 8 GB.

    The rows of a strip see those around it, so that the picture is the same.

    Args:
        model: the network; the states of patches are small already and go as they are.
        frame, backward, forward: as for `SkipVSR.reconstruct`.
        most_pixels: low-resolution pixels of a strip.
    """
    height, width = frame.shape[-2:]
    if height * width <= most_pixels or backward.shape[-2:] != frame.shape[-2:]:
        return model.reconstruct(frame, backward, forward)
    rows = max(1, most_pixels // width)
    result = None
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        above, below = max(0, top - RECONSTRUCTION_HALO_PX), min(height, bottom + RECONSTRUCTION_HALO_PX)
        strip = model.reconstruct(*(part[..., above:below, :] for part in (frame, backward, forward)))
        inner = strip[..., SCALE * (top - above) : SCALE * (bottom - above), :]
        if result is None:
            result = inner.new_empty(*inner.shape[:2], SCALE * height, SCALE * width)
        result[..., SCALE * top : SCALE * bottom, :] = inner
    assert result is not None
    return result


@torch.inference_mode()
def _flows(model: Recurrence, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Flow that brings `later` onto `earlier` (for the backward recurrence), and the other way round."""
    to_next, to_previous = model.estimate_flow(torch.cat((earlier, later)), torch.cat((later, earlier))).chunk(2)
    return to_next, to_previous


def _as_batch(frame: Tensor, like: Tensor, last: Tensor | None) -> Tensor:
    """(3, H, W) -> (1, 3, H, W) on the device and in the dtype of `like`."""
    if last is not None and frame.shape != last.shape[1:]:
        raise ShapeError(f"a frame has shape {tuple(frame.shape)} after frames of shape {tuple(last.shape[1:])}")
    if frame.ndim != 3:
        raise ShapeError(f"a frame has shape {tuple(frame.shape)}; it must be (3, height, width), RGB in [0, 1]")
    check_clip(frame[None, None])
    return frame[None].to(device=like.device, dtype=like.dtype)
