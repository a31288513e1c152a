"""ICC profiles, which every PNG of an image editor, a Mac or a phone has. Reading one ended the process (PyAV 18.1)."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from skipvsr.video.open import read_clip

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
# PNG's reader hands a profile on without looking into it.
PROFILE = b"a profile, as far as PNG can tell" * 10


def png_with_profile() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = PIXELS.shape
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            chunk(b"iCCP", b"Display P3\0\0" + zlib.compress(PROFILE)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def upscale(source: Path, destination: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, because it was the process that ended."""
    command = [sys.executable, "-m", "skipvsr", "upscale", str(source), str(destination), "--model", "bicubic"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp"])
def test_a_folder_of_images_with_profiles(tmp_path: Path, name: str):
    """Also under another ending; the profile is said to be dropped."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(png_with_profile())
    done = upscale(tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{name} has a colour profile (ICC)") == 1
    assert np.array_equal(read_clip(tmp_path / "in" / name)[0], PIXELS)


@pytest.mark.parametrize("ending", [".mov", ".avi"])
def test_a_video_of_png_with_profiles(tmp_path: Path, ending: str):
    source = tmp_path / f"in{ending}"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
        for number in range(3):
            packet = av.Packet(png_with_profile())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)
    done = upscale(source, tmp_path / "out.mkv")
    assert done.returncode == 0, done.stderr
    assert read_clip(tmp_path / "out.mkv").shape == (3, 96, 128, 3)
