"""The simulation of docs/scale.md: it counts what it should, and cuts films as the package does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skipvsr.cluster.chunks import ChunkOptions, Role, cut_into_chunks
from tests.test_cluster_chunks import film
from tests.test_docs import load_script

simulation = load_script("simulate_scale")
Job = simulation.Job
FREE = simulation.Times(
    frames_per_second=10, decode_frames_per_second=1e12, frame_bytes=0, packet_bytes=0, network_bytes_per_second=1,
    start_seconds=0, chunk_seconds=0, join_seconds=0, join_frames_per_second=1e12, chunk_frames=10, warmup=5, readers=1,
)  # fmt: skip


def test_chunks_are_those_of_the_package():
    for scenes in ([5, 5, 5, 25], [4, 30, 4, 4, 12], [9]):
        expected = []
        for chunk in cut_into_chunks(film(scenes), ChunkOptions(8)):
            items = list(chunk)
            expected.append((chunk.end - chunk.first, items[0].role is Role.WARMUP))
        assert simulation.cut(scenes, 8) == expected


def test_times_add_up():
    job = Job("", [[(10, False), (10, True), (10, False)]])
    assert simulation.simulate(job, 1, FREE) == pytest.approx(3.5)  # 30 frames and 5 of warm-up, ten a second
    assert simulation.simulate(job, 3, FREE) == pytest.approx(1.5)
    slow = replace(FREE, decode_frames_per_second=5, start_seconds=1, join_seconds=2)
    assert simulation.simulate(job, 3, slow) == pytest.approx(6 + 1 + 2)  # decoding, the last chunk, joining


def test_the_limit_is_what_would_help_most():
    job = Job("", [[(10, False)] * 40])
    assert simulation.limit(job, 2, FREE, simulation.simulate(job, 2, FREE)) == "workers"
    slow = replace(FREE, decode_frames_per_second=20)
    assert simulation.limit(job, 8, slow, simulation.simulate(job, 8, slow)) == "decoding"
