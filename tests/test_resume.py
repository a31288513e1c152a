"""Jobs that are stopped and go on: the result is that of a job that was never stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skipvsr.errors import OutputError, ResourceError
from skipvsr.models.config import VSRConfig
from skipvsr.models.router import Calibration
from skipvsr.models.vsr import SkipVSR
from skipvsr.terms import Direction
from skipvsr.upscale.batch import upscale_many
from skipvsr.upscale.job import upscale_video
from skipvsr.upscale.progress import Progress
from skipvsr.video.images import write_image
from skipvsr.video.open import open_reader, read_clip
from skipvsr.video.segments import decoding_times
from skipvsr.video.write import EncodeOptions
from tests import kills
from tests.conftest import make_network
from tests.media import make_video, packets, picture, times

LOSSLESS = EncodeOptions(codec="ffv1", pixel_format="yuv444p")


class StoppedError(Exception):
    """Stands for whatever ends a job."""


def stop_after(frames: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.frames_done >= frames:
            raise StoppedError

    return stop


def unfinished(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.skipvsr")


def routed_network(router: str) -> SkipVSR:
    network = make_network(VSRConfig(channels=6, blocks=3, flow="light", reconstruction="light", router=router))  # type: ignore[arg-type]
    thresholds = (0.6, 0.5, 0.45) if router == "paper" else (2.9, 1.5, 0.7)
    network.calibration = Calibration(tile_px=12, budgets=(0.1, 0.5, 0.95), thresholds=thresholds)
    return network


def film(path: Path) -> Path:
    """Two scenes of 9 and 12 frames, at changing times, with sound."""
    pictures = [picture(index) // 4 for index in range(9)] + [255 - picture(3 * index) // 4 for index in range(12)]
    return make_video(
        path,
        pictures,
        times=[80 * index + 7 * (index % 3) for index in range(21)],
        time_base=Fraction(1, 1000),
        audio_codec="aac",
        audio_seconds=1.5,
    )


@pytest.mark.parametrize(("ending", "frames"), [("mp4", 1), ("mp4", 8), ("mp4", 20), ("mkv", 13)])
def test_a_job_goes_on_where_it_was_stopped(tmp_path: Path, tiny: SkipVSR, ending: str, frames: int):
    source = film(tmp_path / "in.mp4")
    settings: dict[str, Any] = {"window": 2, "lookahead": 3, "segment_length": 4}
    upscale_video(source, tmp_path / f"whole.{ending}", tiny, **settings)
    place = tmp_path / f"out.{ending}"
    with pytest.raises(StoppedError) as stopped:
        upscale_video(source, place, tiny, **settings, on_progress=stop_after(frames))
    assert not place.exists()
    kept = 0
    if unfinished(place).exists():
        kept = int(stopped.value.__notes__[0].split()[2])
        assert 0 < kept <= frames
    report = upscale_video(source, place, tiny, **settings)
    assert (report.resumed_at, report.frames, report.scenes) == (kept, 21, 2)
    assert kept or frames < 5
    assert not unfinished(place).exists()
    assert times(place) == times(source)
    assert np.array_equal(read_clip(place), read_clip(tmp_path / f"whole.{ending}"))
    assert packets(place, "audio") == packets(tmp_path / f"whole.{ending}", "audio")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.mp4", f"out.{ending}", f"whole.{ending}"])


@pytest.mark.parametrize(
    ("router", "compute"), [("gain", {"budget": 0.5}), ("paper", {"budget": 0.5}), ("paper", {"threshold": 0.5})]
)
def test_what_routing_remembers_is_kept(tmp_path: Path, router: str, compute: dict[str, float]):
    network = routed_network(router)
    source = film(tmp_path / "in.mp4")
    settings: dict[str, Any] = {"window": 2, "lookahead": 1, "segment_length": 3, "encoding": LOSSLESS, **compute}
    whole = upscale_video(source, tmp_path / "whole.mkv", network, **settings)
    with pytest.raises(StoppedError):
        upscale_video(source, tmp_path / "out.mkv", network, **settings, on_progress=stop_after(15))
    report = upscale_video(source, tmp_path / "out.mkv", network, **settings)
    assert report.resumed_at >= 9
    assert report.active_ratio == pytest.approx(whole.active_ratio)
    assert 0 < report.active_ratio < 1
    assert np.array_equal(read_clip(tmp_path / "out.mkv"), read_clip(tmp_path / "whole.mkv"))


def test_a_folder_of_images_goes_on(tmp_path: Path, tiny: SkipVSR):
    (tmp_path / "in").mkdir()
    for index in range(9):
        write_image(tmp_path / "in" / f"{index:03d}.png", picture(index))
    settings: dict[str, Any] = {"window": 2, "lookahead": 1, "segment_length": 2}
    upscale_video(tmp_path / "in", tmp_path / "whole", tiny, **settings)
    with pytest.raises(StoppedError):
        upscale_video(tmp_path / "in", tmp_path / "out", tiny, **settings, on_progress=stop_after(7))
    done = sorted(unfinished(tmp_path / "out").glob("images/*"))
    before = {path.name: path.stat().st_mtime_ns for path in done}
    report = upscale_video(tmp_path / "in", tmp_path / "out", tiny, **settings)
    assert report.resumed_at in (4, 6)
    assert np.array_equal(read_clip(tmp_path / "out"), read_clip(tmp_path / "whole"))
    for name in sorted(before)[: report.resumed_at]:
        assert (tmp_path / "out" / name).stat().st_mtime_ns == before[name]


def test_other_settings_do_not_go_on_and_do_not_destroy(tmp_path: Path, tiny: SkipVSR):
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    settings: dict[str, Any] = {"window": 2, "lookahead": 1, "segment_length": 2}
    with pytest.raises(StoppedError):
        upscale_video(source, place, tiny, **settings, on_progress=stop_after(9))
    kept = sorted(path.name for path in unfinished(place).iterdir())
    with pytest.raises(OutputError, match=r"whose lookahead was 1 and not 2; .*--no-resume"):
        upscale_video(source, place, tiny, window=2, lookahead=2, segment_length=2)
    with pytest.raises(OutputError, match="whose model was"):
        upscale_video(source, place, make_network(tiny.config, seed=5), **settings)
    with pytest.raises(OutputError, match="trace and overlay"):
        upscale_video(source, place, tiny, **settings, trace=tmp_path / "trace.npz")
    other = make_video(tmp_path / "other.mp4", 5)
    with pytest.raises(OutputError, match="whose source was"):
        upscale_video(other, place, tiny, **settings)
    assert sorted(path.name for path in unfinished(place).iterdir()) == kept
    # Sound comes last, and may still change.
    assert upscale_video(source, place, tiny, **settings, encoding=EncodeOptions(audio="aac")).resumed_at >= 6


def test_starting_over(tmp_path: Path, tiny: SkipVSR):
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    with pytest.raises(StoppedError):
        upscale_video(source, place, tiny, window=2, segment_length=2, on_progress=stop_after(9))
    report = upscale_video(source, place, tiny, window=3, segment_length=2, resume=False)
    assert (report.resumed_at, report.frames) == (0, 21)
    assert not unfinished(place).exists()


def test_damaged_work_is_done_again(tmp_path: Path):
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    for damage in ("000000.packets", "000000.json", "manifest.json", "state-*"):
        with pytest.raises(StoppedError):
            upscale_video(
                source, place, "bicubic", window=2, segment_length=2, overwrite=True, on_progress=stop_after(9)
            )
        damaged = next(unfinished(place).glob(damage))
        damaged.write_bytes(damaged.read_bytes()[:-3])
        report = upscale_video(source, place, "bicubic", window=2, segment_length=2, overwrite=True)
        assert (report.resumed_at, report.frames) == (0, 21)
        assert times(place) == times(source)


def test_two_jobs_exclude_each_other(tmp_path: Path):
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    refused: list[str] = []

    def second(progress: Progress) -> None:
        if progress.frames_done == 3:
            with pytest.raises(OutputError) as error:
                upscale_video(source, place, "bicubic")
            refused.append(str(error.value))

    assert upscale_video(source, place, "bicubic", window=2, on_progress=second).frames == 21
    assert len(refused) == 1
    assert "another skipvsr is writing" in refused[0]


def test_a_disk_that_fills_up_stops_the_job_early_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
        with pytest.raises(OutputError, match=r"the disk is nearly full: .* at least 1 MiB more"):
            upscale_video(source, place, "bicubic", window=2, segment_length=4)
    assert upscale_video(source, place, "bicubic", window=2, segment_length=4).resumed_at == 4


@dataclass
class SmallMachine:
    """A network whose memory runs out beyond so many backward steps in a row, or on frames of more than so many pixels."""

    network: SkipVSR
    most_steps: int = 1000
    most_pixels: int = 1_000_000
    steps: int = 0

    def propagate(
        self, direction: Direction, frame: torch.Tensor, state: torch.Tensor | None, *rest: Any
    ) -> torch.Tensor:
        if direction == "backward":
            self.steps = 1 if state is None else self.steps + 1
            if self.steps > self.most_steps or frame.shape[-2] * frame.shape[-1] > self.most_pixels:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory")
        return SkipVSR.propagate(self.network, direction, frame, state, *rest)


SHORTER, TILES = (
    "memory ran out; going on with shorter windows",
    "memory ran out; going on with blended tiles of 64 pixels",
)


@pytest.mark.parametrize(
    ("limits", "messages", "most_error"),
    [({"most_steps": 4}, [SHORTER], 0.4), ({"most_pixels": 5000}, [SHORTER, SHORTER, TILES], 1.5)],
)
def test_where_memory_runs_out_less_is_taken(
    tmp_path: Path,
    tiny: SkipVSR,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limits: dict[str, int],
    messages: list[str],
    most_error: float,
):
    """The stream goes on from where it is, with the source open as it was, and no frame is lost."""
    source = make_video(tmp_path / "in.mp4", [picture(index, 96, 80) for index in range(10)], options={"crf": "10"})
    settings: dict[str, Any] = {"window": 4, "lookahead": 2, "segment_length": 2, "encoding": LOSSLESS}
    upscale_video(source, tmp_path / "whole.mkv", tiny, **settings)
    expected = read_clip(tmp_path / "whole.mkv").astype(int)
    opened = []
    monkeypatch.setattr(
        "skipvsr.upscale.request.open_reader", lambda *args, **named: opened.append(1) or open_reader(*args, **named)
    )
    monkeypatch.setattr("skipvsr.inference.memory.TILE_SIDES_PX", (64, 48))
    monkeypatch.setattr(tiny, "propagate", SmallMachine(tiny, **limits).propagate)
    report = upscale_video(source, tmp_path / "small.mkv", tiny, **settings)
    assert report.frames == 10
    assert len(opened) == 1
    assert caplog.messages == messages
    # What lies beyond the lookahead, or beyond a tile, is missed a little.
    assert np.abs(read_clip(tmp_path / "small.mkv").astype(int) - expected).mean() < most_error
    assert times(tmp_path / "small.mkv") == times(source)


def test_where_nothing_saves_memory_the_job_says_so(
    tmp_path: Path, tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    source = make_video(tmp_path / "in.mp4", [picture(index, 96, 80) for index in range(4)])
    monkeypatch.setattr(tiny, "propagate", SmallMachine(tiny, most_pixels=5000).propagate)
    with pytest.raises(ResourceError, match="even with windows of one frame"):
        upscale_video(source, tmp_path / "never.mkv", tiny, trace=tmp_path / "trace.npz")
    assert not (tmp_path / "never.mkv").exists()


def test_decoding_times_rise_and_are_never_late():
    shown = [0, 40, 80, 130, 160, 200, 1000]
    decoded = [0, 160, 80, 40, 130, 1000, 200]  # B-frames within B-frames
    assert decoding_times(decoded) == [-80, -40, 0, 40, 80, 130, 160]
    assert all(dts <= pts for dts, pts in zip(decoding_times(decoded), decoded, strict=True))
    assert decoding_times(shown) == shown


def test_twenty_kills_at_random_moments(tmp_path: Path):
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    upscale_video(source, tmp_path / "whole.mkv", "bicubic", **kills.SETTINGS)
    command = [sys.executable, "-m", "tests.kills", str(source), str(place), "20"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout.splitlines()
    outcomes = [json.loads(line) for line in lines]
    assert [outcome["killed"] for outcome in outcomes] == [True] * 20 + [False]
    # Killed at many places, and on its way nevertheless.
    assert len({outcome["frames"] for outcome in outcomes}) > 3
    assert np.array_equal(read_clip(place), read_clip(tmp_path / "whole.mkv"))
    assert packets(place, "audio") == packets(tmp_path / "whole.mkv", "audio")
    assert not unfinished(place).exists()


def test_a_killed_overlay_or_trace_leaves_nothing_for_good(tmp_path: Path, tiny: SkipVSR):
    """As kill -9 leaves it: what is unfinished is in the hidden folder, and the next job begins anew and empties it."""
    source = make_video(tmp_path / "in.mkv", 6)
    outputs: dict[str, Any] = {
        "destination": tmp_path / "out.mkv",
        "overlay": tmp_path / "overlay.mkv",
        "trace": tmp_path / "trace.npz",
    }
    for path, name in zip(outputs.values(), ("000000.packets", "000000.packets", "trace"), strict=True):
        unfinished(path).mkdir()
        (unfinished(path) / name).write_bytes(b"half of it")
    places: list[list[str]] = []

    def look(progress: object) -> None:
        places.append([path.name for path in tmp_path.iterdir() if path.name.endswith(".part")])

    report = upscale_video(source, model=tiny, **outputs, on_progress=look)
    assert report.frames == 6
    assert places
    assert not any(places)  # nothing is named by the process, which nobody would find again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv", "overlay.mkv", "trace.npz"]


def test_a_job_that_is_killed_when_all_is_done_leaves_nothing_for_good(
    tmp_path: Path, tiny: SkipVSR, monkeypatch: pytest.MonkeyPatch
):
    """The output is in its place, and its folder is not gone yet."""
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out" / "in.mp4"
    settings: dict[str, Any] = {"window": 2, "lookahead": 1, "segment_length": 2}
    place.parent.mkdir()
    outputs: dict[str, Any] = {"overlay": tmp_path / "overlay.mkv", "trace": tmp_path / "trace.npz"}
    with monkeypatch.context() as patch:
        patch.setattr("skipvsr.upscale.checkpoint.shutil.rmtree", lambda *_, **__: None)
        upscale_video(source, place, tiny, **settings, **outputs)
    folders = [unfinished(path) for path in (place, *outputs.values())]
    assert all(folder.exists() for folder in folders)
    with pytest.raises(OutputError, match="exists already"):
        upscale_video(source, place, tiny, **settings, **outputs)
    assert not any(folder.exists() for folder in folders)
    with monkeypatch.context() as patch:
        patch.setattr("skipvsr.upscale.checkpoint.shutil.rmtree", lambda *_, **__: None)
        upscale_video(source, place, tiny, **settings, overwrite=True)
    assert [outcome.report for outcome in upscale_many([source], place.parent, tiny)] == [None]
    assert not unfinished(place).exists()


def test_unfinished_work_beside_an_older_output_is_kept(tmp_path: Path, tiny: SkipVSR):
    source, place = film(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    settings: dict[str, Any] = {"window": 2, "lookahead": 1, "segment_length": 2}
    upscale_video(source, place, tiny, window=3)
    with pytest.raises(StoppedError):
        upscale_video(source, place, tiny, **settings, overwrite=True, on_progress=stop_after(9))
    with pytest.raises(OutputError, match="exists already"):
        upscale_video(source, place, tiny, **settings)
    assert upscale_video(source, place, tiny, **settings, overwrite=True).resumed_at >= 6


def test_names_as_long_as_a_file_system_takes(tmp_path: Path, tiny: SkipVSR):
    """80 characters of Chinese are 240 bytes, of 255: what is unfinished has a name that fits, and one of its own."""
    source = film(tmp_path / "in.mp4")
    place, other = (tmp_path / f"{'超' * 78}{letter}.mkv" for letter in "一二")
    assert len(place.name.encode()) == 241
    settings: dict[str, Any] = {"window": 2, "lookahead": 1, "segment_length": 2}
    for path in (place, other):
        with pytest.raises(StoppedError):
            upscale_video(source, path, tiny, **settings, on_progress=stop_after(9))
    assert len([path for path in tmp_path.iterdir() if path.name.endswith(".skipvsr")]) == 2
    for path in (place, other):
        assert upscale_video(source, path, tiny, **settings).resumed_at >= 6
    upscale_video(source, other, tiny, **settings, overwrite=True, trace=tmp_path / f"{'超' * 78}.npz")
    images = tmp_path / "images"
    images.mkdir()
    write_image(images / "1.png", picture(0))
    upscale_video(images, tmp_path / f"{'超' * 80}", tiny)
    assert len(list(tmp_path.iterdir())) == 6
