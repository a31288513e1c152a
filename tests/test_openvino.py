"""OpenVINO in the place of torch: the same pictures in fp32, nearly the same in 8 bit, and what it cannot do is said."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import skipvsr
from skipvsr.checkpoints.load import packaged_names, read_checkpoint
from skipvsr.checkpoints.native import read_folder, store_table
from skipvsr.cli.main import main
from skipvsr.errors import CheckpointError, ConfigError
from skipvsr.evaluation.ranges import measure_ranges
from skipvsr.inference.openvino_network import OpenVINONetwork
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.config import VSRConfig
from skipvsr.models.quantization import Quantization
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.trace import RoutingTrace
from skipvsr.video.open import read_clip
from tests.conftest import make_network
from tests.media import make_video, picture

STREAM = StreamOptions(window=3, lookahead=2, scene_detection=False)
OPENVINO = ComputeOptions(runtime="openvino")
INT8 = ComputeOptions(runtime="openvino", precision="int8")


def frames(count: int, height: int = 40, width: int = 56) -> list[Tensor]:
    """A moving picture of noise and shapes."""
    generator = torch.Generator().manual_seed(1)
    base = torch.nn.functional.avg_pool2d(torch.rand(3, height, width, generator=generator), 3, 1, 1)
    return [torch.roll(base, (index, 2 * index), (1, 2)) for index in range(count)]


def run(model: SkipVSR, compute: ComputeOptions | None, clip: list[Tensor]) -> Tensor:
    return torch.stack(list(Upscaler(model, compute, STREAM).stream(clip)))


@pytest.mark.parametrize(
    "config",
    [VSRConfig(8, 2, "light", "light", "gain"), VSRConfig(6, 2, "spynet", "basicvsr")],
    ids=["light", "basicvsr"],
)
def test_the_whole_stream_is_that_of_torch(config: VSRConfig):
    """Windows, lookahead and both recurrences; two sizes with one engine."""
    model = make_network(config, seed=3)
    engine = Upscaler(model, OPENVINO, STREAM)
    for height, width, count in ((24, 40, 7), (17, 23, 2)):
        clip = frames(count, height, width)
        expected = run(model, None, clip)
        found = torch.stack(list(engine.stream(clip)))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
        assert expected.std() > 0.01


def test_8_bit_is_close_and_not_the_same():
    """The packaged model on a real scene: at most 0.05 dB of difference to a ground truth 25 dB away means some 50 dB."""
    model = skipvsr.load_model("compact", device="cpu")
    clip = read_clip(Path(__file__).parents[1] / "assets" / "horsejump.mp4")[:4, :64, 60:140]
    lr = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255 for image in clip]
    error = (run(model, INT8, lr) - run(model, None, lr)).pow(2).mean()
    assert 45 < -10 * error.log10() < 80


@pytest.mark.parametrize("name", packaged_names())
def test_packaged_models_have_ranges_of_their_own(name: str):
    """Every convolution of trunks and reconstruction has a range, and it holds what the model itself computes."""
    model, stored = skipvsr.load_model(name, device="cpu"), read_checkpoint(name).quantization
    assert stored is not None
    measured = measure_ranges(model, [torch.stack(frames(2))])
    assert set(stored.ranges) == set(measured.ranges)
    for key, (low, high) in measured.ranges.items():
        assert stored.ranges[key][0] * 1.5 <= low, key
        assert stored.ranges[key][1] * 1.5 >= high, key


def test_ranges_are_the_extremes_of_all_clips(tiny: SkipVSR):
    seen: list[Tensor] = []
    hook = tiny.backward_trunk.blocks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clips = [torch.stack(frames(2)), torch.stack(frames(3)) * 0.2]
    ranges = measure_ranges(tiny, clips).ranges
    hook.remove()
    low, high = ranges["backward_trunk.blocks.1.conv1"]
    assert low == pytest.approx(min(0.0, *(state.min().item() for state in seen)))
    assert high == pytest.approx(max(state.max().item() for state in seen))
    assert len(ranges) == 2 * (1 + 2 * 2) + 2
    assert not any(name.startswith(("flow", "router")) for name in ranges)


def test_ranges_are_stored_in_the_model(tmp_path: Path, tiny: SkipVSR):
    folder = skipvsr.save_pretrained(tiny, tmp_path / "model")
    table = Quantization({"backward_trunk.input": (-1.0, 2.0)})
    store_table(folder, table)
    assert read_folder(folder).quantization == table
    assert skipvsr.load_model(folder, device="cpu").quantization == table
    description = json.loads((folder / "config.json").read_text())
    description["quantization"]["ranges"]["backward_trunk.input"] = [0.5, 2.0]
    (folder / "config.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="must hold 0"):
        read_folder(folder)


def test_calibrate_int8_from_the_command_line(tmp_path: Path, tiny: SkipVSR):
    folder = skipvsr.save_pretrained(tiny, tmp_path / "model")
    (tmp_path / "clips").mkdir()
    make_video(tmp_path / "clips" / "a.mp4", [picture(index, 128, 96) for index in range(3)])
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", str(folder), str(tmp_path / "clips"), "--int8", "--frames", "2", "--json"])
    assert not ended.value.code
    table = read_folder(folder).quantization
    assert table is not None
    assert table.ranges["forward_trunk.input"][1] >= 0.5  # it sees the frame


def test_a_file_from_the_command_line(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", [picture(index, 64, 48) for index in range(4)])
    for name, options in {"torch": [], "int8": ["--runtime", "openvino", "--precision", "int8"]}.items():
        with pytest.raises(SystemExit) as ended:
            main(["upscale", str(source), str(tmp_path / f"{name}.mp4"), *options, "--quiet"])
        assert not ended.value.code
    expected, found = (read_clip(tmp_path / f"{name}.mp4").astype(float) for name in ("torch", "int8"))
    assert found.shape == (4, 192, 256, 3)
    assert np.abs(found - expected).mean() < 1.5


REFUSED = {
    "budget": (ComputeOptions, {"runtime": "openvino", "budget": 0.5}, "runs every block on whole frames"),
    "patches": (ComputeOptions, {"runtime": "openvino", "tiling": "patch"}, "runs every block on whole frames"),
    "bf16": (ComputeOptions, {"runtime": "openvino", "precision": "bf16"}, "choose fp32 or int8"),
    "torch int8": (ComputeOptions, {"precision": "int8"}, "give --runtime openvino"),
    "unknown": (ComputeOptions, {"runtime": "tensorrt"}, "choose one of torch, openvino"),
}


@pytest.mark.parametrize(("make", "options", "match"), REFUSED.values(), ids=REFUSED)
def test_options_that_cannot_be_are_refused(make, options: dict, match: str):
    with pytest.raises(ConfigError, match=match):
        make(**options)


def test_what_the_runtime_lacks_is_said(tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="no device 'cuda' here; choose one of cpu"):
        Upscaler(tiny, ComputeOptions(runtime="openvino", device="cuda"))
    with pytest.raises(ConfigError, match="no table for 8 bit"):
        Upscaler(tiny, INT8)
    with pytest.raises(ConfigError, match="needs the torch runtime"):
        Upscaler(tiny, OPENVINO).stream([], RoutingTrace())
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"install skipvsr\[openvino\]"):
        Upscaler(tiny, OPENVINO)


def test_few_compiled_sizes_are_kept(tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("skipvsr.inference.openvino_network._KEPT", 2)
    network = OpenVINONetwork(tiny)
    for height in (16, 17, 16, 18):
        network.propagate("backward", torch.zeros(1, 3, height, 16), None, None)
    kept = [shapes[0][2] for _, shapes in network._compiled]
    assert kept == [16, 18]
    assert asdict(OPENVINO)["runtime"] == "openvino"
