"""The workers of a Ray cluster: one for each GPU, or for each few cores, wherever there is a machine."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from skipvsr.cluster.film_plan import FilmSettings
from skipvsr.cluster.workers import ChunkWorker
from skipvsr.errors import ConfigError, ResourceError
from skipvsr.version import installed_version

_LOG = logging.getLogger("skipvsr")
LOCAL = "local"
# Of the folder of a Ray of our own: how its name begins, and the longest path of the folder that it lies in.
_FOLDER, _SHORT = "skipvsr-ray-", 20
# A worker that is lost is started again so many times.
_STARTS = 5
_LOOK_SECONDS = 2.0


@dataclass
class Slot:
    """A worker of the cluster, its present work and its measured speed.

    Args:
        key: of the machine and the worker on it.
        actor: Ray's handle.
        ready: whether it has started.
        name, pid: of its process.
        work: what it does now; None: nothing.
        since: when it began that (monotonic seconds).
        frames_now: frames done of that.
        frames, seconds: of all chunks that it has finished.
    """

    key: tuple[str, int]
    actor: Any
    ready: bool = False
    name: str = ""
    pid: int = 0
    work: Any = None
    since: float = 0.0
    frames_now: int = 0
    frames: int = 0
    seconds: float = 0.0

    @property
    def seconds_per_frame(self) -> float | None:
        """Measured; None: it has not finished anything."""
        return self.seconds / self.frames if self.frames else None


class Slots:
    """All workers; looks for new machines now and then.

    Args:
        model: the network, in the object store.
        settings: what is done.
        worker_cpus: cores of a worker on a machine without a GPU, at most.
    """

    def __init__(self, model: Any, settings: FilmSettings, worker_cpus: int) -> None:
        self._model, self._settings, self._worker_cpus = model, settings, worker_cpus
        self._starts: Counter[tuple[str, int]] = Counter()
        self._looked = float("-inf")
        self._last_error = ""
        self.all: dict[tuple[str, int], Slot] = {}

    def look(self) -> list[Slot]:
        """Start workers on machines that have none; those, which are not ready yet."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        started = []
        nodes = [node for node in ray.nodes() if node["Alive"]]
        for node in nodes:
            for key, cpus, gpus in _places(node, self._worker_cpus):
                if key not in self.all and self._starts[key] < _STARTS:
                    self._starts[key] += 1
                    self.all[key] = Slot(key, self._start(key[0], cpus, gpus))
                    started.append(self.all[key])
        if not self.all:
            reason = self._last_error or "no machine has a CPU or GPU for one"
            raise ResourceError(f"no worker could be started: {reason}")
        return started

    def introduce(self, slot: Slot, hello: tuple[str, int, str]) -> bool:
        """A worker has started; whether it can be used."""
        slot.name, slot.pid, its_version = hello
        if its_version != installed_version():
            self._starts[slot.key] = _STARTS
            self.lose(slot, f"{slot.name} has skipvsr {its_version}, and this is {installed_version()}")
            return False
        slot.ready = True
        return True

    def lose(self, slot: Slot, reason: str) -> None:
        """A worker is gone, or no good."""
        self._last_error = " ".join(reason.split())[:300]
        _LOG.warning("a worker was lost (%s): %s", slot.name or "before it had started", self._last_error)
        self.all.pop(slot.key, None)
        ray.kill(slot.actor)

    def idle(self) -> list[Slot]:
        """Workers that wait, the fastest first."""
        waiting = [slot for slot in self.all.values() if slot.ready and slot.work is None]
        return sorted(waiting, key=lambda slot: slot.seconds_per_frame or 0.0)

    def busy(self) -> list[Slot]:
        """Workers that work."""
        return [slot for slot in self.all.values() if slot.work is not None]

    def seconds_per_frame(self) -> float | None:
        """Of all workers together; None: nothing is finished yet."""
        frames = sum(slot.frames for slot in self.all.values())
        return sum(slot.seconds for slot in self.all.values()) / frames if frames else None

    def _start(self, node: str, cpus: int, gpus: int) -> Any:
        options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }
        # How far a worker is can be asked while it works.
        worker = ray.remote(concurrency_groups={"status": 1})(ChunkWorker)  # pyright: ignore[reportCallIssue] - the stubs forget it
        return worker.options(**options).remote(self._model, self._settings, cpus)


def _places(node: dict[str, Any], worker_cpus: int) -> Iterator[tuple[tuple[str, int], int, int]]:
    """Of a machine: keys, cores and GPUs of its workers."""
    resources = node["Resources"]
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    count = gpus or -(-cpus // worker_cpus)
    for index in range(count):
        each = max(1, cpus // count) if gpus else cpus // count
        if each:
            yield (node["NodeID"], index), each, 1 if gpus else 0


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a Ray cluster; `local` starts one on this machine. One that is there already is used and left.

    Raises:
        ConfigError: an address where there is none.
    """
    if ray.is_initialized():
        yield
        return
    if address.startswith("ray://"):
        raise ConfigError(f"{address} is Ray's client port; run this on a machine of the cluster, with --ray auto")
    # Nothing is reported to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        try:
            if address == LOCAL:
                with _temporary_files(stack.enter_context(_own_folder())) as own:
                    ray.init(address="local", include_dashboard=False, _temp_dir=own, **quiet)
            else:
                ray.init(address=address, **quiet)
        except Exception as error:  # Ray raises this very class where a node does not start in time
            raise ConfigError(
                f"no Ray cluster answers at {address!r} ({' '.join(str(error).split())[:160]}); give the address of one, or "
                "--ray alone for this machine"
            ) from error
        stack.callback(ray.shutdown)
        yield


@contextmanager
def _own_folder() -> Iterator[str]:
    """A folder for all that a Ray of our own writes: it is of no use afterwards. Those of jobs that were killed go too.

    Sockets lie in it, whose paths have to be short.
    """
    usual = tempfile.gettempdir()
    place = Path("/tmp" if os.name == "posix" and len(usual) > _SHORT else usual)
    for old in place.glob(f"{_FOLDER}*"):
        pid = old.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-", dir=place, ignore_cleanup_errors=True) as own:
        yield own


@contextmanager
def _temporary_files(folder: str) -> Iterator[str]:
    """Processes that are started here have their temporary files in the folder."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    try:
        yield folder
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
