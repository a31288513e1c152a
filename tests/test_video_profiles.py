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

from skipvsr.errors import InputError
from skipvsr.video.images import read_image
from skipvsr.video.limits import MAX_IMAGE_BYTES
from skipvsr.video.open import read_clip
from skipvsr.video.png import image_only

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
# PNG's reader hands a profile on without looking into it.
PROFILE = b"a profile, as far as PNG can tell" * 10


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(before: bytes = b"", more_rows: bytes = b"") -> bytes:
    """A PNG file of PIXELS, with some chunks before them and some data behind them."""
    height, width, _ = PIXELS.shape
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", header, before, chunk(b"IDAT", zlib.compress(rows + more_rows)), chunk(b"IEND", b""))
    )


def png_with_profile() -> bytes:
    return png(chunk(b"iCCP", b"Display P3\0\0" + zlib.compress(PROFILE)))


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


def test_what_comes_with_a_frame_takes_no_memory(tmp_path: Path):
    """Texts of any size, also when they are decompressed, are not even handed to the decoder."""
    path = tmp_path / "a.png"
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 << 20)))
    path.write_bytes(png(bomb + chunk(b"tEXt", b"Comment\0" + bytes(20 << 20)) + chunk(b"iTXt", bytes(1 << 20))))
    assert path.stat().st_size > 20 << 20
    assert len(image_only(path)) < 4000
    assert np.array_equal(read_image(path), PIXELS)


def test_a_frame_that_goes_on_after_its_end_is_refused(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(png(more_rows=bytes(100 << 20)))
    with pytest.raises(InputError, match="says that it is 32x24 and holds more data than that"):
        read_image(path)
    path.write_bytes(png(more_rows=bytes(40)))
    assert np.array_equal(read_image(path), PIXELS)


def test_a_file_that_is_too_large_for_an_image_is_refused(tmp_path: Path):
    path = tmp_path / "a.bmp"
    with path.open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    with pytest.raises(InputError, match=r"images of at most 603,979,776 are read"):
        read_image(path)


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
