"""Streaming in windows against the whole clip."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipvsr.errors import ConfigError, ShapeError
from skipvsr.inference.streaming import MOST_REPEATS, Position, reconstruct_in_strips, upscale_stream
from skipvsr.inference.windows import MAX_WINDOW, MIN_WINDOW, Windows, default_window
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from tests.conftest import make_network

NETWORK = make_network(VSRConfig(channels=6, blocks=1, flow="light", reconstruction="light"))
CLIP = torch.rand(14, 3, 16, 20, generator=torch.Generator().manual_seed(1))


def streamed(clip: torch.Tensor, windows: Windows, network: SkipVSR = NETWORK, starts_scene=None) -> torch.Tensor:
    return torch.stack(list(upscale_stream(iter(clip), network, windows, starts_scene=starts_scene)))


def whole(clip: torch.Tensor, network: SkipVSR = NETWORK) -> torch.Tensor:
    with torch.inference_mode():
        return network(clip[None])[0]


@settings(max_examples=30)
@given(st.integers(1, 14), st.integers(0, 14))
def test_a_scene_within_window_and_lookahead_is_exact(window: int, lookahead: int):
    clip = CLIP[: window + lookahead]
    torch.testing.assert_close(streamed(clip, Windows(window, lookahead)), whole(clip), atol=1e-6, rtol=0)


@settings(max_examples=20)
@given(st.integers(1, 7), st.integers(0, 5))
def test_every_window_is_the_network_with_its_backward_recurrence_cut(window: int, lookahead: int):
    """The naive reference: for each window, the forward recurrence from the start, the backward one from the lookahead."""
    results = streamed(CLIP, Windows(window, lookahead))
    expected = []
    start = 0
    while start < len(CLIP):
        # The last window is the first from which the end of the clip is in sight: it is exact from there on.
        end = start + window + lookahead
        clip = CLIP if len(CLIP) <= end else CLIP[:end]
        stop = len(CLIP) if len(CLIP) <= end else start + window
        expected.append(whole(clip)[start:stop])
        start = stop
    torch.testing.assert_close(results, torch.cat(expected), atol=1e-5, rtol=0)


def test_the_forward_recurrence_crosses_windows_exactly():
    """With a backward trunk that says nothing, any window gives the result of the whole clip."""
    network = make_network(VSRConfig(channels=6, blocks=1, flow="light", reconstruction="light"), seed=3)
    with torch.no_grad():
        network.reconstruction.fusion.weight[:, :6] = 0
    assert torch.equal(streamed(CLIP, Windows(3, 0), network), streamed(CLIP, Windows(14, 0), network))
    torch.testing.assert_close(streamed(CLIP, Windows(3, 0), network), whole(CLIP, network), atol=1e-6, rtol=0)


def test_nothing_crosses_a_scene_cut():
    starts = {5, 6, 11}
    calls = iter(range(len(CLIP)))
    results = streamed(CLIP, Windows(3, 2), starts_scene=lambda _: next(calls) in starts)
    scenes = [CLIP[:5], CLIP[5:6], CLIP[6:11], CLIP[11:]]
    expected = torch.cat([streamed(scene, Windows(3, 2)) for scene in scenes])
    torch.testing.assert_close(results, expected, atol=1e-6, rtol=0)


def test_a_detector_that_fires_at_once_changes_nothing():
    calls = iter(range(len(CLIP)))
    results = streamed(CLIP, Windows(20, 0), starts_scene=lambda _: next(calls) == 0)
    assert torch.equal(results, streamed(CLIP, Windows(20, 0)))


def test_results_come_as_soon_as_a_window_is_full():
    taken = []

    def source():
        for index, frame in enumerate(CLIP):
            taken.append(index)
            yield frame

    stream = upscale_stream(source(), NETWORK, Windows(4, 2))
    next(stream)
    assert len(taken) == 7
    for _ in range(4):
        next(stream)
    assert len(taken) == 11


def test_no_frames_no_results():
    assert list(upscale_stream(iter(()), NETWORK, Windows(4, 2))) == []


def test_frames_of_another_size_are_refused():
    frames = [torch.zeros(3, 16, 16), torch.zeros(3, 16, 20)]
    with pytest.raises(ShapeError, match="after frames"):
        list(upscale_stream(iter(frames), NETWORK, Windows(4, 2)))


@pytest.mark.parametrize(("window", "lookahead"), [(0, 2), (3, -1)])
def test_impossible_windows_are_refused(window: int, lookahead: int):
    with pytest.raises(ConfigError):
        Windows(window, lookahead)


def test_the_default_window_shrinks_with_the_frame():
    compact = VSRConfig(channels=32, blocks=8, flow="light", reconstruction="light")
    assert default_window(compact, 180, 320) == MAX_WINDOW
    assert default_window(compact, 1080, 1920) == MIN_WINDOW
    assert MIN_WINDOW < default_window(compact, 540, 960) < MAX_WINDOW


@pytest.mark.parametrize("reconstruction", ["basicvsr", "light"])
@pytest.mark.parametrize("rows", [1, 5, 16, 100])
def test_large_frames_are_reconstructed_in_strips(reconstruction: Literal["basicvsr", "light"], rows: int):
    network = make_network(VSRConfig(6, 1, "light", reconstruction))
    frame, backward, forward = torch.rand(1, 3, 33, 20), torch.randn(1, 6, 33, 20), torch.randn(1, 6, 33, 20)
    with torch.inference_mode():
        whole = network.reconstruct(frame, backward, forward)
        strips = reconstruct_in_strips(network, frame, backward, forward, most_pixels=rows * 20)
    torch.testing.assert_close(strips, whole, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_repeated_frames_are_computed_once(times: list[int], window: int, lookahead: int, cuts: bool):
    windows, distinct = Windows(window, lookahead), CLIP[: len(times)]
    at_cut = (lambda frame: torch.equal(frame, CLIP[3])) if cuts else None
    held = [frame for frame, count in zip(distinct, times, strict=True) for _ in range(count)]
    once = streamed(distinct, windows, starts_scene=at_cut)
    expected = [result for result, count in zip(once, times, strict=True) for _ in range(count)]
    read: list[int] = []
    seen: set[int] = set()

    def first_time(frame: torch.Tensor) -> bool:
        # A cut is where the frame after it is new, as `SceneCuts` has it.
        new = cuts and torch.equal(frame, CLIP[3]) and not seen
        if new:
            seen.add(3)
        return new

    results = list(
        upscale_stream(
            held, NETWORK, windows, starts_scene=first_time, repeat_detection=True,
            on_step=lambda step, number: read.append(number) if step == "read" else None,
        )
    )  # fmt: skip
    assert torch.equal(torch.stack(results), torch.stack(expected))
    assert read == list(range(len(held)))


def test_a_stream_with_repeats_goes_on_where_it_was():
    held = [frame for frame in CLIP[:8] for _ in range(3)]
    windows = Windows(2, 1)
    places: list[Position] = []
    whole_run = list(upscale_stream(held, NETWORK, windows, repeat_detection=True, at_position=places.append))
    assert [place.number for place in places] == [6, 12, 18, 24]
    for place in places:
        rest = list(upscale_stream(held, NETWORK, windows, repeat_detection=True, start=place))
        assert torch.equal(torch.stack(whole_run[place.number :] or [CLIP[0]]), torch.stack(rest or [CLIP[0]]))


def test_a_still_film_is_given_out_as_it_goes():
    taken = 0

    def still():
        nonlocal taken
        for _ in range(3 * (MOST_REPEATS + 1)):
            taken += 1
            yield CLIP[0]

    results = upscale_stream(still(), NETWORK, Windows(1, 0), repeat_detection=True)
    next(results)
    assert taken == MOST_REPEATS + 2
    assert len(list(results)) == 3 * (MOST_REPEATS + 1) - 1
