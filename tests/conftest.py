"""Fixtures that more than one test file needs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR

# Without a GPU, Triton's kernels run in its interpreter. It looks when it is imported.
if not torch.cuda.is_available():
    assert "triton" not in sys.modules
    os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
# No test depends on time.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture
def tiny() -> SkipVSR:
    """A light network of 8 channels and 2 blocks, random weights, whose flow is not zero."""
    return make_network(VSRConfig(channels=8, blocks=2, flow="light", reconstruction="light"))


def make_network(config: VSRConfig, seed: int = 0) -> SkipVSR:
    """A network with random weights everywhere, so that every part has a say in its output."""
    generator = torch.Generator().manual_seed(seed)
    network = SkipVSR(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 16
            parameter.normal_(0.0, 0.7 / fan**0.5, generator=generator)
    return network


@pytest.fixture(autouse=True)
def _remembers_nothing(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """No test sees what was measured on this machine before, nor adds to it."""
    monkeypatch.setenv("SKIPVSR_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _hidden_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """What a test says of the CPU is true on a machine with a GPU too: only tests that say so see it."""
    if not any(request.node.get_closest_marker(name) for name in ("gpu", "any_device")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The project's clips; users do not have them."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not here")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """GPU tests skip without a GPU, and fail instead where SKIPVSR_REQUIRE_GPU=1."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if os.environ.get("SKIPVSR_REQUIRE_GPU") == "1":
            pytest.fail("SKIPVSR_REQUIRE_GPU=1, and there is no GPU")
        pytest.skip("no GPU")
