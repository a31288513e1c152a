"""Shards: several processes and one folder between them make what one machine makes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skipvsr.cluster.film_plan import FilmSettings
from skipvsr.cluster.network import one_precision
from skipvsr.cluster.outcome import FilmOutcome
from skipvsr.cluster.shard import Shard, upscale_shard
from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale.job import upscale_video
from skipvsr.upscale.options import OutputOptions
from skipvsr.video.images import write_image
from skipvsr.video.open import read_clip
from skipvsr.video.write import EncodeOptions
from tests.media import make_video, packets, picture, times

LOSSLESS = EncodeOptions(codec="ffv1", pixel_format="yuv444p")
SETTINGS = FilmSettings(
    # Without a precision one machine settles it for itself, and many take that of the model.
    ComputeOptions(device="cpu", precision="fp32"),
    StreamOptions(window=4, lookahead=2),
    OutputOptions(encoding=LOSSLESS, segment_length=6),
    exact=True,
)


def film(path: Path, scenes: int = 4) -> Path:
    """Scenes of 7 frames each, with sound."""
    pictures = [
        (picture(3 * index + 40 * scene) // 4 + 180 * (scene % 2)).astype(np.uint8)
        for scene in range(scenes)
        for index in range(7)
    ]
    return make_video(path, pictures, audio_codec="aac", audio_seconds=0.28 * scenes)


def work_folder(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.skipvsr-chunks")


def run(
    source: Path, place: Path, model: SkipVSR | str, index: int, count: int, settings=SETTINGS
) -> list[FilmOutcome]:
    return list(upscale_shard([source], place, model, shard=Shard(index, count), settings=settings))


def test_shards_make_what_one_machine_makes(tmp_path: Path, tiny: SkipVSR):
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    whole = upscale_video(
        source, tmp_path / "whole.mkv", tiny, compute=SETTINGS.compute, stream=SETTINGS.stream, output=SETTINGS.output
    )
    (first,) = run(source, place, tiny, 0, 3)
    assert (first.report, first.missing) == (None, 14)  # chunks 0 and 3 of four
    assert not place.exists()
    (second,) = run(source, place, tiny, 1, 3)
    assert second.missing == 7
    # Another shard of another count goes on with what the others have made.
    (last,) = run(source, place, tiny, 0, 1)
    assert last.report is not None
    assert (last.report.frames, last.report.scenes, last.report.resumed_at) == (28, whole.scenes, 21)
    assert np.array_equal(read_clip(place), read_clip(tmp_path / "whole.mkv"))
    assert times(place) == times(source)
    assert packets(place, "audio") == packets(tmp_path / "whole.mkv", "audio")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mkv", "whole.mkv"]
    # A shard that comes late finds nothing to do.
    (late,) = run(source, place, tiny, 2, 3)
    assert (late.report, late.error, late.missing) == (None, None, 0)


def test_a_threshold_gives_the_frames_of_one_machine(tmp_path: Path):
    from tests.test_resume import routed_network

    network = routed_network("gain")
    compute = ComputeOptions(threshold=1.5, device="cpu")
    settings = replace(SETTINGS, compute=compute)
    source = film(tmp_path / "in.mp4", scenes=3)
    whole = upscale_video(
        source, tmp_path / "whole.mkv", network, compute=compute, stream=settings.stream, output=settings.output
    )
    (outcome,) = run(source, tmp_path / "out.mkv", network, 0, 1, settings)
    assert outcome.report is not None
    assert 0 < whole.active_ratio < 1
    assert outcome.report.active_ratio == pytest.approx(whole.active_ratio)
    assert np.array_equal(read_clip(tmp_path / "out.mkv"), read_clip(tmp_path / "whole.mkv"))


def test_splits_within_a_scene_change_little(tmp_path: Path, tiny: SkipVSR):
    source = make_video(tmp_path / "in.mp4", 30)
    settings = replace(SETTINGS, exact=False, warmup=4)
    exact, split = tmp_path / "exact.mkv", tmp_path / "split.mkv"
    run(source, exact, tiny, 0, 1)
    (outcome,) = run(source, split, tiny, 0, 1, settings)
    assert outcome.report is not None
    assert (outcome.report.frames, outcome.report.scenes) == (30, 1)
    different = np.abs(read_clip(split).astype(int) - read_clip(exact).astype(int)).max(axis=(1, 2, 3))
    assert not different[:4].any()  # up to the first split all is the same
    assert different.any()  # and it was split indeed


def test_work_of_other_settings_is_not_mixed_in(tmp_path: Path, tiny: SkipVSR):
    source, place = film(tmp_path / "in.mp4", scenes=2), tmp_path / "out.mkv"
    run(source, place, tiny, 0, 2)
    other = replace(SETTINGS, stream=StreamOptions(window=5, lookahead=2))
    (outcome,) = run(source, place, tiny, 1, 2, other)
    assert isinstance(outcome.error, OutputError)
    assert "window was 4 and not 5" in str(outcome.error)
    assert work_folder(place).is_dir()


def test_many_films_are_shared_film_by_film(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        make_video(folder / name, 3)
    (folder / "b.mp4").write_bytes(b"no video")
    outcomes = {}
    for index in range(2):
        done = upscale_shard([folder], tmp_path / "out", "bicubic", shard=Shard(index, 2), settings=SETTINGS)
        outcomes[index] = list(done)
    assert [Path(outcome.task.source).name for outcome in outcomes[0]] == ["a.mp4", "c.mp4"]
    assert all(outcome.report for outcome in outcomes[0])
    (failed,) = outcomes[1]
    assert isinstance(failed.error, InputError)
    assert "b.mp4 cannot be read" in str(failed.error)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "c.mp4"]


def test_killed_shards_lose_their_own_chunk_alone(tmp_path: Path):
    """A shard killed in its second chunk; the same command again does what is missing."""
    source, place = film(tmp_path / "in.mp4", scenes=3), tmp_path / "out.mkv"
    program = (
        "import os, signal, sys\n"
        "from skipvsr.cluster.shard import Shard, upscale_shard\n"
        "from tests.test_cluster_shards import SETTINGS\n"
        "def kill(progress):\n"
        "    if progress.frames_done >= 10: os.kill(os.getpid(), signal.SIGKILL)\n"
        "list(upscale_shard([sys.argv[1]], sys.argv[2], 'bicubic', shard=Shard(0, 1), settings=SETTINGS, on_progress=kill))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(source), str(place)], check=False)
    assert killed.returncode == -9
    assert not place.exists()
    assert len(list(work_folder(place).glob("*.done"))) == 1
    (outcome,) = run(source, place, "bicubic", 0, 1)
    assert outcome.report is not None
    assert (outcome.report.resumed_at, outcome.report.frames) == (7, 21)


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "0/0", "-1/2"])
def test_shards_that_do_not_exist_are_refused(text: str):
    with pytest.raises(ConfigError, match=r"shard"):
        Shard.parse(text)


def test_settings_that_would_change_the_look_midway_are_refused():
    with pytest.raises(ConfigError, match="speed of each machine"):
        replace(SETTINGS, compute=ComputeOptions(target_fps=5))
    with pytest.raises(ConfigError, match="threshold with exact"):
        replace(SETTINGS, compute=ComputeOptions(budget=0.5))
    with pytest.raises(ConfigError, match="mixed precision"):
        replace(SETTINGS, mixed_precision=True)


def test_the_precision_is_settled_once_for_all(tmp_path: Path, tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch):
    """Also where "auto" says something else the next time: the work that is there has its precision."""
    auto = replace(SETTINGS, compute=ComputeOptions(device="cpu", precision="auto"))
    with pytest.raises(ConfigError, match="own machine; give one"):
        run(tmp_path / "in.mp4", tmp_path / "out.mkv", tiny, 0, 2, auto)
    monkeypatch.setattr("skipvsr.inference.precision.fastest_precision", lambda model: "bf16")
    assert one_precision(auto, tiny).compute.precision == "bf16"
    assert one_precision(SETTINGS, tiny) == SETTINGS
    source = film(tmp_path / "in.mp4", scenes=1)
    (outcome,) = run(source, tmp_path / "auto.mkv", tiny, 0, 1, auto)
    fixed = replace(auto, compute=replace(auto.compute, precision="bf16"))
    run(source, tmp_path / "bf16.mkv", tiny, 0, 1, fixed)
    assert outcome.report is not None
    assert outcome.report.precision == "bf16"
    assert np.array_equal(read_clip(tmp_path / "auto.mkv"), read_clip(tmp_path / "bf16.mkv"))


def images(folder: Path, count: int = 17) -> Path:
    """Three kinds of files, with opacity in some."""
    folder.mkdir()
    for index in range(count):
        pixels = (picture(3 * index) // 2 + 120 * (index >= 9)).astype(np.uint8)
        if index % 3 == 0:
            write_image(folder / f"{index:03}.tif", pixels.astype(np.uint16) * 257)
        else:
            alpha = np.where(pixels[..., 0] > 100, 255, 40).astype(np.uint8) if index % 3 == 1 else None
            write_image(folder / f"{index:03}.{'jpg' if alpha is None else 'png'}", pixels, alpha)
    return folder


def test_a_folder_of_images_is_shared_too(tmp_path: Path, tiny: SkipVSR):
    source, place = images(tmp_path / "in"), tmp_path / "out"
    upscale_video(
        source, tmp_path / "whole", tiny, compute=SETTINGS.compute, stream=SETTINGS.stream, output=SETTINGS.output
    )
    (first,) = run(source, place, tiny, 0, 2)
    assert first.missing == 8
    assert not place.exists()
    (last,) = run(source, place, tiny, 1, 2)
    assert last.report is not None
    assert (last.report.frames, last.report.scenes, last.report.resumed_at) == (17, 2, 9)
    names = sorted(path.name for path in place.iterdir())
    assert names == sorted(path.name for path in source.iterdir())
    for name in names:
        assert (place / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]
    (late,) = run(source, place, tiny, 0, 2)
    assert (late.report, late.error, late.missing) == (None, None, 0)


def test_a_folder_of_images_in_a_shared_folder(tmp_path: Path):
    source = images(tmp_path / "in", 3)
    (outcome,) = upscale_shard(
        [source.as_uri()], (tmp_path / "out").as_uri(), "bicubic", shard=Shard(0, 1), settings=SETTINGS
    )
    assert outcome.report is not None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000.tif", "001.png", "002.jpg"]
    stored = upscale_shard([source], "memory://films/out", "bicubic", shard=Shard(0, 1), settings=SETTINGS)
    with pytest.raises(ConfigError, match="images cannot be written to memory://films/out"):
        list(stored)


def test_a_tree_of_folders_and_videos(tmp_path: Path):
    (tmp_path / "in").mkdir()
    images(tmp_path / "in" / "stills", 3)
    make_video(tmp_path / "in" / "a.mp4", 3)
    outcomes = run(tmp_path / "in", tmp_path / "out", "bicubic", 0, 1)
    assert [outcome.report is not None for outcome in outcomes] == [True, True]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "stills"]
    assert len(list((tmp_path / "out" / "stills").iterdir())) == 3


def test_what_a_folder_of_images_cannot_have_is_said(tmp_path: Path):
    source = images(tmp_path / "in", 3)
    (outcome,) = run(source, tmp_path / "out.mp4", "bicubic", 0, 1)
    assert "looks like a video, and the input is a folder of images" in str(outcome.error)
    with pytest.raises(ConfigError, match="folder of images, which have no times"):
        run(source, tmp_path / "out", "bicubic", 0, 1, replace(SETTINGS, start=1.0))
    (source / "001.png").rename(source / "009.png")
    (outcome,) = run(source, tmp_path / "out", "bicubic", 0, 1)
    assert isinstance(outcome.error, InputError)
    assert not work_folder(tmp_path / "out").exists()
