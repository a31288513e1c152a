"""The network of a job, and its precision: one for all films and machines."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from skipvsr.checkpoints.native import fingerprint
from skipvsr.cluster.film_plan import FilmSettings, FilmTask, NetworkId
from skipvsr.cluster.store import is_url
from skipvsr.inference.lean import running_config
from skipvsr.inference.options import ComputeOptions
from skipvsr.inference.precision import settled
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
    device: str | torch.device,
) -> AnyModel:
    """The network that a job uses; arguments and errors as for `resolve_model`.

    "auto" chooses once, by the first film; of one that is a URL nothing is known, as of a pipe.
    """
    source = PIPE if is_url(tasks[0].source) else Path(tasks[0].source)
    network, choice = resolve_model(model, source, scale=scale, size=size, device=device)
    if choice is not None and len(tasks) > 1:
        _LOG.warning("the model %s is used for all films (%s, the first one)", choice.name, choice.reason)
    return network


def one_precision(settings: FilmSettings, network: AnyModel) -> FilmSettings:
    """The settings with one precision for all who work on a job: the only place where "auto" is settled for many machines.

    Nothing said means that of the model (fp32), and "auto" what this process's machine is fastest with, where the network is.
    Machines never settle it for themselves, because frames must not change their look midway; `mixed_precision` lets them.

    Args:
        settings: as they were asked for.
        network: on the device of this process that counts.
    """
    return replace(settings, compute=settled(settings.compute, network))


def network_id(model: AnyModel, compute: ComputeOptions) -> NetworkId:
    """Configuration and fingerprint of a network, and what of it the options run."""
    return NetworkId(model.config, fingerprint(model), running_config(model, compute))
