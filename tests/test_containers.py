"""Which container holds what: refused before the start, and what a dry run says is true."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from skipvsr import upscale_video
from skipvsr.errors import ConfigError, OutputError, SkipVSRError
from skipvsr.upscale.estimate import estimate
from skipvsr.video.containers import CONTAINERS
from skipvsr.video.encode import EncodeOptions
from skipvsr.video.open import probe
from skipvsr.video.sound import Audio
from tests.media import make_video, packets
from tests.test_cli import run


def error_of(function, *arguments: Any, **options: Any) -> SkipVSRError | None:
    try:
        function(*arguments, **options)
    except SkipVSRError as error:
        return error
    return None


def outcomes(source: Path, codec: str | None = None, audio: Audio = "copy") -> dict[str, SkipVSRError | None]:
    """What happens for each container; a dry run says the same before."""
    encoding = EncodeOptions(codec=codec, audio=audio)
    found = {}
    for ending in CONTAINERS:
        destination = source.with_name(f"out{ending}")
        progress: list[object] = []
        said = error_of(estimate, source, destination, "bicubic", encoding=encoding)
        found[ending] = error_of(
            upscale_video, source, destination, "bicubic", encoding=encoding, on_progress=progress.append
        )
        assert (type(said), str(said)) == (type(found[ending]), str(found[ending]))
        assert destination.exists() == (found[ending] is None)
        assert found[ending] is None or not progress  # before the start
        destination.unlink(missing_ok=True)
    return found


def assert_advice(found: dict[str, SkipVSRError | None]) -> None:
    """Each message names the containers that can, and no other."""
    good = [ending for ending, error in found.items() if error is None]
    for error in found.values():
        if error is not None and good:
            advice = str(error).partition("; ")[2]
            assert set(re.findall(r"\.\w+", advice)) == set(good)


SOUND = {
    "aac": "mp4 m4v mov mkv",
    "libmp3lame": "mp4 m4v mov mkv",
    "ac3": "mp4 m4v mov mkv",
    "libopus": "mp4 m4v mkv webm",
    "flac": "mp4 m4v mkv",
    "alac": "mp4 m4v mov mkv",
    "pcm_s16le": "mp4 m4v mov mkv",
    "pcm_mulaw": "mov",
    "adpcm_ms": "",
}


@pytest.mark.parametrize("codec", SOUND)
def test_sound_and_containers(tmp_path: Path, codec: str):
    kind = {"pcm_mulaw": "mov", "adpcm_ms": "avi"}.get(codec, "mkv")
    picture: dict[str, Any] = {"codec": "mpeg4", "options": {"qscale": "3"}, "time_base": Fraction(1, 25)}
    source = make_video(tmp_path / f"in.{kind}", 2, audio_codec=codec, audio_seconds=0.3, **picture)
    found = outcomes(source)
    assert [ending[1:] for ending, error in found.items() if error is None] == SOUND[codec].split()
    assert all(error is None or isinstance(error, OutputError) for error in found.values())
    assert_advice(found)
    if not SOUND[codec]:
        assert str(found[".mkv"]).endswith("convert its sound with --audio aac (or opus, flac)")


def test_subtitles_and_containers(tmp_path: Path):
    source = make_video(tmp_path / "in.mkv", 30, subtitles=[(0, "words")])
    found = outcomes(source)
    assert [ending for ending, error in found.items() if error is None] == [".mkv"]
    assert_advice(found)
    assert str(found[".mp4"]).endswith("or leave them out with --no-subtitles")
    assert run("upscale", source, source.with_name("out.mp4"), "--model", "bicubic", "--no-subtitles") == 0
    assert probe(source.with_name("out.mp4")).subtitle_streams == 0


VIDEO = {
    "libx264": "mp4 m4v mov mkv",
    "libx265": "mp4 m4v mov mkv",
    "libvpx-vp9": "mp4 m4v mkv webm",
    "ffv1": "mp4 m4v mkv",
    "prores_ks": "mov mkv",
    "utvideo": "",
}


@pytest.mark.parametrize("codec", VIDEO)
def test_encoders_and_containers(tmp_path: Path, codec: str):
    found = outcomes(make_video(tmp_path / "in.mkv", 2), codec)
    assert [ending[1:] for ending, error in found.items() if error is None] == VIDEO[codec].split()
    assert all(error is None or isinstance(error, ConfigError) for error in found.values())
    assert_advice(found)


def test_channels_that_matroska_only_counts_have_places_in_mp4(tmp_path: Path):
    """Otherwise FFmpeg refuses the last packet, when all the work is done."""
    source = make_video(tmp_path / "in.mkv", 2, audio_codec="pcm_s16le", audio_seconds=0.3)
    upscale_video(source, tmp_path / "out.mp4", "bicubic")
    assert b"".join(part for _, part in packets(tmp_path / "out.mp4", "audio")) == b"".join(
        part for _, part in packets(source, "audio")
    )


def test_ten_bits_in_m4v(tmp_path: Path):
    source = make_video(tmp_path / "in.mkv", 2, pixel_format="yuv420p10le")
    upscale_video(source, tmp_path / "out.m4v", "bicubic")
    assert probe(tmp_path / "out.m4v").bit_depth == 10


def test_a_dry_run_says_what_cannot_be_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mov", 2, audio_codec="pcm_mulaw", audio_seconds=0.2)
    make_video(tmp_path / "in" / "b.mp4", 2)
    assert run("upscale", tmp_path / "in" / "a.mov", tmp_path / "out.mp4", "--model", "bicubic", "--dry-run") == 0
    assert ".mp4 files cannot hold stream 1" in capsys.readouterr().out
    assert run("upscale", tmp_path / "in", tmp_path / "out", "--model", "bicubic", "--dry-run") == 0
    assert capsys.readouterr().out.count("s a frame") == 2
