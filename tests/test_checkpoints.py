"""Checkpoints of other code bases: what is read, that outputs are equal, and what is refused."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from skipvsr.checkpoints.convert import convert
from skipvsr.checkpoints.foreign import read_flow_weights, read_foreign
from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import read_folder
from skipvsr.errors import CheckpointError
from skipvsr.models.config import VSRConfig
from skipvsr.models.flow import spynet
from skipvsr.models.vsr import SkipVSR
from tests.reference_basicvsr import basicvsr, random_weights
from tests.reference_basicvsr import spynet as reference_spynet

CHANNELS, BLOCKS = 6, 2
WEIGHTS_BASICSR = random_weights(CHANNELS, BLOCKS)
CLIP = torch.rand(3, 3, 37, 50, generator=torch.Generator().manual_seed(5))


def mmagic_names(weights: dict[str, Tensor], prefix: str = "generator.") -> dict[str, Tensor]:
    """BasicSR's names as mmagic's, rule by rule."""
    renamed = {}
    for name, tensor in weights.items():
        name = name.replace("_trunk.", "_resblocks.")
        name = re.sub(r"upconv(\d)", r"upsample\1.upsample_conv", name)
        if match := re.match(r"(spynet\.basic_module\.\d\.basic_module\.)(\d)\.(\w+)", name):
            name = f"{match[1]}{int(match[2]) // 2}.conv.{match[3]}"
        renamed[prefix + name] = tensor
    return renamed


def run(network: SkipVSR, clip: Tensor = CLIP) -> Tensor:
    with torch.inference_mode():
        return network(clip[None])[0]


@pytest.mark.parametrize("size", [(37, 50), (16, 16), (64, 33), (20, 96)])
@pytest.mark.parametrize("frames", [1, 3])
def test_the_network_is_basicvsr(size: tuple[int, int], frames: int, tmp_path: Path):
    clip = torch.rand(frames, 3, *size, generator=torch.Generator().manual_seed(size[0]))
    torch.save({"params": WEIGHTS_BASICSR}, tmp_path / "net.pth")
    expected = basicvsr(WEIGHTS_BASICSR, clip)
    assert expected.std() > 0.05
    torch.testing.assert_close(run(load_model(tmp_path / "net.pth"), clip), expected, atol=1e-5, rtol=1e-5)


def test_flow_that_matters_is_compared():
    """The reference's flow moves things by more than rounding, so that the test above says something about warping."""
    assert reference_spynet(WEIGHTS_BASICSR, CLIP[:1], CLIP[1:2]).abs().mean() > 0.05


CONTENTS = {
    "basicsr": {"params": WEIGHTS_BASICSR},
    "basicsr with averages": {"params": WEIGHTS_BASICSR, "params_ema": random_weights(CHANNELS, BLOCKS, seed=1)},
    "averages alone": {"params_ema": WEIGHTS_BASICSR},
    "bare": WEIGHTS_BASICSR,
    "distributed": {"params": {f"module.{name}": tensor for name, tensor in WEIGHTS_BASICSR.items()}},
    "no mean and std": {"params": {n: t for n, t in WEIGHTS_BASICSR.items() if n not in ("spynet.mean", "spynet.std")}},
    "mmagic": {"meta": {"epoch": 1}, "state_dict": mmagic_names(WEIGHTS_BASICSR)},
    "mmagic, self-trained": {
        "meta": {},
        "state_dict": {**mmagic_names(WEIGHTS_BASICSR), "generator.step_counter": torch.zeros(1)},
        "optimizer": {"state": {}},
    },
    "realbasicvsr": {
        "state_dict": {
            **mmagic_names(WEIGHTS_BASICSR, "generator_ema.basicvsr."),
            **mmagic_names(random_weights(CHANNELS, BLOCKS, seed=2), "generator.basicvsr."),
            "generator_ema.image_cleaning.0.main.0.weight": torch.zeros(64, 3, 3, 3),
            "generator.image_cleaning.0.main.0.weight": torch.zeros(64, 3, 3, 3),
            "discriminator.conv.weight": torch.zeros(1),
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old pickle"])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_both_families_give_the_same_outputs(content: dict, zipped: bool, tmp_path: Path):
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    network = load_model(tmp_path / "net.pth")
    assert network.config == VSRConfig(CHANNELS, BLOCKS, "spynet", "basicvsr")
    torch.testing.assert_close(run(network), basicvsr(WEIGHTS_BASICSR, CLIP), atol=1e-5, rtol=1e-5)


def test_safetensors_of_foreign_layout(tmp_path: Path):
    save_file(WEIGHTS_BASICSR, tmp_path / "net.safetensors")
    assert read_foreign(tmp_path / "net.safetensors").config.blocks == BLOCKS


def test_the_papers_size_is_a_bijection(tmp_path: Path):
    weights = random_weights(64, 30)
    assert len(weights) == 316
    torch.save({"state_dict": mmagic_names(weights)}, tmp_path / "net.pth")
    checkpoint = read_foreign(tmp_path / "net.pth")
    assert checkpoint.config == VSRConfig()
    assert len(checkpoint.weights) == 314
    assert sum(tensor.numel() for tensor in checkpoint.weights.values()) == 6_291_311


REFUSED = {
    "IconVSR": ({"params": {**WEIGHTS_BASICSR, "edvr.conv_first.weight": torch.zeros(1)}}, "IconVSR"),
    "BasicVSR++": ({"state_dict": {"generator.deform_align.backward_1.weight": torch.zeros(1)}}, r"BasicVSR\+\+"),
    "SPyNet": ({"params": {n.removeprefix("spynet."): t for n, t in WEIGHTS_BASICSR.items() if "spynet" in n}}, "is a SPyNet"),
    "another network": ({"params": {"conv.weight": torch.zeros(1)}}, "fusion.weight"),
    "a list": ([1, 2], "no dictionary of tensors"),
    "a missing tensor": (
        {n: t for n, t in WEIGHTS_BASICSR.items() if n != "conv_last.bias"},
        "lacks 'reconstruction.last.bias'",
    ),
    "a strange tensor": ({**WEIGHTS_BASICSR, "extra.weight": torch.zeros(1)}, "unknown tensor 'extra.weight'"),
    "a wrong shape": ({**WEIGHTS_BASICSR, "conv_last.bias": torch.zeros(4)}, r"is \(4,\), not \(3,\)"),
    "NaN": ({**WEIGHTS_BASICSR, "conv_last.bias": torch.full((3,), torch.nan)}, "NaN in 'reconstruction.last.bias'"),
    "other normalisation": ({**WEIGHTS_BASICSR, "spynet.mean": torch.zeros(1, 3, 1, 1)}, "spynet.mean that is not ImageNet"),
    "unequal trunks": (
        {n: t for n, t in WEIGHTS_BASICSR.items() if not n.startswith("forward_trunk.main.2.1")}, "2 backward and 1 forward"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "match"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_represented_is_refused(content, match: str, tmp_path: Path):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=match):
        load_model(tmp_path / "net.pth")


def test_the_bgr_generation_is_refused_by_its_name(tmp_path: Path):
    path = tmp_path / "basicvsr_reds4_20120409-9509fbd5.pth"
    torch.save({"state_dict": mmagic_names(WEIGHTS_BASICSR)}, path)
    with pytest.raises(CheckpointError, match="BGR"):
        load_model(path)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("plain", [True, False])
def test_no_code_in_a_file_is_run(tmp_path: Path, plain: bool):
    path, target = tmp_path / "net.pth", tmp_path / "harm"
    content = {"params": WEIGHTS_BASICSR, "extra": _Bomb(target)}
    if plain:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match="running code"):
        load_model(path)
    assert not target.exists()


def test_damaged_files_are_named(tmp_path: Path):
    torch.save({"params": WEIGHTS_BASICSR}, tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    for name, content in [("cut.pth", data[: len(data) // 2]), ("empty.pth", b""), ("text.pth", b"hello" * 99)]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            load_model(tmp_path / name)


@pytest.mark.parametrize("layout", ["basicsr", "mmagic"])
def test_a_flow_network_alone(layout: str, tmp_path: Path):
    weights = {name: t for name, t in WEIGHTS_BASICSR.items() if re.match(r"spynet\.basic", name)}
    if layout == "mmagic":
        weights = mmagic_names(weights, "")
    content = {name.removeprefix("spynet."): tensor for name, tensor in weights.items()}
    torch.save({"params" if layout == "basicsr" else "state_dict": content}, tmp_path / "flow.pth")
    flow = spynet()
    flow.load_state_dict(read_flow_weights(tmp_path / "flow.pth"))
    with torch.inference_mode():
        ours = flow(CLIP[:1], CLIP[1:2])
    torch.testing.assert_close(ours, reference_spynet(WEIGHTS_BASICSR, CLIP[:1], CLIP[1:2]), atol=1e-4, rtol=1e-4)
    torch.save({"params": WEIGHTS_BASICSR}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="not a SPyNet"):
        read_flow_weights(tmp_path / "net.pth")


def test_conversion(tmp_path: Path):
    torch.save({"params": WEIGHTS_BASICSR}, tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / "model")
    torch.testing.assert_close(
        run(load_model(tmp_path / "model")), basicvsr(WEIGHTS_BASICSR, CLIP), atol=1e-5, rtol=1e-5
    )
    provenance = read_folder(tmp_path / "model").provenance
    assert provenance["converted_from"] == "net.pth"
    assert provenance["family"] == "basicsr"
    assert len(provenance["sha256"]) == 64
    assert "net.pth" in (tmp_path / "model" / "README.md").read_text()
