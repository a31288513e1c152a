"""`--model auto`: what is read off a file, and which model that leads to."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from skipvsr.checkpoints.load import load_model, packaged_names
from skipvsr.errors import ConfigError, InputError
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale import choose
from skipvsr.upscale.batch import upscale_many
from skipvsr.upscale.choose import ModelChoice, choose_model, is_clean, resolve_model, with_hint
from skipvsr.upscale.job import upscale_video
from skipvsr.upscale.size import OutputSize
from skipvsr.video.compression import Compression, compression_of
from skipvsr.video.errors import PIPE
from skipvsr.video.images import write_image
from tests.media import make_video, picture

ALL = ["base", "compact", "compact-bd", "compact-video", "compact-video-x2", "compact-x2"]


@pytest.fixture
def all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "packaged_names", lambda: ALL)


def film(tmp_path: Path, name: str, crf: int) -> Path:
    random = np.random.default_rng(0)
    # Grain, as a camera leaves it: a picture without any needs hardly a bit.
    frames = [
        np.clip(picture(index, 160, 96) + random.normal(0, 12, (96, 160, 1)), 0, 255).astype(np.uint8)
        for index in range(6)
    ]
    return make_video(tmp_path / name, frames, codec="libx264", options={"crf": str(crf)})


def test_bits_a_pixel_are_those_of_the_frames(tmp_path: Path):
    source = film(tmp_path, "in.mp4", 23)
    seen = compression_of(source)
    assert (seen.codec, seen.width, seen.height) == ("h264", 160, 96)
    # Beside its pictures a file has up to 2 kB of tables.
    assert seen.bits_per_pixel is not None
    picture_bytes = seen.bits_per_pixel * 6 * 160 * 96 / 8
    assert picture_bytes <= source.stat().st_size <= picture_bytes + 2048
    worse = compression_of(film(tmp_path, "worse.mp4", 40)).bits_per_pixel
    assert worse is not None
    assert worse < 0.5 * seen.bits_per_pixel


def test_matroska_says_it_too(tmp_path: Path):
    in_mp4, in_mkv = compression_of(film(tmp_path, "a.mp4", 23)), compression_of(film(tmp_path, "a.mkv", 23))
    assert in_mkv.codec == "h264"
    assert in_mkv.bits_per_pixel is not None
    assert in_mp4.bits_per_pixel is not None
    # Matroska does not say what the pictures alone take, only the file.
    assert in_mp4.bits_per_pixel <= in_mkv.bits_per_pixel <= in_mp4.bits_per_pixel + 8 * 2048 / (6 * 160 * 96)


def test_compressed_films_get_the_model_for_them(tmp_path: Path, all_models):
    clean, damaged = choose_model(film(tmp_path, "clean.mp4", 2)), choose_model(film(tmp_path, "damaged.mp4", 38))
    assert (clean.name, damaged.name) == ("compact", "compact-video")
    assert "h264 at" in clean.reason
    assert "under the" in damaged.reason


def test_images_are_clean_unless_their_format_loses_much(tmp_path: Path, all_models):
    (tmp_path / "frames").mkdir()
    write_image(tmp_path / "frames" / "0.png", picture(0, 64, 48))
    assert choose_model(tmp_path / "frames").name == "compact"
    assert "png" in choose_model(tmp_path / "frames").reason


@pytest.mark.parametrize(
    ("seen", "clean"),
    [
        (Compression("h264", 0.15, 720, 1280), True),
        (Compression("h264", 0.1, 720, 1280), False),
        # An HEVC stream says as much with fewer bits, and a larger picture needs fewer for each pixel.
        (Compression("hevc", 0.1, 720, 1280), True),
        (Compression("h264", 0.1, 2160, 3840), True),
        (Compression("h264", 0.15, 144, 256), False),
        (Compression("mpeg2video", 0.25, 720, 1280), False),
        (Compression("ffv1", 0.01, 720, 1280), True),
        (Compression("h264", None, 720, 1280), False),
    ],
)
def test_what_counts_as_clean(seen: Compression, clean: bool):
    assert is_clean(seen)[0] == clean


@pytest.mark.parametrize(
    ("scale", "size", "expected"),
    [
        (None, None, 4),
        (2, None, 2),
        (4, OutputSize(height=100), 4),
        (None, OutputSize(height=192), 2),
        (None, OutputSize(height=194), 4),
        (None, OutputSize(width=320), 2),
        (None, OutputSize(height=192, width=330), 4),
    ],
)
def test_the_smaller_scale_where_it_is_enough(tmp_path: Path, all_models, scale, size, expected: int):
    choice = choose_model(film(tmp_path, "in.mp4", 2), scale=scale, size=size)
    assert choice.name == ("compact" if expected == 4 else "compact-x2")
    assert choice.reason.startswith(f"x{expected};")


def test_a_model_that_is_missing_is_replaced_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choose, "packaged_names", lambda: ["compact"])
    source = film(tmp_path, "in.mp4", 40)
    assert choose_model(source).name == "compact"
    assert choose_model(source).reason.endswith("no model for compressed footage at x4")
    assert choose_model(source, size=OutputSize(height=100)).name == "compact"
    with pytest.raises(ConfigError, match="no packaged model of scale 2"):
        choose_model(source, scale=2)


@pytest.mark.parametrize("scale", [2, 4])
def test_every_packaged_model_does_without_blocks(tmp_path: Path, scale: int):
    source = film(tmp_path, "in.mp4", 40)
    report = upscale_video(source, tmp_path / "out.mp4", scale=scale, end=0.05, budget=0.5)
    assert report.model == choose_model(source, scale=scale).name
    assert 0.3 < report.active_ratio < 0.7
    assert all(load_model(name).calibration is not None for name in packaged_names())


def test_a_pipe_is_taken_for_compressed(all_models):
    assert choose_model(PIPE).name == "compact-video"
    assert choose_model(PIPE, scale=2).name == "compact-video-x2"


def test_the_large_model_is_named_where_a_gpu_could_run_it(all_models, tiny: SkipVSR):
    choice = ModelChoice("compact", "x4; because")
    assert with_hint(choice, tiny) is choice
    # As little on the CPU as on a GPU.
    elsewhere = copy.deepcopy(tiny).to("meta")
    assert with_hint(choice, elsewhere).reason == (
        "x4; because; on a GPU --model base does better, with twelve times the work"
    )
    double = SkipVSR(VSRConfig(8, 2, "light", "light", scale=2)).to("meta")
    assert with_hint(choice, double) is choice


def test_a_model_of_another_scale_is_refused(tmp_path: Path, tiny: SkipVSR):
    with pytest.raises(ConfigError, match="enlarges 4 times, and x2"):
        resolve_model(tiny, tmp_path / "in.mp4", scale=2)
    assert resolve_model(tiny, tmp_path / "in.mp4", scale=4) == (tiny, None)
    with pytest.raises(InputError, match="does not exist"):
        resolve_model("auto", tmp_path / "in.mp4")


def test_reports_say_which_model_and_why(tmp_path: Path):
    source = film(tmp_path, "in.mp4", 30)
    report = upscale_video(source, tmp_path / "out.mp4", end=0.05)
    assert report.model in packaged_names()
    assert "bits a pixel" in report.model_reason
    named = upscale_video(source, tmp_path / "named.mp4", "compact", end=0.05)
    assert (named.model, named.model_reason) == ("compact", "")


def test_each_file_of_a_batch_has_its_own_choice(tmp_path: Path):
    sources = [film(tmp_path, "a.mp4", 2), tmp_path / "broken.mp4"]
    sources[1].write_bytes(b"not a video")
    outcomes = list(upscale_many(sources, tmp_path / "out", end=0.05))
    assert outcomes[0].report is not None
    assert outcomes[0].report.model == "compact"
    assert isinstance(outcomes[1].error, InputError)
