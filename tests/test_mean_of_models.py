"""scripts/mean_of_models.py: the mean of two models, weight by weight."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import Checkpoint, read_folder, save_folder
from skipvsr.models.config import VSRConfig
from tests.conftest import make_network
from tests.test_docs import load_script

SCRIPT = load_script("mean_of_models")


def stored(folder: Path, seed: int, blocks: int = 2) -> str:
    """The folder of a small network."""
    network = make_network(VSRConfig(4, blocks, "light", "light", "gain", lean=1), seed=seed)
    save_folder(Checkpoint(network.config, network.state_dict()), folder)
    return str(folder)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """The script with this command line."""
    monkeypatch.setattr(sys, "argv", ["mean_of_models.py", *words])
    SCRIPT.main()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_every_weight_is_so_much_of_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float):
    first, second = stored(tmp_path / "a", 1), stored(tmp_path / "b", 2)
    run(monkeypatch, first, second, str(tmp_path / "mean"), "--weight", str(weight))
    a, b, mean = (load_model(folder, device="cpu").state_dict() for folder in (first, second, tmp_path / "mean"))
    assert set(mean) == set(a) == set(b)
    for name, found in mean.items():
        torch.testing.assert_close(found, (1 - weight) * a[name] + weight * b[name])
    assert "--weight" in read_folder(tmp_path / "mean").provenance["command"]


def test_models_of_two_shapes_have_no_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match=r"blocks=2.* and .*blocks=3"):
        run(monkeypatch, stored(tmp_path / "a", 1), stored(tmp_path / "b", 2, blocks=3), str(tmp_path / "mean"))
    assert not (tmp_path / "mean").exists()
