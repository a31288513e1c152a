"""The example for spandrel, in spandrel itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import skipvsr
from skipvsr.checkpoints.load import PACKAGED, packaged_names
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale.frames import to_tensor
from skipvsr.video.images import read_image, write_image
from tests.conftest import make_network
from tests.media import picture

spandrel = pytest.importorskip("spandrel", exc_type=ImportError)

EXAMPLE = Path(__file__).parents[1] / "examples" / "spandrel_model.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("spandrel_model", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.add_to(spandrel.MAIN_REGISTRY)
    return module


@pytest.mark.parametrize("name", packaged_names())
def test_spandrel_loads_a_packaged_model(example, name: str):
    descriptor = spandrel.ModelLoader(device="cpu").load_from_file(PACKAGED / name / "model.safetensors")
    model = skipvsr.load_model(name, device="cpu")
    assert (descriptor.architecture.id, descriptor.scale, descriptor.purpose) == ("SkipVSR", model.config.scale, "SR")
    assert descriptor.model.config == model.config
    frames = [to_tensor(picture(index)) for index in range(4)]
    # A clip, by the network that spandrel loaded.
    expected = list(skipvsr.upscale_frames(frames, model, precision="fp32"))
    found = list(skipvsr.upscale_frames(frames, descriptor.model, precision="fp32"))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    # An image is a clip of one frame.
    (alone,) = skipvsr.upscale_frames(frames[:1], model, precision="fp32")
    assert torch.allclose(descriptor(frames[0][None])[0], alone, atol=1e-5)
    # Smaller ones are padded by spandrel.
    assert descriptor(frames[0][None, :, :9, :11]).shape == (1, 3, 9 * descriptor.scale, 11 * descriptor.scale)


@pytest.mark.parametrize(
    "config",
    [
        VSRConfig(8, 2, "light", "light", "none", 2),
        VSRConfig(8, 1, "spynet", "basicvsr", "paper"),
        VSRConfig(64, 3, "spynet", "basicvsr", "gain", 2),
    ],
)
def test_every_kind_of_network_is_told_by_its_weights(example, config: VSRConfig):
    network: SkipVSR = make_network(config)
    descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(network.state_dict())
    assert descriptor.model.config == config


def test_weights_of_other_networks_are_left_to_spandrel(example):
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.ModelLoader().load_from_state_dict({"reconstruction.fusion.weight": torch.zeros(8, 16, 1, 1)})
    weights = make_network(VSRConfig(8, 2)).state_dict() | {"another.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="no network of this version"):
        spandrel.ModelLoader().load_from_state_dict(weights)


def test_the_example_upscales_an_image(tmp_path: Path):
    write_image(tmp_path / "in.png", picture(0))
    words = [EXAMPLE, PACKAGED / "compact" / "model.safetensors", tmp_path / "in.png", tmp_path / "out.png"]
    subprocess.run([sys.executable, *words], check=True)
    (expected,) = skipvsr.upscale_frames([picture(0)], "compact", precision="fp32")
    assert np.abs(read_image(tmp_path / "out.png").astype(int) - expected).max() <= 1
