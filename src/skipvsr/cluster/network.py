"""The network of a job: one for all films and machines."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from skipvsr.cluster.film_plan import FilmTask
from skipvsr.cluster.store import is_url
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.choose import resolve_model
from skipvsr.upscale.size import OutputSize
from skipvsr.video.errors import PIPE

_LOG = logging.getLogger("skipvsr")


def network_for(
    tasks: list[FilmTask],
    model: AnyModel | str | Path,
    *,
    scale: int | None,
    size: OutputSize,
    skips: bool,
    device: str | torch.device,
) -> AnyModel:
    """The network that a job uses; arguments and errors as for `resolve_model`.

    "auto" chooses once, by the first film; of one that is a URL nothing is known, as of a pipe.
    """
    source = PIPE if is_url(tasks[0].source) else Path(tasks[0].source)
    network, choice = resolve_model(model, source, scale=scale, size=size, skips=skips, device=device)
    if choice is not None and len(tasks) > 1:
        _LOG.warning("the model %s is used for all films (%s, the first one)", choice.name, choice.reason)
    return network
