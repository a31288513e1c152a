"""Short measurements, remembered for this machine: how long a step takes, which precision is fastest.

They lie in the user's cache folder, in one JSON file for each kind; SKIPVSR_CACHE names another folder. What was measured
with another processor, GPU, number of threads or version of torch is never found. Losing them costs a measurement, no more:
what cannot be read or written is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from skipvsr.inference.machine import describe_machine

# Entries of each kind; the oldest go.
_MOST = 500


def cache_folder() -> Path:
    """Where measurements are kept."""
    chosen = os.environ.get("SKIPVSR_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("skipvsr", appauthor=False)


def recall(kind: str, key: Mapping[str, object]) -> Any | None:
    """What was remembered on this machine, as plain JSON values; None where it was never measured.

    Args:
        kind: of measurement; the name of its file.
        key: all that the result depends on beside the machine: plain values.
    """
    return _read(kind).get(_digest(key))


def remember(kind: str, key: Mapping[str, object], value: Any) -> None:
    """Keep a measurement, plain JSON values, for `recall` with the same key on this machine."""
    path = _path(kind)
    work = path.with_name(f"{path.name}.{os.getpid()}.part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = _read(kind)
        entries.pop(_digest(key), None)
        entries[_digest(key)] = value
        work.write_text(json.dumps(dict(list(entries.items())[-_MOST:]), indent=0))
        work.replace(path)


def _path(kind: str) -> Path:
    return cache_folder() / f"{kind}.json"


def _read(kind: str) -> dict[str, Any]:
    try:
        entries = json.loads(_path(kind).read_text())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _digest(key: Mapping[str, object]) -> str:
    machine = {name: value for name, value in describe_machine().items() if name not in ("python", "memory_gib")}
    text = json.dumps([machine, dict(key)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
