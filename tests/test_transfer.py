"""The way to a GPU and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from skipvsr.inference.streaming import upscale_stream
from skipvsr.inference.transfer import GpuFetch, make_fetch, to_device
from skipvsr.inference.windows import Windows
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale import pipeline
from skipvsr.upscale.job import upscale_video
from skipvsr.video.open import read_clip
from skipvsr.video.write import EncodeOptions
from tests.media import make_video

CPU = torch.device("cpu")


@dataclass
class FetchLater:
    """As a GPU's: what is fetched is there when it is asked for, not before."""

    fetched: list[Tensor] = field(default_factory=list)
    asked: int = 0

    def __call__(self, values: Tensor) -> FetchLater:
        self.fetched.append(values)
        return self

    def get(self) -> Tensor:
        self.asked += 1
        return self.fetched[self.asked - 1].clone()


def test_results_are_fetched_in_the_numbers_that_are_written(
    tmp_path: Path, tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch
):
    source = make_video(tmp_path / "in.mkv", 6)
    encode = EncodeOptions(codec="ffv1", pixel_format="yuv444p")
    upscale_video(source, tmp_path / "plain.mkv", tiny, encoding=encode)
    fetch = FetchLater()
    monkeypatch.setattr(pipeline, "make_fetch", lambda device: fetch)
    upscale_video(source, tmp_path / "fetched.mkv", tiny, encoding=encode)
    assert fetch.asked == 6
    assert {(values.dtype, values.shape) for values in fetch.fetched} == {(torch.uint8, (128, 192, 3))}
    assert np.array_equal(read_clip(tmp_path / "fetched.mkv"), read_clip(tmp_path / "plain.mkv"))


def test_nothing_is_fetched_from_the_cpu():
    assert make_fetch(CPU) is None
    values = torch.rand(3, 4)
    assert to_device(values, CPU, torch.float32) is values
    assert to_device(values, CPU, torch.float64).dtype == torch.float64


def test_cuts_and_repeats_are_looked_for_where_frames_came(tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch):
    """Frames are in fp64; the network has them in fp32, as a GPU would have them elsewhere."""
    seen: list[torch.dtype] = []
    compared: list[torch.dtype] = []
    plain = torch.equal

    def equal(one: Tensor, two: Tensor) -> bool:
        compared.append(one.dtype)
        return plain(one, two)

    monkeypatch.setattr(torch, "equal", equal)
    frames = torch.rand(4, 3, 20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    frames[2] = frames[1]
    results = list(
        upscale_stream(
            frames,
            tiny,
            Windows(4, 1),
            starts_scene=lambda frame: seen.append(frame.dtype) or False,
            repeat_detection=True,
        )
    )
    assert results[2] is results[1]
    assert results[1].dtype == torch.float32
    assert seen == [torch.float64] * 4
    assert compared == [torch.float64] * 3


@pytest.mark.gpu
def test_to_a_gpu_and_back():
    gpu = torch.device("cuda", torch.cuda.current_device())
    fetch = make_fetch(gpu)
    assert isinstance(fetch, GpuFetch)
    for number in range(8):
        values = torch.full((3, 400, 500), float(number))
        there = to_device(values, gpu, torch.float16)
        assert there.device.type == "cuda"
        arriving = [fetch(there * factor) for factor in (1, 2, 3)]
        for factor, each in zip((1, 2, 3), arriving, strict=True):
            found = each.get()
            assert found.device.type == "cpu"
            assert (found == number * factor).all()
