"""Paths in a configuration's file are relative to the file, so that a run can be started from anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Turn the relative paths in the values of a TOML file into what they are from the working directory, in place.

    Example: "../../../shared/data" in configs/compact/compact.toml becomes "../shared/data".

    Args:
        values: as they were read; what is not of the expected type is left for the check that follows.
        folder: where the file lies. A stage's `init` may also be a name, and is left as it is where no such file is there.
    """
    data = values.get("data")
    for table in (data, *_tables(data, "train"), *_tables(values.get("validation"), "clips")):
        if isinstance(table, dict):
            for key in ("root", "stills", "pool"):
                if isinstance(table.get(key), str) and table[key]:
                    table[key] = _from_here(folder, table[key])
    for stage in _tables(values, "stages"):
        start = stage.get("init")
        if isinstance(start, str) and start and Path(_from_here(folder, start)).exists():
            stage["init"] = _from_here(folder, start)
        if isinstance(stage.get("flow_init"), str) and stage["flow_init"]:
            stage["flow_init"] = _from_here(folder, stage["flow_init"])


def _tables(values: Any, key: str) -> list[dict[str, Any]]:
    found = values.get(key) if isinstance(values, dict) else None
    return [table for table in found if isinstance(table, dict)] if isinstance(found, list) else []


def _from_here(folder: Path, text: str) -> str:
    return os.path.normpath(folder / text)
