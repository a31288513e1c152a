"""Films on several Ray nodes: what is lost costs its own chunks alone, and the frames are those of one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from skipvsr.cluster.outcome import ClusterProgress, FilmOutcome
from skipvsr.upscale.job import upscale_video
from skipvsr.video.open import read_clip
from skipvsr.video.write import EncodeOptions
from tests.media import packets
from tests.test_cluster_shards import SETTINGS, film, images, work_folder

pytest.importorskip("ray")

_Result = TypeVar("_Result")
_STORE_BYTES = 100 << 20
SCENES = 8


class Driver:
    """A process that has started a Ray cluster and works with it.

    It is not the process of the tests: there Ray would stay in it to the end, with its threads, and with a handler of crashes
    that takes the place of Python's.
    """

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor
        self.address = self.call(_start)

    def call(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """What a function of this module returns there."""
        return self._executor.submit(function, *arguments).result()


_clusters: list[Any] = []


def _start() -> str:
    """A head without cores and two nodes of one core each, all on this machine; returns the address."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 0, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    _clusters.append(cluster)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
    ray.init(address=cluster.address, log_to_driver=False)
    return str(cluster.address)


def _stop() -> None:
    import ray

    ray.shutdown()
    _clusters.pop().shutdown()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        driver = Driver(executor)
        yield driver
        driver.call(_stop)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A film of eight scenes, and what one machine makes of it."""
    folder = tmp_path_factory.mktemp("film")
    source, whole = film(folder / "in.mp4", SCENES), folder / "whole.mkv"
    # The workers have a core each, and the last bit of a number depends on how many threads share the work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    upscale_video(source, whole, "compact", compute=SETTINGS.compute, stream=SETTINGS.stream, output=SETTINGS.output)
    torch.set_num_threads(threads)
    return source, whole


def run(
    source: Path, place: Path, on_progress: Callable[[ClusterProgress], object] | None, model: str = "compact"
) -> FilmOutcome:
    from skipvsr.cluster.on_ray import upscale_on_ray

    (outcome,) = upscale_on_ray([source], place, model, settings=SETTINGS, on_progress=on_progress)
    return outcome


def check(outcome: FilmOutcome, example: tuple[Path, Path]) -> None:
    """The film is that of one machine."""
    whole = example[1]
    place = Path(outcome.task.destination)
    assert outcome.error is None
    assert outcome.report is not None
    assert (outcome.report.frames, outcome.report.scenes) == (7 * SCENES, SCENES)
    assert np.array_equal(read_clip(place), read_clip(whole))
    assert packets(place, "audio") == packets(whole, "audio")
    assert not work_folder(place).exists()


def test_folders_of_killed_jobs_are_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from skipvsr.cluster import slots

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    monkeypatch.setattr(slots, "_SHORT", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, living = tmp_path / f"skipvsr-ray-{dead.pid}-abc", tmp_path / f"skipvsr-ray-{os.getppid()}-abc"
    old.mkdir()
    living.mkdir()
    with slots._own_folder() as own:
        assert sorted(tmp_path.iterdir()) == sorted([living, Path(own)])
    assert list(tmp_path.iterdir()) == [living]


@pytest.mark.slow
def test_a_ray_of_this_machine_alone_leaves_nothing(tmp_path: Path):
    """As a user starts it: shows how it goes, makes the file, and is gone."""
    source, place = film(tmp_path / "in.mp4", 2), tmp_path / "out.mkv"
    words = ["upscale", str(source), str(place), "--model", "bicubic", "--ray", "--codec", "ffv1", "--json"]
    process = subprocess.Popen([sys.executable, "-m", "skipvsr", *words], stdout=subprocess.PIPE, text=True)
    events = [json.loads(line) for line in process.communicate()[0].splitlines()]
    assert process.returncode == 0
    assert {event["event"] for event in events} == {"progress", "report"}
    assert events[-1]["frames"] == 14
    upscale_video(source, tmp_path / "whole.mkv", "bicubic", encoding=EncodeOptions(codec="ffv1"))
    assert np.array_equal(read_clip(place), read_clip(tmp_path / "whole.mkv"))
    assert not list(Path("/tmp").glob(f"skipvsr-ray-{process.pid}-*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mkv", "whole.mkv"]


def pid_of(worker: str) -> int:
    return int(worker.rpartition(":")[2])


@pytest.mark.slow
def test_a_killed_worker_costs_its_chunk_alone(driver: Driver, tmp_path: Path, example: tuple[Path, Path]):
    outcome, killed = driver.call(run_killing, example[0], tmp_path / "out.mkv")
    check(outcome, example)
    assert killed


def run_killing(source: Path, place: Path) -> tuple[FilmOutcome, list[int]]:
    killed: list[int] = []

    def kill(progress: ClusterProgress) -> None:
        if not killed and progress.workers and progress.frames_done:
            killed.append(pid_of(next(iter(progress.workers))))
            os.kill(killed[0], signal.SIGKILL)

    return run(source, place, kill), killed


@pytest.mark.slow
def test_a_stopped_worker_does_not_hold_up_the_film(driver: Driver, tmp_path: Path, example: tuple[Path, Path]):
    """A worker that has become infinitely slow: another one does its chunk too."""
    outcome, stopped = driver.call(run_stopping, example[0], tmp_path / "out.mkv")
    check(outcome, example)
    assert stopped


def run_stopping(source: Path, place: Path) -> tuple[FilmOutcome, list[int]]:
    stopped: list[int] = []

    def stop(progress: ClusterProgress) -> None:
        if not stopped and progress.workers:
            stopped.append(pid_of(next(iter(progress.workers))))
            os.kill(stopped[0], signal.SIGSTOP)

    try:
        return run(source, place, stop), stopped
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_driver_goes_on_from_what_is_safe(driver: Driver, tmp_path: Path, example: tuple[Path, Path]):
    source, place = example[0], tmp_path / "out.mkv"
    words = [
        "upscale", str(source), str(place), "--model", "compact", "--ray", driver.address, "--exact", "--window", "4",
        "--lookahead", "2", "--segment-length", "6", "--codec", "ffv1", "--pixel-format", "yuv444p", "--device",
        "cpu", "--json",
    ]  # fmt: skip
    program = (
        "import os, signal, sys\n"
        "from skipvsr.cluster import open_films\n"
        "from skipvsr.cli.main import main\n"
        "real = open_films.OpenFilms._published\n"
        "def published(self, work, result):\n"
        "    real(self, work, result)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_films.OpenFilms._published = published\n"
        "main(sys.argv[1:])\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    safe = 7 * len(list(work_folder(place).glob("*.done")))
    assert 0 < safe < 7 * SCENES
    again = subprocess.run([sys.executable, "-m", "skipvsr", *words], capture_output=True, text=True, check=True)
    report = json.loads(again.stdout.splitlines()[-1])
    assert (report["event"], report["frames"], report["resumed_at"]) == ("report", 7 * SCENES, safe)
    assert np.array_equal(read_clip(place), read_clip(example[1]))


@pytest.mark.slow
def test_a_folder_of_images(driver: Driver, tmp_path: Path):
    source = images(tmp_path / "in")
    outcome = driver.call(run, source, tmp_path / "out", None, "bicubic")
    assert outcome.report is not None
    assert outcome.report.frames == 17
    upscale_video(source, tmp_path / "whole", "bicubic", stream=SETTINGS.stream, output=SETTINGS.output)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "out").iterdir())) == 17


@pytest.mark.slow
def test_a_lost_node_costs_its_chunks_alone(driver: Driver, tmp_path: Path, example: tuple[Path, Path]):
    """The last test here: one node is gone afterwards."""
    outcome, lost = driver.call(run_losing, example[0], tmp_path / "out.mkv")
    check(outcome, example)
    assert lost == 1


def run_losing(source: Path, place: Path) -> tuple[FilmOutcome, int]:
    (cluster,) = _clusters
    lost: list[Any] = []

    def lose(progress: ClusterProgress) -> None:
        if not lost and progress.workers and progress.frames_done:
            lost.append(cluster.worker_nodes.copy().pop())
            cluster.remove_node(lost[0], allow_graceful=False)

    return run(source, place, lose), len(lost)
