"""Our own checkpoint format: a model folder in the layout of the Hugging Face Hub.

config.json         {"format": "skipvsr", "format_version": 2, "network": {...}, "provenance": {...}}, and "calibration"
                    if the router was calibrated, "quantization" if the ranges for 8 bit were measured
model.safetensors   the weights, in fp32 or fp16
README.md           the model card
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from skipvsr.errors import CheckpointError, ConfigError, OutputError
from skipvsr.models.any_model import AnyModel
from skipvsr.models.config import VSRConfig
from skipvsr.models.quantization import Quantization
from skipvsr.models.router import Calibration
from skipvsr.models.vsr import SkipVSR
from skipvsr.video.files import write_whole

FORMAT, FORMAT_VERSION = "skipvsr", 2
# In version 1 the reconstruction was called "tail", in the network's settings and in the names of its weights.
_BEFORE_RECONSTRUCTION = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


@dataclass(frozen=True)
class Checkpoint:
    """A network's configuration, its weights, and where they come from.

    Args:
        config: configuration of the network.
        weights: fp32 tensors by name, exactly those of `SkipVSR(config).state_dict()`.
        provenance: how it was made (command, data, iterations, commit) and the numbers measured; plain JSON values.
        calibration: table of its router; None: without a router, or not calibrated.
        quantization: ranges for 8 bit; None: not measured.
    """

    config: VSRConfig
    weights: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    quantization: Quantization | None = None


def build(checkpoint: Checkpoint) -> SkipVSR:
    """The network of a checkpoint, in eval mode, on the CPU."""
    network = SkipVSR(checkpoint.config)
    network.load_state_dict(checkpoint.weights)
    network.calibration = checkpoint.calibration
    network.quantization = checkpoint.quantization
    return network.eval()


def read_folder(folder: Path) -> Checkpoint:
    """Read a model folder.

    Raises:
        CheckpointError: a file is missing, damaged, made by a later version, or does not fit the network it describes.
    """
    description = _read_config(folder / CONFIG)
    renamed = description["format_version"] == _BEFORE_RECONSTRUCTION
    if renamed and "tail" in description.get("network", {}):
        description["network"]["reconstruction"] = description["network"].pop("tail")
    try:
        config = VSRConfig.from_dict(description["network"])
        table = description.get("calibration")
        calibration = None if table is None else Calibration.from_dict(table)
        ranges = description.get("quantization")
        quantization = None if ranges is None else Quantization.from_dict(ranges)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} does not describe a network ({error}); get the model again"
        ) from error
    weights = read_safetensors(folder / WEIGHTS)
    if renamed:
        weights = {re.sub(r"^tail\.", "reconstruction.", name): tensor for name, tensor in weights.items()}
    check_weights(weights, config, folder / WEIGHTS)
    return Checkpoint(config, weights, description.get("provenance", {}), calibration, quantization)


def save_folder(
    checkpoint: Checkpoint,
    folder: str | Path,
    *,
    card: str = "",
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> None:
    """Write a model folder, completely or not at all.

    Args:
        checkpoint: what to write.
        folder: the folder to make.
        card: text of its README.md.
        dtype: type of the stored weights: torch.float32, or torch.float16 for half the size.
        overwrite: replace the folder if it is a model folder.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not (overwrite and (folder / CONFIG).is_file()):
        reason = (
            "is not a model folder; choose another"
            if overwrite
            else "exists already; choose another, or give --overwrite"
        )
        raise OutputError(f"{folder} {reason}")
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": checkpoint.config.to_dict(),
        "provenance": checkpoint.provenance,
    }
    if checkpoint.calibration is not None:
        description["calibration"] = checkpoint.calibration.to_dict()
    if checkpoint.quantization is not None:
        description["quantization"] = checkpoint.quantization.to_dict()
    work = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        work.mkdir(parents=True)
        weights = {name: tensor.detach().to(dtype).contiguous().cpu() for name, tensor in checkpoint.weights.items()}
        (work / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
        (work / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        (work / CARD).write_text(card, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        work.replace(folder)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder} cannot be written ({error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def store_table(folder: Path, table: Calibration | Quantization) -> None:
    """Store a table in a model folder, in the place of the one of its kind; nothing else in it changes.

    Raises:
        CheckpointError: the folder is not a model folder.
        OutputError: its config.json cannot be written.
    """
    path = folder / CONFIG
    key = "calibration" if isinstance(table, Calibration) else "quantization"
    description = {**_read_config(path), key: table.to_dict()}
    write_whole(path, json.dumps(description, indent=2) + "\n")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, with floating-point ones converted to fp32. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; get the model again")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); get it again") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def check_weights(weights: dict[str, Tensor], config: VSRConfig, path: Path) -> None:
    """Raise CheckpointError unless names and shapes of the weights are the network's, and all values are finite."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in SkipVSR(config).state_dict().items()}
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        which = f"lacks {missing[0]!r}" if missing else f"has an unknown tensor {extra[0]!r}"
        count = len(missing) + len(extra)
        raise CheckpointError(f"{path} does not fit its network: it {which} ({count} such tensors in all)")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            got, wanted = tuple(weights[name].shape), tuple(shape)
            raise CheckpointError(f"{path} does not fit its network: {name!r} is {got}, not {wanted}")
        if not torch.isfinite(weights[name]).all():
            raise CheckpointError(f"{path} has infinite values or NaN in {name!r}; get it again")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is not a model folder: it has no {CONFIG}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); get it again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} does not belong to a skipvsr model; convert the checkpoint with 'skipvsr convert'"
        )
    version = description.get("format_version")
    if version not in (_BEFORE_RECONSTRUCTION, FORMAT_VERSION):
        raise CheckpointError(
            f"{path} has format version {version!r}; this version of skipvsr reads up to {FORMAT_VERSION}; update skipvsr"
        )
    return description


def fingerprint(model: AnyModel) -> str:
    """A hash of all weights, buffers and tables, by which a resumed job recognises its model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    digest.update(repr((model.calibration, model.quantization)).encode())
    return digest.hexdigest()[:16]
