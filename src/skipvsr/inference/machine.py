"""A description of the machine, stored with every measurement."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from skipvsr.version import installed_version


def describe_machine() -> dict[str, Any]:
    """Processor, cores and threads in use, memory, GPU, and the versions that matter. Nothing that names the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "skipvsr": installed_version(),
    }


def describe_device(device: torch.device, processes: int = 1) -> str:
    """What computes, in a few words: as many GPUs as there are processes, or the processor and its threads."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return f"{processes} x {name}" if processes > 1 else name
    threads = processes * torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    vector = next((line for line in lines if line.startswith("flags")), "")
    wide = " AVX-512" if "avx512f" in vector else " AVX2" if "avx2" in vector else ""
    return (names[0] if names else platform.machine()) + wide
