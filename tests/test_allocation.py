"""Memory that is given back is not fetched anew."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
if sys.argv[1] == "keep":
    from skipvsr.allocation import keep_freed_memory
    assert keep_freed_memory()
import torch
with torch.inference_mode():
    values = torch.rand(1, 32, 128, 512)
    convolution = torch.nn.Conv2d(32, 32, 3, padding=1)
    def work():
        for _ in range(10):
            convolution(torch.relu(convolution(values)))
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str) -> int:
    chosen = (
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_MMAP_THRESHOLD_",
        "GLIBC_TUNABLES",
        "LD_PRELOAD",
        "THP_MEM_ALLOC_ENABLE",
    )
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, what], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone")
def test_buffers_come_from_memory_that_was_freed():
    # Three buffers of 8 MiB, ten times, are more than 60,000 pages of 4 KiB.
    assert faults("keep") < 6_000 < 60_000 < faults("leave")


def test_a_choice_of_the_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    from skipvsr.allocation import keep_freed_memory

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    assert not keep_freed_memory()
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ
