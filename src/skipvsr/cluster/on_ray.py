"""`upscale_on_ray`: films on all machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from skipvsr.cluster.catalogue import films
from skipvsr.cluster.film_plan import FilmSettings
from skipvsr.cluster.network import network_for, network_id, one_precision
from skipvsr.cluster.outcome import FilmOutcome, OnProgress
from skipvsr.errors import ConfigError
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.choose import AUTO_MODEL

WORKER_CPUS = 8


def upscale_on_ray(
    sources: Sequence[str | Path],
    destination: str | Path,
    model: AnyModel | str | Path = AUTO_MODEL,
    *,
    scale: int | None = None,
    settings: FilmSettings,
    address: str = "local",
    worker_cpus: int = WORKER_CPUS,
    on_progress: OnProgress | None = None,
) -> Iterator[FilmOutcome]:
    """Upscale films on a Ray cluster, scene by scene; the result is that of one machine, frame by frame, but for the splits
    of long scenes (docs/scale.md).

    What is finished is kept in a hidden folder beside each output: after the driver was lost, the same call goes on from there.
    A lost machine costs the chunks that it had. Films that fail do not stop the others.

    Args:
        sources: videos, folders of images, and folders with those below them; paths of this machine, or URLs (of videos) that
            every machine can reach.
        destination: a video for one video, otherwise a folder.
        model, scale: as for `upscale_video`; one model for all films, sent to the workers.
        settings: what is done.
        address: of a running cluster, or "auto" for the one that this machine belongs to; "local" starts one here.
        worker_cpus: cores of a worker on a machine without a GPU, at most; each GPU has a worker of its own.
        on_progress: called now and then.

    Yields:
        What became of each film, as it is done.

    Raises:
        ConfigError: Ray is not installed or not there, or a setting is impossible.
        InputError, ModelError: before the first film.
        ResourceError: no worker can be started.
    """
    try:
        from skipvsr.cluster.driver import Driver
        from skipvsr.cluster.slots import Slots, connected
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ConfigError("Ray is not installed; pip install 'skipvsr[ray]'") from error
    import ray

    if worker_cpus < 1:
        raise ConfigError(f"a worker has {worker_cpus} cores; it must have at least 1")
    tasks = films(sources, destination)
    network = network_for(tasks, model, scale=scale, size=settings.output.size, device="cpu")
    settings = one_precision(settings, network)
    with connected(address):
        slots = Slots(ray.put(network.cpu()), settings, worker_cpus)
        try:
            yield from Driver(tasks, settings, network_id(network, settings.compute), slots).run(on_progress)
        except KeyboardInterrupt as error:
            error.add_note("what is finished is kept: the same command goes on from there")
            raise
        finally:
            for slot in slots.all.values():
                ray.kill(slot.actor)
