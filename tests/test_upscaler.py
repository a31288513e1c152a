"""The engine: options, precision, going on from a state, and what the package exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import skipvsr
from skipvsr import errors
from skipvsr.errors import ConfigError
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.upscaler import StreamState, Upscaler
from skipvsr.models.config import VSRConfig
from skipvsr.models.router import Calibration
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.trace import RoutingTrace
from tests.conftest import make_network
from tests.media import make_video, picture

TABLE = Calibration(16, (0.25, 0.5, 0.75), (2.0, 1.0, 0.5))
ONE_SCENE = StreamOptions(window=3, lookahead=2, scene_detection=False)


def network(router: str = "gain") -> SkipVSR:
    model = make_network(VSRConfig(6, 4, "light", "light", router), seed=5)  # pyright: ignore[reportArgumentType]
    model.calibration = TABLE
    return model


def frames(count: int) -> list[torch.Tensor]:
    base = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(1))
    return [torch.roll(base, (index, 2 * index), (1, 2)) for index in range(count)]


def test_every_public_name_is_there_and_every_error_is_public():
    assert all(getattr(skipvsr, name) is not None for name in skipvsr.__all__)
    raised = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert raised <= set(skipvsr.__all__)


def test_importing_the_package_imports_nothing_heavy():
    code = "import skipvsr, sys; print(sorted({'torch', 'numpy', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_whole_stream_is_the_whole_clip():
    model, clip = network(), frames(6)
    found = torch.stack(list(Upscaler(model, stream=StreamOptions(6, 0, scene_detection=False)).stream(clip)))
    with torch.inference_mode():
        expected = model(torch.stack(clip)[None])[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("router", ["gain", "paper"])
@pytest.mark.parametrize("compute", [ComputeOptions(budget=0.5), ComputeOptions(threshold=0.45), ComputeOptions()])
def test_going_on_from_a_state_changes_nothing(router: str, compute: ComputeOptions):
    """Wherever a stream could be stopped, another one goes on to the same frames, with the same things running."""
    clip, states = frames(11), []

    def keep(number: int, state) -> None:
        states.append(state())

    upscaler = Upscaler(network(router), compute, ONE_SCENE)
    first = upscaler.stream(clip, RoutingTrace(), at_position=keep)
    expected = list(first)
    assert [state.number for state in states][:2] == [3, 6]
    for state in states[:3]:
        stream = upscaler.stream(clip, RoutingTrace(), StreamState(state.number, state.numbers, state.tensors))
        assert all(torch.equal(*pair) for pair in zip(stream, expected[state.number :], strict=True))
        assert stream.tally == first.tally


def test_both_public_functions_go_through_the_upscaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    stream = Upscaler.stream

    def spy(self: Upscaler, *args, **named):
        asked.append((self.compute, self.stream_options))
        return stream(self, *args, **named)

    monkeypatch.setattr(Upscaler, "stream", spy)
    compute = ComputeOptions(budget=0.5, patch_batch_size=3, precision="fp32")
    options = StreamOptions(lookahead=1)
    results = list(skipvsr.upscale_frames(frames(3), network(), compute=compute, stream=options, window=2))
    assert [result.shape for result in results] == [(3, 160, 224)] * 3
    assert asked == [(compute, StreamOptions(window=2, lookahead=1))]


def test_a_trace_is_an_object_or_a_file(tmp_path: Path):
    from skipvsr.evaluation.trace_file import read_trace

    trace, model = RoutingTrace(), network()
    list(skipvsr.upscale_frames(frames(3), model, threshold=0.5, trace=trace))
    list(skipvsr.upscale_frames(frames(3), model, threshold=0.5, trace=tmp_path / "trace.npz"))
    found = read_trace(tmp_path / "trace.npz")
    assert [trunk.frame for trunk in found.trunks] == [trunk.frame for trunk in trace.trunks] == [2, 1, 0, 0, 1, 2]
    assert all(torch.equal(one.mask, two.mask) for one, two in zip(found.trunks, trace.trunks, strict=True))


def test_another_precision_is_a_copy():
    model, clip = network(), frames(4)
    fp32 = torch.stack(list(Upscaler(model).stream(clip)))
    bf16 = torch.stack(list(Upscaler(model, ComputeOptions(precision="bf16")).stream(clip)))
    assert next(model.parameters()).dtype == torch.float32
    assert bf16.dtype == torch.float32  # frames stay what they were: 8 bits a colour are more than bf16 holds
    assert 0 < (fp32 - bf16).abs().max() < 0.05


def test_what_cannot_work_is_said_at_once():
    with pytest.raises(ConfigError, match="precision is 'fp8'; choose one of auto, fp32, bf16, fp16"):
        ComputeOptions(precision="fp8")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="cannot use the device"):
        Upscaler(network(), ComputeOptions(device="nowhere"))
    with pytest.raises(ConfigError, match="lookahead is -1"):
        StreamOptions(lookahead=-1)
    with pytest.raises(ConfigError, match="segment is 0"):
        skipvsr.OutputOptions(segment_length=0)
    with pytest.raises(TypeError, match="no argument 'budgets'; options are budget, device"):
        skipvsr.upscale_frames([], network(), budgets=0.5)  # pyright: ignore[reportCallIssue]


def test_probe_says_what_a_file_holds(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", [picture(index, 64, 48) for index in range(5)])
    info = skipvsr.probe(source)
    assert (info.width, info.height, info.frame_count) == (64, 48, 5)
    with pytest.raises(skipvsr.InputError, match="missing"):
        skipvsr.probe(tmp_path / "missing.mp4")


def test_networks_copied_in_inference_mode_run_anywhere():
    with torch.inference_mode():
        copy = network().shortened(1)
    assert len(list(Upscaler(copy).stream(frames(2)))) == 2
    assert not next(copy.parameters()).is_inference()
