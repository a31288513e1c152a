"""Many kinds of files through the bypass, each stream of the result looked at by an independent probe where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from skipvsr.upscale.frames import upscale_frames
from skipvsr.upscale.job import upscale_video
from skipvsr.video.colour import BT709, BT2020_NCL, FULL, LIMITED, SMPTE170M, ColourSpec
from skipvsr.video.open import open_reader, read_clip
from tests.media import make_video, packets, picture

MILLISECOND = Fraction(1, 1000)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is made, what it becomes, and how exactly times come through."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    output: str = ""
    frames: int = 7
    size: tuple[int, int] = (48, 32)
    within: Fraction = Fraction(0)
    options: dict[str, Any] = field(default_factory=dict)


def kind(
    name: str, output: str = "", *, within: Fraction | int = 0, size: tuple[int, int] = (48, 32), **settings
) -> Any:
    made = Kind(name, settings, output, size=size, within=Fraction(within))
    return pytest.param(made, id=f"{name}-{output or 'same'}")


VARIABLE = [0, 400, 1700, 1701, 5000, 9000, 20000]
MILLISECONDS = [0, 33, 67, 100, 250, 251, 900]
SUBTITLES = [(0, "one"), (1, "two")]
KINDS = [
    # Codecs and containers.
    kind("h264.mp4"),
    kind("h264.mov"),
    kind("h264.mkv"),
    kind("h264.mp4", "mkv", within=MILLISECOND),
    kind("h264.mkv", "mp4"),
    kind("h264.ts", "mp4", time_base=Fraction(1, 90000)),
    kind("h264.flv", "mkv", time_base=Fraction(1, 1000)),
    kind("hevc.mp4", codec="libx265", size=(64, 48), options={"x265-params": "log-level=error"}),
    kind("hevc.mkv", "mov", codec="libx265", size=(64, 48), options={"x265-params": "log-level=error"}),
    kind("vp9.webm", codec="libvpx-vp9", options={"crf": "10", "b": "0"}),
    kind("vp9.webm", "mkv", codec="libvpx-vp9", options={"crf": "10", "b": "0"}),
    kind("vp8.webm", "mp4", codec="libvpx", options={"crf": "10", "b": "1M"}),
    kind("av1.mkv", "mp4", codec="libsvtav1", size=(64, 64), options={"crf": "20", "svtav1-params": "lp=1"}),
    kind("mpeg4.mp4", codec="mpeg4", time_base=Fraction(1, 25), options={"qscale": "3"}),
    kind("mpeg4.avi", "mp4", codec="mpeg4", time_base=Fraction(1, 25), options={"qscale": "3"}),
    kind("mpeg2.mpg", "mkv", codec="mpeg2video", time_base=Fraction(1, 25), options={"qscale": "3"}, within=MILLISECOND),
    kind("mpeg2.ts", "mp4", codec="mpeg2video", time_base=Fraction(1, 25), options={"qscale": "3"}),
    kind("mjpeg.mov", "mp4", codec="mjpeg", pixel_format="yuvj420p", options={"qscale": "2"}),
    kind("mjpeg.avi", "mkv", codec="mjpeg", pixel_format="yuvj422p", time_base=Fraction(1, 25), options={"qscale": "2"}),
    kind("prores.mov", "mp4", codec="prores_ks", pixel_format="yuv422p10le", size=(64, 48), options={"profile": "hq"}),
    kind("ffv1.mkv", codec="ffv1", options={}),
    kind("ffv1.mkv", "mp4", codec="ffv1", pixel_format="yuv444p", options={}),
    # Times.
    kind("variable.mp4", times=VARIABLE, time_base=Fraction(1, 10000)),
    kind("variable.mkv", times=MILLISECONDS, time_base=Fraction(1, 1000)),
    kind("variable.mkv", "mp4", times=MILLISECONDS, time_base=Fraction(1, 1000)),
    kind("ntsc.mp4", times=[1001 * index for index in range(7)], time_base=Fraction(1, 30000)),
    kind("ntsc.mp4", "mkv", times=[1001 * index for index in range(7)], time_base=Fraction(1, 30000), within=MILLISECOND),
    kind("late.mp4", times=[90000 + 3000 * index for index in range(7)], time_base=Fraction(1, 90000)),
    kind("late.mkv", "mp4", times=[1500 + 40 * index for index in range(7)], time_base=Fraction(1, 1000)),
    kind("late.ts", "mkv", times=[180000 + 3600 * k for k in range(7)], time_base=Fraction(1, 90000), within=MILLISECOND),
    kind("b-frames.mp4", options={"crf": "10", "bf": "3", "x264-params": "b-adapt=0"}),
    kind("b-frames.mkv", "mov", options={"crf": "10", "bf": "3", "x264-params": "b-adapt=0"}),
    kind("one-a-second.mp4", times=list(range(7)), time_base=Fraction(1, 1)),
    # Sound and words.
    kind("aac.mp4", audio_codec="aac", audio_seconds=0.5),
    kind("aac.mkv", "mp4", audio_codec="aac", audio_seconds=0.5),
    kind("aac.ts", "mkv", audio_codec="aac", audio_seconds=0.5, time_base=Fraction(1, 90000), within=MILLISECOND),
    kind("mp3.mkv", audio_codec="libmp3lame", audio_seconds=0.5),
    kind("opus.webm", codec="libvpx-vp9", audio_codec="libopus", audio_seconds=0.5, options={"crf": "10", "b": "0"}),
    kind("flac.mkv", audio_codec="flac", audio_seconds=0.5),
    kind("pcm.mov", audio_codec="pcm_s16le", audio_seconds=0.5),
    kind("words.mkv", subtitles=SUBTITLES),
    # Colour, shape and orientation.
    kind("bt601.mp4", colour=ColourSpec(SMPTE170M, LIMITED, 6, 6)),
    kind("bt2020.mkv", colour=ColourSpec(BT2020_NCL, LIMITED, 9, 14)),
    kind("full.mp4", colour=ColourSpec(BT709, FULL, BT709, BT709)),
    kind("rotated.mp4", rotation=90),
    kind("rotated.mov", "mkv", rotation=180, within=MILLISECOND),
    kind("wide-pixels.mp4", sample_aspect_ratio=Fraction(16, 11)),
    kind("wide-pixels.mkv", "mp4", sample_aspect_ratio=Fraction(12, 11)),
    kind("odd.mp4", size=(50, 34)),
    kind("422.mkv", "mp4", codec="ffv1", pixel_format="yuv422p", options={}),
    kind("grey.mkv", codec="ffv1", pixel_format="gray", options={}),
    kind("hlg.mkv", "mp4", codec="ffv1", pixel_format="yuv420p10le", size=(64, 48), options={"level": "3"},
         colour=ColourSpec(BT2020_NCL, LIMITED, 9, 18)),
]  # fmt: skip


def test_there_are_forty_kinds_and_more():
    assert len(KINDS) >= 40


@pytest.mark.parametrize("made", KINDS)
def test_every_kind_comes_through(tmp_path: Path, made: Kind):
    pictures = [picture(index, *made.size) for index in range(made.frames)]
    source = make_video(tmp_path / made.name, pictures, **made.settings)
    ending = f".{made.output}" if made.output else source.suffix
    destination = tmp_path / f"out{ending}"
    report = upscale_video(source, destination, "bicubic", window=3, segment_length=4)
    assert report.frames == made.frames

    with open_reader(source) as before, open_reader(destination) as after:
        old, new = before.info, after.info
        times = [[frame.pts * frame.time_base for frame in reader] for reader in (before, after)]
    assert (new.width, new.height) == (4 * made.size[0], 4 * made.size[1])
    assert len(times[1]) == made.frames
    assert max(abs(one - two) for one, two in zip(*times, strict=True)) <= made.within
    # Where chroma lies is the output's own.
    expected = replace(old.colour, chroma_location=new.colour.chroma_location)
    assert new.colour == expected if old.colour.matrix else new.colour.matrix == BT709
    assert (new.rotation_degrees, new.sample_aspect_ratio) == (old.rotation_degrees, old.sample_aspect_ratio)
    assert (new.bit_depth > 8) == (old.bit_depth > 8)
    assert (new.audio_streams, new.subtitle_streams) == (old.audio_streams, old.subtitle_streams)
    for stream in ("audio",) * old.audio_streams + ("subtitle",) * old.subtitle_streams:
        assert_same_packets(packets(source, stream), packets(destination, stream), made.within or MILLISECOND)
    error = np.abs(read_clip(destination)[:, 2::4, 2::4].astype(int) - read_clip(source)).mean()
    assert error < 6  # the picture that lies there, and no other frame
    assert_probed(destination, old.audio_streams, old.subtitle_streams, made)


def assert_same_packets(
    before: list[tuple[Fraction, bytes]], after: list[tuple[Fraction, bytes]], within: Fraction
) -> None:
    """The same contents at the same times; without the packet before zero that Matroska has no place for, and without the
    header that each packet of AAC has in a transport stream and nowhere else.
    """
    if len(before) == len(after) + 1 and before[0][0] < 0:
        before = before[1:]
    assert all(
        one[1].endswith(two[1]) and len(one[1]) - len(two[1]) in (0, 7) for one, two in zip(before, after, strict=True)
    )
    assert all(abs(one[0] - two[0]) <= within for one, two in zip(before, after, strict=True))


def assert_probed(path: Path, sound: int, words: int, made: Kind) -> None:
    """What ffprobe says, where it is installed."""
    ffprobe = shutil.which("ffprobe")
    if ffprobe is None:
        return
    command = [ffprobe, "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    streams = json.loads(result.stdout)["streams"]
    kinds = [stream["codec_type"] for stream in streams]
    assert (kinds.count("video"), kinds.count("audio"), kinds.count("subtitle")) == (1, sound, words)
    video = streams[kinds.index("video")]
    assert (video["width"], video["height"]) == (4 * made.size[0], 4 * made.size[1])
    assert int(video["nb_read_frames"]) == made.frames


def test_memory_is_flat_over_five_thousand_frames():
    process = psutil.Process()
    frames = (np.full((16, 16, 3), index % 251, np.uint8) for index in range(5000))
    memory = [
        process.memory_info().rss
        for index, _ in enumerate(upscale_frames(frames, "bicubic", window=8))
        if index % 1000 == 999
    ]
    assert len(memory) == 5
    assert memory[-1] - memory[0] < 20 << 20
