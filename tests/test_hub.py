"""Model folders to the Hub and back, with huggingface_hub itself, against a stand-in of its interface on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import skipvsr
from skipvsr.checkpoints.hub import check_card, push
from skipvsr.checkpoints.load import PACKAGED, packaged_names
from skipvsr.errors import CheckpointError, ConfigError
from skipvsr.models.router import Calibration
from skipvsr.models.vsr import SkipVSR
from tests.conftest import make_network
from tests.hub_server import TOKEN, Hub, serving


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving() as server:
        yield server


def weights_sum(model: SkipVSR) -> float:
    return sum(tensor.double().abs().sum().item() for tensor in model.state_dict().values())


def python(hub: Hub, cache: Path, code: str, *arguments: object, token: str = TOKEN, offline: bool = False):
    """Run some code as a user would who has set HF_ENDPOINT; huggingface_hub reads it when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    environment |= {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        **({"HF_HUB_OFFLINE": "1"} if offline else {}),
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


COMMAND_LINE = "import sys; from skipvsr.cli.main import main; main(sys.argv[1:])"
LOAD = """
import sys, json, skipvsr
found = []
for source in sys.argv[1:]:
    try:
        model = skipvsr.from_pretrained(source)
        found.append(sum(tensor.double().abs().sum().item() for tensor in model.state_dict().values()))
        assert model.calibration is not None
    except skipvsr.ModelError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def test_a_folder_goes_up_and_comes_back_pinned(hub: Hub, tmp_path: Path):
    """Two commits; each is found by its own id, the newest by the name, the first by its tag; later without the Hub."""
    pins, sums = [], []
    for version in (1, 2):
        model = make_network(skipvsr.VSRConfig(8, 2, "light", "light", "gain"), seed=version)
        model.calibration = Calibration(24, (0.5,), (0.1,))
        folder = skipvsr.save_pretrained(model, tmp_path / f"model-{version}")
        done = python(
            hub, tmp_path / "cache", COMMAND_LINE, "push", folder, "someone/tiny", "--tag", f"v{version}", "--json"
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["event"], report["repository"], len(report["revision"])) == ("report", "someone/tiny", 40)
        pins.append(f"someone/tiny@{report['revision']}")
        sums.append(weights_sum(model))
    files = hub.repositories["someone/tiny"].commits[pins[0].partition("@")[2]]
    assert {name: len(data) for name, data in files.items()} == {
        path.name: path.stat().st_size for path in (tmp_path / "model-1").iterdir()
    }
    assert ModelCard(files["README.md"].decode()).data.to_dict()["library_name"] == "skipvsr"

    sources = ["someone/tiny", *pins, "someone/tiny@v1"]
    expected = [sums[1], sums[0], sums[1], sums[0]]
    assert sums[0] != pytest.approx(sums[1])
    loaded = json.loads(python(hub, tmp_path / "cache", LOAD, *sources).stdout)
    assert loaded == pytest.approx(expected)
    asked = len(hub.requests)
    again = json.loads(python(hub, tmp_path / "cache", LOAD, *sources, offline=True).stdout)
    assert again == pytest.approx(expected)
    assert len(hub.requests) == asked


def test_what_is_not_there_is_said(hub: Hub, tmp_path: Path):
    model = make_network(skipvsr.VSRConfig(8, 2, "light", "light"), seed=3)
    folder = skipvsr.save_pretrained(model, tmp_path / "model")
    refused = python(hub, tmp_path / "cache", COMMAND_LINE, "push", folder, "someone/else", token="hf_wrong")
    assert refused.returncode == 1
    assert "could not be uploaded to someone/else: the Hub answered with status 401; log in" in refused.stderr
    assert "someone/else" not in hub.repositories
    python(hub, tmp_path / "cache", COMMAND_LINE, "push", folder, "someone/there")
    said = json.loads(python(hub, tmp_path / "cache", LOAD, "someone/missing", "someone/there@v9").stdout)
    assert "'someone/missing'" in said[0]
    assert "does not exist there, or only for its members" in said[0]
    assert "no such revision" in said[1]
    said = json.loads(python(hub, tmp_path / "empty", LOAD, "someone/there", offline=True).stdout)
    assert "the local cache does not have it whole" in said[0]


def test_only_whole_model_folders_with_a_card_go_up(tmp_path: Path, tiny: SkipVSR):
    folder = skipvsr.save_pretrained(tiny, tmp_path / "model")
    with pytest.raises(ConfigError, match="must be OWNER/NAME"):
        push(folder, "tiny")
    (folder / "README.md").write_text("# tiny\n")
    with pytest.raises(ConfigError, match="library_name None; begin it with"):
        push(folder, "someone/tiny")
    (folder / "README.md").write_text("---\nlibrary_name: [\n---\n")
    with pytest.raises(ConfigError, match="is no model card"):
        push(folder, "someone/tiny")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        push(folder, "someone/tiny")


def test_what_is_saved_is_what_is_loaded(tmp_path: Path):
    model = make_network(skipvsr.VSRConfig(8, 2, "light", "light", "gain"), seed=4)
    model.calibration = Calibration(24, (0.5,), (0.1,))
    skipvsr.save_pretrained(model, tmp_path / "model")
    found = skipvsr.from_pretrained(tmp_path / "model", device="cpu")
    assert (found.config, found.calibration) == (model.config, model.calibration)
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", packaged_names())
def test_cards_of_packaged_models_are_ready_for_the_hub(name: str):
    card = PACKAGED / name / "README.md"
    check_card(card)
    data = ModelCard(card.read_text()).data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["pipeline_tag"] == "video-to-video"
