"""Exported graphs give what torch gives, in ONNX Runtime, at any size; and the example runs without torch."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

import skipvsr
from skipvsr.checkpoints.export import export_onnx
from skipvsr.errors import ConfigError, OutputError
from skipvsr.inference.onnx_graphs import PARTS, make_graphs
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.video.open import read_clip
from tests.conftest import make_network
from tests.media import make_video, picture

EXAMPLE = Path(__file__).parents[1] / "examples" / "onnx_clip.py"
# The smallest, one that is a multiple of every pyramid, ones with odd sides, and one just over a multiple.
SIZES = [(16, 16), (64, 32), (45, 81), (33, 17)]
NETWORKS = {
    "light": VSRConfig(8, 2, "light", "light", "gain"),
    "half": VSRConfig(8, 1, "half", "light"),
    "basicvsr": VSRConfig(6, 2, "spynet", "basicvsr"),
}


class Session:
    """A graph in ONNX Runtime, called with tensors."""

    def __init__(self, graph: bytes | Path) -> None:
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: Tensor) -> Tensor:
        found = self.session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return torch.from_numpy(np.asarray(found[0]))


def inputs(model: SkipVSR, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A frame, one that moved, a state and a flow; a batch of two."""
    generator = torch.Generator().manual_seed(height * width)
    frame = torch.rand(2, 3, height, width, generator=generator)
    state = torch.randn(2, model.config.channels, height, width, generator=generator)
    flow = 4 * torch.randn(2, 2, height, width, generator=generator)  # also from outside of the picture
    return frame, torch.roll(frame, (1, 2), (2, 3)), state, flow


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
@torch.inference_mode()
def test_every_graph_is_the_network(config: VSRConfig):
    model = make_network(config, seed=1)
    run = {name: Session(graph.SerializeToString()) for name, graph in make_graphs(model).items()}
    assert tuple(run) == PARTS
    for height, width in SIZES:
        frame, other, state, flow = inputs(model, height, width)
        expected = {
            "flow": (model.estimate_flow(frame, other), {"reference": frame, "support": other}),
            "backward": (
                model.propagate("backward", frame, state, flow),
                {"frame": frame, "state": state, "flow": flow},
            ),
            "forward": (model.propagate("forward", frame, state, flow), {"frame": frame, "state": state, "flow": flow}),
            "reconstruction": (
                model.reconstruct(frame, state, state + 1),
                {"frame": frame, "backward": state, "forward": state + 1},
            ),
        }
        assert expected["flow"][0].abs().max() > 0.5  # something moves
        for part, (tensor, arguments) in expected.items():
            torch.testing.assert_close(
                run[part](**arguments), tensor, atol=1e-4, rtol=0, msg=f"{part} {width}x{height}"
            )


@torch.inference_mode()
def test_a_recurrence_starts_from_zeros(tiny: SkipVSR):
    frame, _, state, flow = inputs(tiny, 24, 40)
    step = Session(make_graphs(tiny)["backward"].SerializeToString())
    found = step(frame=frame, state=torch.zeros_like(state), flow=torch.zeros_like(flow))
    torch.testing.assert_close(found, tiny.propagate("backward", frame, None, None), atol=1e-5, rtol=0)


def test_the_example_runs_the_exported_folder_without_torch(tmp_path: Path):
    """The whole chain on the packaged model: both recurrences in the right order, and no import of torch or skipvsr."""
    model = skipvsr.load_model("compact", device="cpu")
    export_onnx(model, tmp_path / "model", name="compact")
    source = make_video(tmp_path / "in.mp4", [picture(3 * index, 64, 48) for index in range(5)])
    clip = list(read_clip(source))
    expected = np.stack(list(skipvsr.upscale_frames(clip, model, scene_detection=False))).astype(int)
    found = np.stack(runpy.run_path(str(EXAMPLE))["upscale"](tmp_path / "model", clip)).astype(int)
    assert np.abs(found - expected).max() <= 1
    assert np.abs(found - np.roll(expected, 1, axis=0)).mean() > 5  # the frames differ
    code = (
        "import runpy, sys\nsys.modules.update(torch=None, skipvsr=None)\n"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    arguments = [EXAMPLE, tmp_path / "model", source, tmp_path / "out.mp4"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    written = read_clip(tmp_path / "out.mp4")
    assert written.shape == expected.shape == (5, 192, 256, 3)
    assert np.abs(written - expected).mean() < 3  # encoded


def test_only_the_first_blocks(tmp_path: Path):
    model = make_network(NETWORKS["light"], seed=2)
    export_onnx(model, tmp_path / "short", blocks=1)
    description = json.loads((tmp_path / "short" / "config.json").read_text())
    assert (description["format"], description["blocks"], description["scale"]) == ("skipvsr-onnx", 1, 4)
    frame, _, state, flow = inputs(model, 24, 40)
    with torch.inference_mode():
        expected = model.shortened(1).propagate("forward", frame, state, flow)
        whole = model.propagate("forward", frame, state, flow)
    found = Session(tmp_path / "short" / "forward.onnx")(frame=frame, state=state, flow=flow)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - whole).abs().max() > 0.01


def test_only_an_export_is_replaced(tmp_path: Path, tiny: SkipVSR):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"format": "skipvsr"}')
    with pytest.raises(OutputError, match="is no export"):
        export_onnx(tiny, tmp_path / "other", overwrite=True)
    export_onnx(tiny, tmp_path / "model")
    with pytest.raises(OutputError, match="exists already"):
        export_onnx(tiny, tmp_path / "model")
    (tmp_path / "model" / "flow.onnx").write_bytes(b"")
    export_onnx(tiny, tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "flow.onnx").stat().st_size > 1000
    assert {path.name for path in tmp_path.iterdir()} == {"other", "model"}
    assert (tmp_path / "other" / "config.json").read_text() == '{"format": "skipvsr"}'


def test_what_cannot_be_exported_is_said(tmp_path: Path, tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="0 blocks"):
        export_onnx(tiny, tmp_path / "model", blocks=0)
    with pytest.raises(ConfigError, match="2 blocks, fewer than 3"):
        export_onnx(tiny, tmp_path / "model", blocks=3)
    with pytest.raises(ConfigError, match="is no network"):
        export_onnx(skipvsr.Bicubic(), tmp_path / "model")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"install skipvsr\[onnx\]"):
        export_onnx(tiny, tmp_path / "model")
    assert not list(tmp_path.iterdir())
