"""Results of a stream in any order: those of the stream, and after a jump within a scene nearly those."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from skipvsr.errors import ConfigError, ShapeError
from skipvsr.inference.options import StreamOptions
from skipvsr.inference.seek import GROUP, Input, SeekableStream
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.vsr import SkipVSR

SIZE = (20, 24)
COUNT = 70


def scene(seed: int, count: int) -> Tensor:
    """A picture that moves steadily, (count, 3, H, W)."""
    noise = torch.rand((1, 3, 6, 20), generator=torch.Generator().manual_seed(seed))
    wide = torch.nn.functional.interpolate(noise, (SIZE[0], SIZE[1] + COUNT), mode="bicubic")[0].clamp(0, 1)
    return torch.stack([wide[:, :, at : at + SIZE[1]] for at in range(count)])


class Source:
    """Frames by number, and which were asked for."""

    def __init__(self, frames: Tensor, starts: set[int] | None = None) -> None:
        self.frames, self.starts, self.asked = frames, starts, list[int]()

    def __call__(self, number: int) -> Input:
        self.asked.append(number)
        return Input(self.frames[number], None if self.starts is None else number in self.starts)


def seekable(network: SkipVSR, source: Source, **options) -> SeekableStream:
    upscaler = Upscaler(network, stream=StreamOptions(window=6, lookahead=2))
    return SeekableStream(upscaler, SIZE, len(source.frames), source, **options)


def in_order(network: SkipVSR, frames: Tensor, **options) -> list[Tensor]:
    return list(Upscaler(network, stream=StreamOptions(window=6, lookahead=2, **options)).stream(frames))


def test_in_order_they_are_those_of_the_stream_and_every_frame_is_read_once(tiny: SkipVSR):
    source = Source(torch.cat((scene(0, 40), scene(1, 30))))
    stream = seekable(tiny, source)
    expected = in_order(tiny, source.frames)
    for number in range(COUNT):
        needed = stream.inputs_for(number)
        before = len(source.asked)
        assert torch.equal(stream[number], expected[number])
        assert set(source.asked[before:]) <= set(needed)
    assert sorted(set(source.asked)) == list(range(COUNT))
    assert stream.read == COUNT


def test_repeated_frames_are_read_as_far_as_they_go(tiny: SkipVSR):
    source = Source(scene(0, 20).repeat_interleave(3, 0))
    stream = seekable(tiny, source)
    expected = in_order(tiny, source.frames)
    assert all(torch.equal(stream[number], expected[number]) for number in range(60))
    stream = seekable(tiny, source)
    assert torch.equal(stream[0], expected[0])
    assert stream.read > stream.inputs_for(0).stop + 8


def test_frames_that_repeat_warm_nothing_up(tiny: SkipVSR):
    """After a jump into a still, the run starts before it."""
    source = Source(torch.cat((scene(0, 30), scene(0, 30)[-1:].expand(20, -1, -1, -1))))
    expected = in_order(tiny, source.frames)
    stream = seekable(tiny, source, warmup=8)
    assert (stream[44] - expected[44]).abs().max() < 0.02
    assert min(source.asked) == 29 - 8
    stream = seekable(tiny, Source(scene(0, 1).expand(90, -1, -1, -1)), warmup=8)
    assert stream[80] is not None
    assert stream.read == 90


def test_a_jump_reads_the_warm_up_and_no_more_and_is_near_the_stream(tiny: SkipVSR):
    source = Source(scene(0, COUNT))
    expected = in_order(tiny, source.frames)
    stream = seekable(tiny, source, warmup=5)
    number = 6 * GROUP + 3
    needed = stream.inputs_for(number)
    assert needed == range(6 * GROUP - 5, number + 6 + 2 + 1)
    result = stream[number]
    assert set(source.asked) <= set(needed)
    assert min(source.asked) == needed.start
    # The state is not that of the whole scene, but after the warm-up it is close.
    assert 0 < (result - expected[number]).abs().max() < 0.02
    cold = seekable(tiny, Source(scene(0, COUNT)), warmup=0)[6 * GROUP]
    assert (cold - expected[6 * GROUP]).abs().max() > 2 * (result - expected[number]).abs().max()


def test_any_order_gives_every_number_its_own_frame(tiny: SkipVSR):
    source = Source(scene(0, COUNT))
    expected = in_order(tiny, source.frames)
    stream = seekable(tiny, source)
    order = [*torch.randperm(COUNT, generator=torch.Generator().manual_seed(3)).tolist(), *reversed(range(COUNT))]
    for number in order:
        needed, before = stream.inputs_for(number), len(source.asked)
        errors = [(stream[number] - expected[other]).abs().mean().item() for other in (number, (number + 7) % COUNT)]
        assert errors[0] < 5e-3 < 2e-2 < errors[1], number
        assert set(source.asked[before:]) <= set(needed)
    # Backwards, a group is computed once and not once for each of its frames.
    source.asked.clear()
    stream = seekable(tiny, source, held=GROUP)
    for number in reversed(range(COUNT)):
        stream[number]
    assert len(source.asked) < COUNT / GROUP * (16 + 2 * GROUP + 10) * 3


def test_requests_that_overtake_one_another_cost_nothing(tiny: SkipVSR):
    source = Source(scene(0, COUNT))
    expected = in_order(tiny, source.frames)
    stream = seekable(tiny, source)
    for first in range(0, 64, 8):
        for number in (5, 2, 7, 0, 1, 3, 6, 4):
            assert torch.equal(stream[first + number], expected[first + number])
    starts = [number for number in source.asked if number == 0]
    assert len(starts) <= 2  # asked for once to see whether it starts a scene, and once to be read


def test_no_more_results_are_held_than_allowed(tiny: SkipVSR):
    stream = seekable(tiny, Source(scene(0, COUNT)), held=5)
    for number in (7, 15, 23, 31):
        stream[number]
        assert len(stream._results) <= 5 + 4


def test_given_scenes_are_upscaled_each_by_itself(tiny: SkipVSR):
    """Also where no cut would be found, and where one would that is none."""
    frames = torch.cat((scene(0, 40), scene(1, 30)))
    source = Source(frames, starts={0, 17})
    stream = seekable(tiny, source)
    expected = [
        *in_order(tiny, frames[:17], scene_detection=False), *in_order(tiny, frames[17:], scene_detection=False)
    ]  # fmt: skip
    for number in range(COUNT):
        assert torch.equal(stream[number], expected[number])
    # A jump starts where the scene does, and not before.
    source.asked.clear()
    jumped = seekable(tiny, source)
    assert torch.equal(jumped[22], expected[22])
    assert min(source.asked) == 17


def test_without_scene_detection_given_scenes_count_for_nothing(tiny: SkipVSR):
    source = Source(scene(0, 20), starts={9})
    upscaler = Upscaler(tiny, stream=StreamOptions(window=6, lookahead=2, scene_detection=False))
    stream = SeekableStream(upscaler, SIZE, 20, source)
    expected = in_order(tiny, source.frames, scene_detection=False)
    assert all(torch.equal(stream[number], expected[number]) for number in range(20))


def test_after_an_error_another_try_begins_anew(tiny: SkipVSR):
    source = Source(scene(0, 20))
    good = source.frames[8].clone()
    stream = seekable(tiny, source)
    whole, broken = source.frames, list(source.frames)
    broken[8] = torch.zeros(3, 8, 8)
    source.frames = broken  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ShapeError):
        stream[5]
    source.frames = whole
    assert torch.equal(source.frames[8], good)
    assert torch.equal(stream[5], in_order(tiny, whole)[5])


def test_a_negative_warm_up_is_refused(tiny: SkipVSR):
    with pytest.raises(ConfigError, match="-1 frames"):
        seekable(tiny, Source(scene(0, 4)), warmup=-1)
