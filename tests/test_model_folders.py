"""Model folders: written, read, downloaded and packaged; and what is said of damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from skipvsr.checkpoints.load import load_model, packaged_names, read_checkpoint
from skipvsr.checkpoints.native import CONFIG, WEIGHTS, Checkpoint, build, read_folder, save_folder
from skipvsr.errors import CheckpointError, ModelError, OutputError
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from tests.conftest import make_network

CLIP = torch.rand(3, 3, 37, 50, generator=torch.Generator().manual_seed(5))


def run(network: SkipVSR, clip: Tensor = CLIP) -> Tensor:
    with torch.inference_mode():
        return network(clip[None])[0]


def tiny_checkpoint() -> Checkpoint:
    network = make_network(VSRConfig(4, 1, "light", "light"))
    return Checkpoint(network.config, dict(network.state_dict()), {"command": "none", "numbers": {"psnr": 30.5}})


def test_a_folder_survives_a_round_trip(tmp_path: Path):
    checkpoint = tiny_checkpoint()
    save_folder(checkpoint, tmp_path / "model", card="# Card\n")
    back = read_folder(tmp_path / "model")
    assert (back.config, back.provenance) == (checkpoint.config, checkpoint.provenance)
    assert torch.equal(run(build(back)), run(build(checkpoint)))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["README.md", CONFIG, WEIGHTS]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_half_precision_is_half_the_size_and_loads_as_fp32(tmp_path: Path):
    checkpoint = tiny_checkpoint()
    save_folder(checkpoint, tmp_path / "half", dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / WEIGHTS).values()} == {torch.float16}
    network = load_model(tmp_path / "half")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    torch.testing.assert_close(run(network), run(build(checkpoint)), atol=5e-3, rtol=0)


def test_a_model_is_not_overwritten_unasked(tmp_path: Path):
    save_folder(tiny_checkpoint(), tmp_path / "model")
    with pytest.raises(OutputError, match="exists already"):
        save_folder(tiny_checkpoint(), tmp_path / "model")
    save_folder(tiny_checkpoint(), tmp_path / "model", card="new", overwrite=True)
    assert (tmp_path / "model" / "README.md").read_text() == "new"
    (tmp_path / "precious").mkdir()
    with pytest.raises(OutputError, match="not a model folder"):
        save_folder(tiny_checkpoint(), tmp_path / "precious", overwrite=True)


def break_folder(folder: Path, how: str) -> None:
    description = json.loads((folder / CONFIG).read_text())
    if how == "no config":
        (folder / CONFIG).unlink()
    elif how == "cut config":
        (folder / CONFIG).write_text('{"format": ')
    elif how == "other format":
        (folder / CONFIG).write_text('{"model_type": "bert"}')
    elif how == "future":
        (folder / CONFIG).write_text(json.dumps({**description, "format_version": 99}))
    elif how == "unknown key":
        description["network"]["depth"] = 3
        (folder / CONFIG).write_text(json.dumps(description))
    elif how == "no weights":
        (folder / WEIGHTS).unlink()
    elif how == "cut weights":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    elif how == "other size":
        description["network"]["channels"] = 5
        (folder / CONFIG).write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("no config", "no config.json"),
        ("cut config", "damaged"),
        ("other format", "skipvsr convert"),
        ("future", "version 99"),
        ("unknown key", "depth"),
        ("no weights", "missing"),
        ("cut weights", "damaged"),
        ("other size", "not fit"),
    ],
)
def test_broken_folders_are_named(tmp_path: Path, how: str, match: str):
    save_folder(tiny_checkpoint(), tmp_path / "model")
    break_folder(tmp_path / "model", how)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_unknown_names_list_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("compat", "compact.pth", str(tmp_path / "nowhere.pth")):
        with pytest.raises(ModelError, match="compact"):
            load_model(name)


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*args, **kwargs):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match="Hub"):
        load_model("somebody/some-model")


def test_a_hub_id_is_downloaded_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    save_folder(tiny_checkpoint(), tmp_path / "model")
    asked = {}

    def download(repository: str, revision: str | None = None, **kwargs) -> str:
        asked.update(repository=repository, revision=revision)
        return str(tmp_path / "model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_model("somebody/some-model@v2").config == tiny_checkpoint().config
    assert asked == {"repository": "somebody/some-model", "revision": "v2"}


def test_packaged_models_load_and_say_where_they_come_from():
    assert "compact" in packaged_names()
    for name in packaged_names():
        checkpoint = read_checkpoint(name)
        assert {"command", "commit", "data", "iterations"} <= set(checkpoint.provenance)
        scale = checkpoint.config.scale
        assert run(build(checkpoint)).shape == (3, 3, scale * 37, scale * 50)
