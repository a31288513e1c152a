"""`skipvsr export`: a network as ONNX graphs, for programs without torch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from skipvsr.checkpoints.native import CONFIG
from skipvsr.errors import ConfigError, OutputError
from skipvsr.inference.onnx_graphs import OPERATOR_SET, PARTS, make_graphs
from skipvsr.models.recurrence import MIN_SIDE_PX
from skipvsr.models.vsr import SkipVSR

FORMAT, FORMAT_VERSION = "skipvsr-onnx", 1


def export_onnx(
    model: SkipVSR, folder: str | Path, *, blocks: int | None = None, name: str = "", overwrite: bool = False
) -> Path:
    """Write a network as ONNX graphs: flow, one step of each recurrence, and reconstruction; for frames of any size.

    The folder holds flow.onnx, backward.onnx, forward.onnx and reconstruction.onnx, whose inputs and outputs
    `skipvsr.inference.onnx_graphs.make_graphs` describes, and config.json with what running them takes to know.
    There is no router in it: every block runs, or the first `blocks` of each recurrence.

    Args:
        model: the network.
        folder: the folder to make, completely or not at all.
        blocks: residual blocks of each recurrence, from the first; None: all of them.
        name: of the model, for config.json.
        overwrite: replace the folder if it is such an export.

    Returns:
        The folder.

    Raises:
        ConfigError: onnx is missing, the model is no network, or it has fewer blocks.
        OutputError: the folder exists, or cannot be written.
    """
    folder = Path(folder)
    if blocks is not None and blocks < 1:
        raise ConfigError(f"{blocks} blocks were asked for; it must be at least 1")
    if folder.exists() and not (overwrite and _is_export(folder)):
        reason = "is no export; choose another" if overwrite else "exists already; choose another, or give --overwrite"
        raise OutputError(f"{folder} {reason}")
    network = model if blocks is None else model.shortened(blocks)
    graphs = make_graphs(network)
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": name,
        "channels": network.config.channels,
        "blocks": network.config.blocks,
        "scale": model.scale,
        "min_side": MIN_SIDE_PX,
        "opset": OPERATOR_SET,
        "graphs": {part: f"{part}.onnx" for part in PARTS},
    }
    work = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        work.mkdir(parents=True)
        for part, graph in graphs.items():
            (work / f"{part}.onnx").write_bytes(graph.SerializeToString())
        (work / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        work.replace(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _is_export(folder: Path) -> bool:
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False
