"""Precision: what is chosen, what stays in fp32, and how near the results are."""

from __future__ import annotations

import torch

import skipvsr
from skipvsr.inference import precision
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.precision import fastest, fastest_precision, or_auto, settled
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale.checkpoint import UnfinishedJob, unfinished_precision

SMALL = VSRConfig(channels=4, blocks=1, flow="light", reconstruction="light")
WIDE = VSRConfig(channels=32, blocks=4, flow="light", reconstruction="light")


def _frames(count: int, height: int = 40, width: int = 56) -> list[torch.Tensor]:
    canvas = torch.nn.functional.interpolate(
        torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(1)),
        size=(height, width + count),
        mode="bicubic",
    )[0].clamp(0, 1)
    return [canvas[:, :, number : number + width] for number in range(count)]


def test_auto_takes_half_precision_only_where_it_is_clearly_faster(monkeypatch, tmp_path):
    model = SkipVSR(WIDE)
    for ratio, chosen in ((2.0, "bf16"), (1.1, "fp32"), (0.5, "fp32")):
        monkeypatch.setenv("SKIPVSR_CACHE", str(tmp_path / str(ratio)))
        monkeypatch.setattr(precision, "_measured_here", {})
        monkeypatch.setattr(precision, "speed_up", lambda *_, ratio=ratio: ratio)
        assert fastest_precision(model) == chosen


def test_of_two_half_precisions_the_finer_unless_the_other_is_clearly_faster(monkeypatch):
    assert fastest({"fp16": 2.0, "bf16": 2.05}) == "fp16"
    assert fastest({"fp16": 2.0, "bf16": 2.2}) == "bf16"
    assert fastest({"fp16": 0.5, "bf16": 1.5}) == "bf16"
    assert fastest({"fp16": 1.1, "bf16": 1.1}) == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert precision.half_precisions(torch.device("cuda")) == ("fp16",)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert precision.half_precisions(torch.device("cuda")) == ("fp16", "bf16")
    assert precision.half_precisions(torch.device("cpu")) == ("bf16",)
    assert precision.half_precisions(torch.device("mps")) == ()


def test_what_was_measured_is_remembered_on_disk_or_else_in_the_process(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(precision, "speed_up", lambda *arguments: calls.append(arguments) or 3.0)
    monkeypatch.setattr(precision, "_measured_here", {})
    monkeypatch.setenv("SKIPVSR_CACHE", str(tmp_path))
    model = SkipVSR(WIDE)
    assert [fastest_precision(model) for _ in range(2)] == ["bf16", "bf16"]
    monkeypatch.setattr(precision, "_measured_here", {})
    assert fastest_precision(model) == "bf16"
    assert len(calls) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SKIPVSR_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(precision, "_measured_here", {})
    assert [fastest_precision(model) for _ in range(2)] == ["bf16", "bf16"]
    assert len(calls) == 2


def test_tiny_models_are_not_measured(monkeypatch):
    monkeypatch.setattr(precision, "speed_up", lambda *_: 1 / 0)
    assert fastest_precision(SkipVSR(SMALL)) == "fp32"


def test_speed_up_is_a_ratio_of_times():
    assert 0.01 < precision.speed_up(8, "bf16", torch.device("cpu")) < 100


def test_nothing_said_means_auto_in_the_public_functions(monkeypatch):
    monkeypatch.setattr(precision, "fastest_precision", lambda *_: "bf16")
    model, frames = SkipVSR(SMALL), _frames(2, 16, 16)
    assert or_auto(ComputeOptions()).precision == "auto"
    assert or_auto(ComputeOptions(precision="fp32")).precision == "fp32"
    fp32, bf16 = (
        torch.stack(list(Upscaler(model, ComputeOptions(precision=each)).stream(frames))).clamp(0, 1)
        for each in ("fp32", "bf16")
    )
    assert not torch.equal(fp32, bf16)
    assert torch.equal(torch.stack(list(skipvsr.upscale_frames(frames, model))), bf16)
    assert torch.equal(torch.stack(list(skipvsr.upscale_frames(frames, model, precision="fp32"))), fp32)
    assert Upscaler(model).precision == "fp32"


def test_auto_is_settled_for_what_cannot_be_measured():
    assert settled(ComputeOptions(precision="auto"), SkipVSR(SMALL)).precision == "fp32"
    assert settled(ComputeOptions(precision="auto"), Bicubic()).precision == "fp32"
    assert settled(ComputeOptions(precision="auto", runtime="openvino"), SkipVSR(WIDE)).precision == "fp32"
    assert settled(ComputeOptions(precision="auto"), SkipVSR(WIDE).bfloat16()).precision is None
    assert Upscaler(SkipVSR(SMALL), ComputeOptions(precision="auto")).precision == "fp32"


def test_bf16_is_near_fp32_and_gives_fp32_frames():
    model, frames = skipvsr.load_model("compact"), _frames(6)
    stream = StreamOptions(window=3, lookahead=2, scene_detection=False)
    full, half = (
        torch.stack(list(Upscaler(model, ComputeOptions(precision=each), stream).stream(frames)))
        for each in ("fp32", "bf16")
    )
    assert half.dtype == torch.float32
    error = (full - half).square().mean().item()
    # 63 dB; a frame that is only rounded to bf16 is farther from itself.
    assert 0 < error < 5e-7
    rounded = torch.stack(frames).bfloat16().float()
    assert (rounded - torch.stack(frames)).square().mean().item() > 1.5 * error


def test_the_router_decides_in_fp32():
    model = skipvsr.load_model("compact")
    upscaler = Upscaler(model, ComputeOptions(budget=0.5, precision="bf16"))
    assert isinstance(upscaler.model, SkipVSR)
    assert upscaler.model.router is not None
    assert {parameter.dtype for parameter in upscaler.model.router.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in upscaler.model.flow.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    stream = upscaler.stream(_frames(6, 64, 96))
    assert len(list(stream)) == 6
    assert abs(stream.tally.active_ratio - 0.5) < 0.03


def test_unfinished_work_says_its_precision(tmp_path):
    place = tmp_path / "out.mkv"
    assert unfinished_precision(place) is None
    job = UnfinishedJob(place, {"precision": "bf16"})
    job.__enter__()
    job.folder.joinpath("manifest.json").write_text('{"job": {"precision": "bf16"}, "checkpoint": {}}')
    assert unfinished_precision(place) == "bf16"
    job.folder.joinpath("manifest.json").write_text('{"job": {"precision": "of old"}}')
    assert unfinished_precision(place) is None
    job.__exit__(None, None, None)
