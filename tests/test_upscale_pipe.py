"""Raw video on standard input and output."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from skipvsr.video.colour import BT709, LIMITED, ColourSpec, from_rgb
from skipvsr.video.open import read_clip
from tests.media import make_video, picture, times

COMMAND = (sys.executable, "-m", "skipvsr", "upscale", "--model", "bicubic")
RATE = Fraction(30000, 1001)


def y4m(frames: int, pixel_format: str = "yuv420p") -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="yuv4mpegpipe", options={"strict": "-1"}) as container:
        stream = container.add_stream("rawvideo", rate=RATE)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixel_format
        for index in range(frames):
            frame = from_rgb(picture(index), pixel_format, ColourSpec(BT709, LIMITED))
            frame.pts, frame.time_base = index, 1 / RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def skipvsr(*arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *map(str, arguments)], input=given, capture_output=True, timeout=300, check=False)


def read(video: bytes) -> tuple[Fraction | None, list[np.ndarray]]:
    with av.open(io.BytesIO(video), "r", format="yuv4mpegpipe") as container:
        rate = container.streams.video[0].average_rate
        return rate, [frame.to_ndarray() for frame in container.decode(video=0)]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_between_two_programs(tmp_path: Path, pixel_format: str):
    result = skipvsr("-", "-", given=y4m(5, pixel_format))
    assert result.returncode == 0, result.stderr
    rate, frames = read(result.stdout)
    assert rate == RATE
    assert len(frames) == 5
    assert frames[0].shape == (192, 192)  # 4:2:0 planes of 192x128, one below the other
    assert frames[0].dtype == (np.uint8 if pixel_format == "yuv420p" else np.uint16)
    # The same frames through files.
    (tmp_path / "in.y4m").write_bytes(y4m(5, pixel_format))
    assert skipvsr(tmp_path / "in.y4m", "-").stdout == result.stdout
    assert b"5 frames in 1 scene" in result.stderr


def test_one_end_may_be_a_file(tmp_path: Path):
    result = skipvsr("-", tmp_path / "out.mp4", "--quiet", given=y4m(4))
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert times(tmp_path / "out.mp4") == [index / RATE for index in range(4)]
    source = make_video(tmp_path / "in.mkv", 3, codec="ffv1", pixel_format="yuv420p", options={})
    frames = read(skipvsr(source, "-").stdout)[1]
    assert len(frames) == 3
    assert read_clip(tmp_path / "out.mp4").shape == (4, 128, 192, 3)


def test_input_that_is_cut_off_is_upscaled_so_far():
    result = skipvsr("-", "-", given=y4m(6)[:-500])
    assert result.returncode == 3
    assert len(read(result.stdout)[1]) == 5
    assert b"skipvsr: " in result.stderr


def test_wrong_uses_are_one_line(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 2)
    cases = [
        (("-", "-"), b"", 1, b"no YUV4MPEG2"),
        (("-", "-"), b"something else", 1, b"no YUV4MPEG2"),
        ((source, "-", "--json"), b"", 2, b"leave --json out"),
        ((source, "-", "--codec", "libx264"), b"", 2, b"leave codec"),
        (("-", source, tmp_path / "out"), y4m(1), 2, b"do not go together"),
    ]
    for arguments, given, code, message in cases:
        result = skipvsr(*arguments, given=given)
        assert result.returncode == code
        assert message in result.stderr
        assert result.stderr.count(b"\n") == 1
        assert result.stdout == b""


@pytest.mark.parametrize("flag", ["-", "--json"])
def test_a_reader_that_goes_away_ends_the_job_quietly(tmp_path: Path, flag: str):
    source = make_video(tmp_path / "in.mp4", 40)
    ends = ("-", "--quiet") if flag == "-" else (str(tmp_path / "out.mp4"), "--json")
    process = subprocess.Popen([*COMMAND, str(source), *ends], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    process.wait(timeout=300)
    assert process.returncode == 1
    said = process.stderr.read()
    assert b"Traceback" not in said
    assert flag != "-" or said == b""
