"""Work that goes through an object store: a local S3 server, and folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from skipvsr.cluster.catalogue import films
from skipvsr.cluster.film_plan import FilmTask
from skipvsr.cluster.shard import Shard, upscale_shard
from skipvsr.cluster.store import Store
from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.upscale.job import upscale_video
from skipvsr.video.open import read_clip
from tests.test_cluster_shards import SETTINGS, film

pytest.importorskip("moto")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3 server on this machine, which s3fs is pointed to."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "no_proxy": "127.0.0.1",
    }.items():
        patch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("films")
    yield "s3://films"
    s3fs.S3FileSystem.clear_instance_cache()
    patch.undo()
    server.stop()


def test_shards_share_a_film_through_s3(bucket: str, tmp_path: Path):
    source = film(tmp_path / "in.mp4", scenes=3)
    whole = tmp_path / "whole.mkv"
    upscale_video(source, whole, "bicubic", compute=SETTINGS.compute, stream=SETTINGS.stream, output=SETTINGS.output)
    store = Store(bucket)
    store.put(source, "in.mp4")
    place = f"{bucket}/out.mkv"

    def run(index: int):
        shards = upscale_shard([f"{bucket}/in.mp4"], place, "bicubic", shard=Shard(index, 2), settings=SETTINGS)
        (outcome,) = shards
        return outcome

    assert run(0).missing == 7
    assert not store.exists("out.mkv")
    safe = Store(f"{bucket}/.out.mkv.skipvsr-chunks").names()
    assert [name for name in safe if name.endswith(".done")] == ["000000000.done", "000000014.done"]
    last = run(1)
    assert last.report is not None
    assert (last.report.frames, last.report.resumed_at) == (21, 14)
    store.get("out.mkv", tmp_path / "out.mkv")
    assert np.array_equal(read_clip(tmp_path / "out.mkv"), read_clip(whole))
    assert store.tree() == ["in.mp4", "out.mkv"]


def test_a_folder_of_a_bucket_is_a_catalogue(bucket: str, tmp_path: Path):
    store = Store(f"{bucket}/catalogue")
    for name in ("a.mp4", "deep/b.avi", "notes.txt", ".hidden/c.mp4"):
        store.write(name, b"nothing")
    assert films([f"{bucket}/catalogue/"], f"{bucket}/large/") == [
        FilmTask(f"{bucket}/catalogue/a.mp4", f"{bucket}/large/a.mp4"),
        FilmTask(f"{bucket}/catalogue/deep/b.avi", f"{bucket}/large/deep/b.mkv"),
    ]
    with pytest.raises(InputError, match="holds no videos"):
        films([f"{bucket}/nothing/"], tmp_path)
    with pytest.raises(ConfigError, match="some inputs are URLs"):
        films([f"{bucket}/catalogue/a.mp4", tmp_path], tmp_path)
    (outcome,) = upscale_shard(
        [f"{bucket}/missing.mp4"], f"{bucket}/x.mkv", "bicubic", shard=Shard(0, 1), settings=SETTINGS
    )
    assert isinstance(outcome.error, InputError)
    assert "s3://films/missing.mp4 does not exist" in str(outcome.error)


def test_a_store_that_cannot_be_reached_is_said(bucket: str):
    with pytest.raises(OutputError, match="no such folder or bucket"):
        Store("s3://nobody-has-this-bucket/folder").write("a", b"")
    with pytest.raises(ConfigError, match="cannot be reached"):
        Store("nosuchprotocol://folder")


def test_files_of_a_folder_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path)
    store.write("a", b"before")

    def full(file) -> None:
        raise OSError(28, "No space left on device")

    from skipvsr.cluster import store as module

    monkeypatch.setattr(module, "sync", full)
    with pytest.raises(OutputError, match="No space left"):
        store.write("a", b"after")
    assert store.read("a") == b"before"
    assert store.names() == ["a"]
