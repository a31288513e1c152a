"""`skipvsr convert`: from a published BasicVSR checkpoint to a model folder."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from skipvsr.checkpoints.foreign import read_foreign
from skipvsr.checkpoints.native import Checkpoint, save_folder


def convert(source: str | Path, destination: str | Path, *, overwrite: bool = False) -> Checkpoint:
    """Convert a BasicVSR checkpoint of BasicSR or mmagic into a model folder.

    Args:
        source: a .pth or .safetensors file.
        destination: the model folder to make.
        overwrite: replace the destination if it is a model folder.

    Returns:
        What the folder holds.

    Raises:
        CheckpointError: the source cannot be read, or is another network.
        OutputError: the destination exists or cannot be written.
    """
    source = Path(source)
    checkpoint = read_foreign(source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    provenance = {**checkpoint.provenance, "converted_from": source.name, "sha256": digest}
    checkpoint = replace(checkpoint, provenance=provenance)
    save_folder(checkpoint, destination, card=_card(checkpoint, source, digest), overwrite=overwrite)
    return checkpoint


def _card(checkpoint: Checkpoint, source: Path, digest: str) -> str:
    config = checkpoint.config
    return f"""---
library_name: skipvsr
pipeline_tag: video-to-video
tags:
- video-super-resolution
- skipvsr
---
# {source.stem}

BasicVSR x4 ({config.channels} channels, {config.blocks} residual blocks per direction), converted by `skipvsr convert`
from `{source.name}` (layout: {checkpoint.provenance["family"]}; sha256 {digest}). See its
publisher for how it was trained and under which licence it may be used.

    skipvsr upscale in.mp4 out.mp4 --model THIS_FOLDER
"""
