"""Cutting a film into chunks, each of which is upscaled by itself: at scene cuts, and within scenes that are long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice

import numpy as np

from skipvsr.errors import ConfigError
from skipvsr.inference.scenes import SceneCuts
from skipvsr.upscale.frames import to_tensor
from skipvsr.video.frame import Frame

DEFAULT_WARMUP = 16
# Scene cuts are found by differences of neighbouring differences: with fewer frames a task would not see what the film's
# reader saw.
_MIN_WARMUP = 2


@dataclass(frozen=True)
class ChunkOptions:
    """How a film is cut into chunks.

    Args:
        length: frames of a chunk. It ends at the first scene cut after half of them, or within the scene when it has so many.
        warmup: frames before a chunk that begins within a scene, from which its forward state is computed anew.
        lookahead: frames beyond a chunk that ends within a scene, for the backward recurrence.
        exact: end chunks at scene cuts only, however long a scene is.
        scene_detection: find scene cuts; otherwise the film is one scene.
        repeat_detection: frames that repeat the one before are not computed, and so are no warm-up.

    Raises:
        ConfigError: a length under 1, or a warm-up under 2.
    """

    length: int
    warmup: int = DEFAULT_WARMUP
    lookahead: int = 4
    exact: bool = False
    scene_detection: bool = True
    repeat_detection: bool = True

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"a chunk is {self.length} frames; it must be at least 1")
        if self.warmup < _MIN_WARMUP:
            raise ConfigError(f"the warm-up is {self.warmup} frames; it must be at least {_MIN_WARMUP}")


class Role(Enum):
    """What a frame is to a chunk."""

    WARMUP = "warmup"
    BODY = "body"
    LOOKAHEAD = "lookahead"


@dataclass(frozen=True)
class ChunkFrame:
    """A frame of a chunk; only those of its body are written."""

    frame: Frame
    role: Role
    starts_scene: bool = False


@dataclass
class _Numbered:
    frame: Frame
    starts_scene: bool


class Chunk(Iterator[ChunkFrame]):
    """The frames of a chunk, as they are decoded: warm-up, body, lookahead. To be read before the next chunk is asked for.

    Attributes:
        index: of the chunk in the film.
        first: number of its first frame in the film.
        end: number of the frame after its last; known when all its frames were taken.
        scenes: that start in it; likewise.
    """

    def __init__(self, index: int, first: int, frames: Iterator[ChunkFrame]) -> None:
        self.index, self.first, self.end = index, first, first
        self.scenes = 0
        self._frames = frames

    def __next__(self) -> ChunkFrame:
        item = next(self._frames)
        if item.role is Role.BODY:
            self.end += 1
            self.scenes += item.starts_scene
        return item


def cut_into_chunks(frames: Iterable[Frame], options: ChunkOptions) -> Iterator[Chunk]:
    """The chunks of a film, in order. Where they begin and end depends on the frames and the options alone.

    Of the film no more frames are held than the warm-up and the lookahead have. What is not taken of a chunk is passed over
    when the next is asked for.

    Raises:
        Whatever the frames raise, after the last chunk.
    """
    cutter = _Cutter(frames, options)
    index = first = 0
    while cutter.upcoming(1):
        chunk = Chunk(index, first, cutter.chunk())
        yield chunk
        for _ in chunk:
            pass
        index, first = index + 1, chunk.end
    if cutter.error is not None:
        raise cutter.error


class _Cutter:
    """Frames that were taken from the film and belong to chunks to come, and those just before them in the same scene."""

    def __init__(self, frames: Iterable[Frame], options: ChunkOptions) -> None:
        self._frames, self._options = iter(frames), options
        self._detect = SceneCuts() if options.scene_detection else None
        self._upcoming: deque[_Numbered] = deque()
        self._before: deque[Frame] = deque(maxlen=options.warmup)
        # Why decoding ended before its time.
        self.error: Exception | None = None

    def upcoming(self, count: int) -> list[_Numbered]:
        """Up to so many frames, which stay where they are."""
        while len(self._upcoming) < count and self.error is None:
            try:
                frame = next(self._frames)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised when the frames before it are used up
                self.error = error
                break
            cut = self._detect is not None and self._detect(to_tensor(frame.pixels))
            self._upcoming.append(_Numbered(frame, cut))
        return list(islice(self._upcoming, count))

    def chunk(self) -> Iterator[ChunkFrame]:
        """The frames of the next chunk, of which there is one at least."""
        upcoming = self.upcoming(1)
        if not upcoming[0].starts_scene:
            yield from (ChunkFrame(frame, Role.WARMUP) for frame in list(self._before))
        count = 0
        while upcoming and not self._ends(upcoming[0], count):
            item = self._upcoming.popleft()
            if item.starts_scene:
                self._before.clear()
            if not (self._options.repeat_detection and self._before and _same(self._before[-1], item.frame)):
                self._before.append(item.frame)
            count += 1
            yield ChunkFrame(item.frame, Role.BODY, item.starts_scene)
            upcoming = self.upcoming(1)
        for item in self.upcoming(self._options.lookahead):
            if item.starts_scene:
                break
            yield ChunkFrame(item.frame, Role.LOOKAHEAD)

    def _ends(self, item: _Numbered, count: int) -> bool:
        """Whether a chunk of so many frames ends before a frame."""
        if not count:
            return False
        if item.starts_scene:
            return 2 * count >= self._options.length
        return count >= self._options.length and not self._options.exact


def _same(one: Frame, other: Frame) -> bool:
    return one.pixels.shape == other.pixels.shape and np.array_equal(one.pixels, other.pixels)
