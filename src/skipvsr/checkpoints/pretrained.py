"""`from_pretrained` and `save_pretrained`: the names by which other libraries load and store a network."""

from __future__ import annotations

from pathlib import Path

import torch

from skipvsr.checkpoints.hub import HUB_ID, LIBRARY, download
from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import Checkpoint, save_folder
from skipvsr.models.vsr import SkipVSR


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    device: str | torch.device = "auto",
) -> SkipVSR:
    """`load_model`, with the arguments that the Hub's libraries have for what is loaded from there.

    Args:
        source: what `load_model` takes; the next four arguments are for "owner/name".
        revision: a branch, tag or commit; None: that after an @ in the source, or the newest.
        cache_dir, local_files_only, token: see `skipvsr.checkpoints.hub.download`.
        device: where to put it; "auto": a GPU if there is one.

    Raises:
        ModelError, CheckpointError: as `load_model` does.
    """
    match = HUB_ID.fullmatch(str(source))
    if match and isinstance(source, str) and not Path(source).exists():
        source = download(
            match[1], revision or match[2], cache_dir=cache_dir, local_files_only=local_files_only, token=token
        )
    return load_model(source, device=device)


def save_pretrained(
    model: SkipVSR,
    folder: str | Path,
    *,
    card: str | None = None,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> Path:
    """Write a network as a model folder, which `load_model` reads and `push` uploads.

    Args:
        model: with its router and tables, if it has them.
        folder: the folder to make, completely or not at all.
        card: text of its README.md; None: a short one, which says what the network is.
        dtype: of the stored weights: torch.float32, or torch.float16 for half the size.
        overwrite: replace the folder if it is a model folder.

    Returns:
        The folder.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    folder = Path(folder)
    checkpoint = Checkpoint(model.config, dict(model.state_dict()), {}, model.calibration, model.quantization)
    text = short_card(model, folder.name) if card is None else card
    save_folder(checkpoint, folder, card=text, dtype=dtype, overwrite=overwrite)
    return folder


def short_card(model: SkipVSR, name: str) -> str:
    """A model card with the front matter that the Hub shows, and what is known of the network itself."""
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"""---
library_name: {LIBRARY}
pipeline_tag: video-to-video
tags:
- video-super-resolution
- {LIBRARY}
---
# {name}

Video super-resolution x4: {config.channels} channels, {config.blocks} residual blocks in each direction, {config.flow} flow,
{config.reconstruction} reconstruction, router: {config.router}; {parameters:,} parameters.

    skipvsr upscale in.mp4 out.mp4 --model OWNER/{name}

How it was trained and under which licence it may be used is for its publisher to say here.
"""
