"""Random access to the results of an `Upscaler`: viewers and editors jump, and a recurrence only goes forwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.inference.upscaler import Upscaler

DEFAULT_WARMUP = 16
# After a jump, whole groups of frames are computed: going backwards frame by frame then costs one jump for each group.
GROUP = 8
# Results that were taken already and are kept, should they be asked for again.
_TAKEN = 4
# Warm-ups that a jump goes back at most, where frames repeat.
_FURTHEST = 4


@dataclass(frozen=True)
class Input:
    """A frame of the source.

    Args:
        frame: (3, H, W), RGB in [0, 1].
        starts_scene: whether a new scene starts with it; None: nobody has looked, and the Upscaler does.
    """

    frame: Tensor
    starts_scene: bool | None = None


class SeekableStream:
    """All results of a stream of frames whose number is known.

    Asked for in order from the first, they are those of `Upscaler.stream`. After a jump the recurrence starts anew: where the
    scene starts, or `warmup` frames before the group of 8 that has the frame, if the scene started earlier.

    Args:
        upscaler: what is done.
        size: (height, width) of the frames.
        count: how many there are.
        get: a frame by its number. Asked for those of `inputs_for`, some of them twice, and for more where frames repeat.
        warmup: frames.
        held: results that were computed on the way to a later one, and wait to be asked for.

    Raises:
        ConfigError: a negative warm-up.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        size: tuple[int, int],
        count: int,
        get: Callable[[int], Input],
        *,
        warmup: int = DEFAULT_WARMUP,
        held: int = 16,
    ) -> None:
        if warmup < 0:
            raise ConfigError(f"the warm-up is {warmup} frames; it must be 0 or more")
        self._upscaler, self._count, self._get = upscaler, count, get
        self._warmup, self._held = warmup, held
        windows = upscaler.windows(*size)
        self._reach = windows.window + windows.lookahead
        # For scenes whose starts are given: the same without looking for cuts.
        self._told: Upscaler | None = None
        self._run: Iterator[Tensor] | None = None
        self._results: dict[int, Tensor] = {}
        self._taken: deque[int] = deque()
        # Numbers of the next frame that is read, of the next result, and of the first whose state is warm.
        self.read = 0
        self._next = self._warm = 0

    def inputs_for(self, number: int) -> range:
        """Numbers of the frames that a result may still take; where frames repeat, more may be read."""
        if number in self._results:
            return range(0)
        first = self.read if self._goes_on(number) else self._earliest(number)
        return range(first, min(self._count, number + self._reach + 1))

    def __getitem__(self, number: int) -> Tensor:
        """A result (3, s * H, s * W), not clamped.

        Raises:
            What `Upscaler.stream` and `get` raise; another try begins anew.
        """
        if number not in self._results:
            if not self._goes_on(number):
                self._start(number)
            assert self._run is not None
            try:
                while self._next <= number:
                    result = next(self._run)
                    if self._next >= self._warm:
                        self._results[self._next] = result
                    self._next += 1
            except BaseException:
                self._run = None
                raise
        return self._take(number)

    def _take(self, number: int) -> Tensor:
        result = self._results[number]
        if number not in self._taken:
            self._taken.append(number)
        while len(self._taken) > _TAKEN:
            self._results.pop(self._taken.popleft(), None)
        waiting = sorted(self._results.keys() - set(self._taken))
        for number in waiting[: max(0, len(waiting) - self._held)]:
            del self._results[number]
        return result

    def _goes_on(self, number: int) -> bool:
        """Whether a result comes soon enough if the stream goes on as it does."""
        return self._run is not None and self._next <= number <= self._next + self._reach

    def _earliest(self, number: int) -> int:
        return max(0, number - number % GROUP - self._warmup)

    def _start(self, number: int) -> None:
        """Begin a run for a result."""
        wanted = number - number % GROUP
        first = self._start_of_run(number, wanted)
        self._warm = first if first == 0 or self._starts_scene(first) else wanted
        self.read = self._next = first
        self._results.clear()
        self._taken.clear()
        self._run = self._results_from_here()

    def _start_of_run(self, number: int, wanted: int) -> int:
        """Where the scene starts, or so many frames before the one wanted; those that repeat the one before warm nothing up."""
        first = number
        warm = 0
        while first > max(0, wanted - _FURTHEST * self._warmup) and not self._starts_scene(first):
            if first <= wanted and warm == self._warmup:
                break
            first -= 1
            warm += first < wanted and not self._repeats(first + 1)
        return first

    def _repeats(self, number: int) -> bool:
        detected = self._upscaler.stream_options.repeat_detection
        return detected and torch.equal(self._get(number).frame, self._get(number - 1).frame)

    def _starts_scene(self, number: int) -> bool | None:
        return self._get(number).starts_scene if self._upscaler.stream_options.scene_detection else None

    def _results_from_here(self) -> Iterator[Tensor]:
        while self.read < self._count:
            looks = self._starts_scene(self.read) is None
            yield from (self._upscaler if looks else self._without_looking()).stream(self._scene())

    def _scene(self) -> Iterator[Tensor]:
        """The frames up to the next that is said to start a scene."""
        first = self.read
        while self.read < self._count and (self.read == first or not self._starts_scene(self.read)):
            item = self._get(self.read)
            self.read += 1
            yield item.frame

    def _without_looking(self) -> Upscaler:
        if self._told is None:
            options = replace(self._upscaler.stream_options, scene_detection=False)
            self._told = Upscaler(self._upscaler.model, self._upscaler.compute, options)
        return self._told
