"""Chunks of a film: every frame in one body, context from its own scene only, the same however they are read."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from skipvsr.cluster.chunks import ChunkFrame, ChunkOptions, Role, cut_into_chunks
from skipvsr.errors import ConfigError, DecodeError
from skipvsr.video.frame import Frame


def film(scenes: list[int]) -> list[Frame]:
    """Scenes of so many frames, black and white in turn, with one pixel that changes; pts are frame numbers."""
    shades = [shade for index, length in enumerate(scenes) for shade in [255 * (index % 2)] * length]
    return [frame(shade, number) for number, shade in enumerate(shades)]


def frame(shade: int, number: int, pixel: int | None = None) -> Frame:
    pixels = np.full((16, 16, 3), shade, np.uint8)
    pixels[0, 0] = (number if pixel is None else pixel) % 256
    return Frame(pixels, number, None, Fraction(1, 25))


def numbers(items: list[ChunkFrame], role: Role) -> list[int]:
    return [item.frame.pts for item in items if item.role is role]


def cut(scenes: list[int], options: ChunkOptions) -> list[tuple[int, list[ChunkFrame]]]:
    return [(chunk.first, list(chunk)) for chunk in cut_into_chunks(film(scenes), options)]


def test_short_scenes_are_taken_together_and_long_ones_split():
    # Scenes at 0-4, 5-9, 10-14 and 15-39; chunks of 8 frames end at a cut from 4 frames on.
    options = ChunkOptions(8, warmup=3, lookahead=2)
    chunks = cut([5, 5, 5, 25], options)
    assert [first for first, _ in chunks] == [0, 5, 10, 15, 23, 31, 39]
    split = chunks[4][1]
    assert numbers(split, Role.WARMUP) == [20, 21, 22]
    assert numbers(split, Role.BODY) == list(range(23, 31))
    assert numbers(split, Role.LOOKAHEAD) == [31, 32]
    # At a cut there is nothing to warm up from, and nothing to look ahead to.
    assert numbers(chunks[3][1], Role.WARMUP) == []
    assert numbers(chunks[2][1], Role.LOOKAHEAD) == []


def test_frames_that_repeat_are_no_warm_up():
    """They are not computed: the state is warm from so many frames that differ."""
    shown = [frame(0, number, pixel=number // 2 if number < 40 else 20) for number in range(70)]
    warmups = [
        [
            numbers(list(chunk), Role.WARMUP)
            for chunk in cut_into_chunks(shown, ChunkOptions(16, 4, repeat_detection=on))
        ]
        for on in (True, False)
    ]
    assert warmups[0] == [[], [8, 10, 12, 14], [24, 26, 28, 30], [34, 36, 38, 40], [34, 36, 38, 40]]
    assert warmups[1] == [[], *([list(range(at - 4, at)) for at in (16, 32, 48, 64)])]


def test_exact_chunks_end_at_cuts_only():
    chunks = cut([5, 5, 30, 6], ChunkOptions(8, exact=True))
    assert [first for first, _ in chunks] == [0, 5, 10, 40]
    assert all(item.role is Role.BODY for _, items in chunks for item in items)


@pytest.mark.parametrize(
    ("scenes", "length", "warmup", "lookahead", "exact"),
    [
        ([16, 5, 9], 6, 2, 0, False),
        ([5, 15, 5, 12], 5, 4, 3, False),
        ([13], 1, 3, 2, False),
        ([9, 5, 5, 5], 12, 8, 5, False),
        ([14, 5, 11], 4, 3, 4, True),
    ],
)
def test_every_frame_is_in_one_body(scenes: list[int], length: int, warmup: int, lookahead: int, exact: bool):
    options = ChunkOptions(length, warmup, lookahead, exact)
    starts = np.cumsum([0, *scenes])
    scene_of = np.repeat(np.arange(len(scenes)), scenes)
    chunks = cut(scenes, options)
    assert [number for _, items in chunks for number in numbers(items, Role.BODY)] == list(range(sum(scenes)))
    for first, items in chunks:
        body, before, after = (numbers(items, role) for role in (Role.BODY, Role.WARMUP, Role.LOOKAHEAD))
        assert body[0] == first
        assert before == list(range(max(first - warmup, starts[scene_of[first]]), first))
        end_of_scene = starts[scene_of[body[-1]] + 1]
        assert after == list(range(body[-1] + 1, min(body[-1] + 1 + lookahead, end_of_scene)))
        assert exact or len(body) <= length
        assert not exact or (not before and not after)
    # Nothing depends on what is taken of each chunk: a shard passes over those of others.
    assert [chunk.first for chunk in cut_into_chunks(film(scenes), options)] == [first for first, _ in chunks]


def test_what_ends_decoding_is_raised_after_the_last_chunk():
    def damaged() -> Iterator[Frame]:
        yield from film([10])
        raise DecodeError("cut off")

    bodies: list[list[int]] = []
    chunks = cut_into_chunks(damaged(), ChunkOptions(4, warmup=2, lookahead=4))
    for chunk in islice(chunks, 3):
        bodies.append(numbers(list(chunk), Role.BODY))  # noqa: PERF401 - a chunk is read before the next is asked for
    with pytest.raises(DecodeError, match="cut off"):
        next(chunks)
    assert bodies == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_scenes_are_counted():
    chunks = []
    for chunk in cut_into_chunks(film([6, 6, 20]), ChunkOptions(8)):
        list(chunk)
        chunks.append(chunk)
    assert sum(chunk.scenes for chunk in chunks) == 2  # the first frame of the film is no cut


@pytest.mark.parametrize(("length", "warmup"), [(0, 16), (8, 1)])
def test_impossible_options_are_refused(length: int, warmup: int):
    with pytest.raises(ConfigError, match="at least"):
        ChunkOptions(length, warmup)
