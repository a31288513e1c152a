"""Damaged, truncated, growing, unreadable and hostile files: nothing that can be read is lost, and nothing is silent."""

from __future__ import annotations

import errno
import io
import itertools
import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from skipvsr import upscale_video
from skipvsr.cli.main import main
from skipvsr.errors import DecodeError, InputError
from skipvsr.video import source as source_module
from skipvsr.video.frame import Frame
from skipvsr.video.images import read_image
from skipvsr.video.limits import MAX_DECODER_THREADS
from skipvsr.video.open import open_reader
from skipvsr.video.read import VideoReader
from skipvsr.video.source import SourceFile
from tests.media import make_video, packets, picture, times

COUNT = 30
GROUPS = {"crf": "4", "g": "10", "bf": "0"}


def make(path: Path, **settings) -> Path:
    pictures = [picture(index, 96, 64) for index in range(COUNT)]
    return make_video(path, pictures, **{"options": GROUPS, "time_base": Fraction(1, 25), **settings})


def damage(path: Path, number: int, *, whole: bool) -> Path:
    """Overwrite a packet of the picture in the file, all of it or its end."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
    assert packet.pos is not None
    data = bytearray(path.read_bytes())
    first = packet.pos + (8 if whole else packet.size // 2)
    data[first : packet.pos + packet.size] = bytes(packet.pos + packet.size - first)
    damaged = path.with_stem("damaged")
    damaged.write_bytes(data)
    return damaged


def read(path: Path, **settings) -> tuple[list[Frame], str]:
    """The frames, and what the error at the end says ("" without one)."""
    frames = []
    with VideoReader(path, **settings) as reader:
        try:
            frames.extend(reader)
        except DecodeError as error:
            return frames, str(error)
    return frames, ""


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_frame_that_does_not_decode_costs_that_frame_alone(tmp_path: Path, ending: str):
    source = make(tmp_path / f"in.{ending}")
    before, _ = read(source)
    frames, message = read(damage(source, 15, whole=True))
    expected = [frame.pts for index, frame in enumerate(before) if index != 15]
    assert [frame.pts for frame in frames] == expected
    assert "has 1 frame that did not decode (at 0:00.600)" in message
    # The next key frame puts everything right.
    after = {frame.pts: frame.pixels for frame in before}
    assert all(np.array_equal(frame.pixels, after[frame.pts]) for frame in [*frames[:15], *frames[19:]])


def test_a_frame_that_the_decoder_mends_is_kept_and_named(tmp_path: Path):
    frames, message = read(damage(make(tmp_path / "in.mkv"), 15, whole=False))
    assert len(frames) == COUNT
    assert message.endswith("has 1 frame with errors (at 0:00.600)")


def test_damage_among_b_frames_is_found_where_it_is_shown(tmp_path: Path):
    source = make(tmp_path / "in.mkv", options={**GROUPS, "bf": "2"})
    with av.open(str(source)) as container:
        lost = [packet.pts for packet in container.demux(video=0) if packet.size][14]
    assert lost is not None
    before, _ = read(source)
    frames, message = read(damage(source, 14, whole=True))
    assert [frame.pts for frame in frames] == [frame.pts for frame in before if frame.pts != lost]
    assert f"1 frame that did not decode (at 0:00.{lost:03d})" in message


def test_the_last_frames_do_not_suffer_for_one_that_does_not_decode(tmp_path: Path):
    frames, message = read(damage(make(tmp_path / "in.mkv"), COUNT - 3, whole=True))
    assert len(frames) == COUNT - 1
    assert "1 frame that did not decode (at 0:01.080)" in message
    frames, message = read(damage(make(tmp_path / "in.mkv"), COUNT - 1, whole=True))
    assert len(frames) == COUNT - 1
    assert "1 frame that did not decode (at 0:01.160)" in message


def test_avi_stays_in_step_behind_a_frame_that_does_not_decode(tmp_path: Path):
    source = make(tmp_path / "in.avi", codec="mjpeg", options={"qmin": "2"}, pixel_format="yuvj420p")
    frames, message = read(damage(source, 15, whole=True))
    assert [frame.pts for frame in frames] == [index for index in range(COUNT) if index != 15]
    assert "1 frame that did not decode (at 0:00.600)" in message


def test_a_damaged_file_is_upscaled_and_the_exit_status_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = damage(make(tmp_path / "in.mkv", audio_codec="aac", audio_seconds=1.2), 15, whole=True)
    with pytest.raises(SystemExit) as caught:
        main(["upscale", str(source), str(tmp_path / "out.mkv"), "--model", "bicubic", "--quiet"])
    assert caught.value.code == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "1 frame that did not decode (at 0:00.600)" in said
    assert "the 29 frames that could be read are in" in said
    assert times(tmp_path / "out.mkv") == [index * Fraction(1, 25) for index in range(COUNT) if index != 15]
    assert packets(tmp_path / "out.mkv", "audio") == packets(source, "audio")


def test_damage_outside_of_a_part_is_not_the_users_business(tmp_path: Path):
    source = damage(make(tmp_path / "in.mkv"), 15, whole=True)
    assert read(source, start=0.8)[1] == ""
    assert read(source, end=0.5)[1] == ""
    frames, message = read(source, start=0.5, end=0.7)
    assert len(frames) == 4
    assert "at 0:00.600" in message


def test_times_in_order_of_decoding_are_no_damage(tmp_path: Path):
    """MXF without an index of the order in which frames are shown gives each packet the time at which it is decoded."""
    source = make(tmp_path / "in.mxf", options={"crf": "4", "bf": "2", "b_strategy": "0"})
    frames, message = read(source)
    assert message == ""
    assert len(frames) == COUNT


def test_a_recording_that_begins_between_key_frames_is_no_damage(tmp_path: Path):
    """What was before the first key frame cannot be shown."""
    whole = make(tmp_path / "in.ts")
    with av.open(str(whole)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    assert places[6] is not None
    late = tmp_path / "late.ts"
    late.write_bytes(whole.read_bytes()[: 188 * 3] + whole.read_bytes()[places[6] :])
    frames, message = read(late)
    assert 20 <= len(frames) <= 24
    assert message == ""


@pytest.mark.parametrize(
    ("ending", "cut_bytes"),
    # The last four bytes of an FLV repeat a length and carry nothing.
    [("flv", 700), *((ending, cut_bytes) for ending in ("ts", "avi", "mkv", "mov") for cut_bytes in (1, 700))],
)
def test_a_truncated_end_is_never_silent(tmp_path: Path, ending: str, cut_bytes: int):
    source = make(tmp_path / f"in.{ending}")
    if ending == "mov":
        source = fast_start(source)
    assert read(source)[1] == ""
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(source.read_bytes()[:-cut_bytes])
    frames, message = read(cut)
    assert len(frames) >= COUNT - 4
    assert "was cut off" in message


def packet_places(path: Path, kind: str) -> list[int]:
    with av.open(str(path)) as container:
        return [packet.pos for packet in container.demux() if packet.stream.type == kind and packet.size and packet.pos]


BETWEEN_PACKETS: dict[str, dict[str, Any]] = {
    "flv": {"codec": "flv", "options": {"g": "10"}, "audio_codec": "libmp3lame", "audio_seconds": 1.2},
    "wmv": {"codec": "wmv2", "options": {"g": "10", "b": "4M"}},
    "ogv": {"codec": "libvpx", "options": {"b": "200k", "g": "10"}},
    "mxf": {"codec": "mpeg2video", "options": {"g": "10"}},
    "gif": {"codec": "gif", "pixel_format": "rgb8", "options": {}, "time_base": Fraction(1, 100)},
    "apng": {"codec": "apng", "pixel_format": "rgb24", "options": {}},
    "y4m": {"codec": "wrapped_avframe", "options": {}},
}


@pytest.mark.parametrize("ending", BETWEEN_PACKETS)
def test_a_file_cut_between_two_packets_is_not_whole(tmp_path: Path, ending: str):
    """Everything that is left is in order, but the header or what should be at the end says more."""
    source = make(tmp_path / f"in.{ending}", **BETWEEN_PACKETS[ending])
    assert read(source)[1] == ""
    data, places = source.read_bytes(), packet_places(source, "video")
    for ratio in (0.6, 0.9):
        cut = tmp_path / f"cut.{ending}"
        cut.write_bytes(data[: max(place for place in places if place < ratio * len(data))])
        frames, message = read(cut)
        assert 0 < len(frames) < COUNT
        assert "was cut off" in message
    within = tmp_path / f"within.{ending}"
    within.write_bytes(data[:-3])
    assert ending in {"mxf", "ogv"} or "was cut off" in read(within)[1]


def test_the_length_in_the_header_of_flv_is_believed(tmp_path: Path):
    """Also where the header does not say how large the file is."""
    source = make(tmp_path / "in.flv", **BETWEEN_PACKETS["flv"])
    data = bytearray(source.read_bytes())
    place = data.find(b"filesize") + 9
    data[place : place + 8] = bytes(8)
    end = max(place for place in packet_places(source, "audio") if place < 0.6 * len(data))
    source.write_bytes(data)
    assert read(source)[1] == ""
    source.write_bytes(data[:end])
    assert "s before its header says: it was cut off" in read(source)[1]


def test_a_whole_file_with_something_behind_it_is_whole(tmp_path: Path):
    source = make(tmp_path / "in.mp4")
    source.write_bytes(source.read_bytes() + b"\xff\xff\xff\xffjunk")
    assert read(source)[1] == ""


def fast_start(path: Path) -> Path:
    """The index before the data, so that a cut file can be read at all."""
    moved = path.with_stem("moved")
    with av.open(str(path)) as container, av.open(str(moved), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return moved


def test_a_size_that_changes_midway_ends_the_video_there(tmp_path: Path):
    small = make(tmp_path / "small.h264")
    large = make_video(tmp_path / "large.h264", [picture(k, 128, 64) for k in range(5)], options=GROUPS)
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames, message = read(both)
    assert len(frames) == COUNT
    assert "changes from 96x64 to 128x64" in message


@pytest.mark.parametrize("change", ["grows", "is touched"])
def test_a_file_that_changes_while_it_is_read_is_read_to_its_end(tmp_path: Path, change: str):
    source = make(tmp_path / "in.ts")
    frames = []
    with VideoReader(source) as reader:
        iterator = iter(reader)
        frames.extend(next(iterator) for _ in range(5))
        if change == "grows":
            source.write_bytes(source.read_bytes() + bytes(188))
        else:
            os.utime(source, (1, 1))
        with pytest.raises(DecodeError, match=r"while it was read.*upscale it again"):
            frames.extend(iterator)
    assert len(frames) == COUNT


def test_a_file_that_is_removed_while_it_is_read_is_read_to_its_end(tmp_path: Path):
    source = make(tmp_path / "in.avi", codec="mjpeg", options={"qmin": "2"}, pixel_format="yuvj420p")
    frames = []
    with VideoReader(source) as reader:
        for frame in reader:
            frames.append(frame)
            source.unlink(missing_ok=True)
    assert len(frames) == COUNT


class Failing(io.FileIO):
    """A disk that fails at a place in the file."""

    fails_at = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() + (size or 0) > self.fails_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@pytest.mark.parametrize("ending", ["ts", "mkv", "mov"])
def test_a_disk_that_fails_midway_gives_what_came_before(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch):
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, 64, 96, 3), dtype=np.uint8)
    source = make_video(tmp_path / f"in.{ending}", list(noise), options=GROUPS, time_base=Fraction(1, 25))
    if ending == "mov":
        source = fast_start(source)
    whole = read(source)[0]
    frames = []
    with VideoReader(source) as reader:
        file = reader._file
        assert isinstance(file, SourceFile)
        failing = Failing(source)
        failing.seek(file.tell())
        failing.fails_at = source.stat().st_size * 7 // 10
        monkeypatch.setattr(file, "_file", failing)
        with pytest.raises(DecodeError, match=r"could not be read any further than 0:0\d\.\d+ \(Input/output error\)"):
            frames.extend(reader)
    assert 12 <= len(frames) <= 24
    assert [frame.pts for frame in frames] == [frame.pts for frame in whole[: len(frames)]]


class FailingSound:
    """A container whose packets cannot be read to the end."""

    def __init__(self, container, error: Exception) -> None:
        self._container, self._error = container, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    def __getattr__(self, name: str):
        return getattr(self._container, name)

    def demux(self, *streams):
        yield from itertools.islice(self._container.demux(*streams), 20)
        raise self._error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), IndexError("no such stream")])
def test_sound_that_cannot_be_read_ends_and_is_named(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    source = make(tmp_path / "in.mkv", audio_codec="aac", audio_seconds=1.2)
    original = av.open

    def opened(file, *args, **kwargs):
        container = original(file, *args, **kwargs)
        return FailingSound(container, error) if file == str(source) and "w" not in args else container

    monkeypatch.setattr(av, "open", opened)
    with pytest.raises(SystemExit) as ended:
        main(["upscale", str(source), str(tmp_path / "out.mkv"), "--model", "bicubic"])
    status, message = ended.value.code, capsys.readouterr().err
    # PyAV's IndexError comes when all has been read.
    assert status == (0 if isinstance(error, IndexError) else 3)
    assert ("sound and subtitles could not be read any further than 0:00.384" in message) == (status == 3)
    monkeypatch.undo()
    assert len(times(tmp_path / "out.mkv")) == COUNT
    assert packets(tmp_path / "out.mkv", "audio") == packets(source, "audio")[:20]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_a_disk_that_fails_at_once_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = make(tmp_path / "in.mkv")
    monkeypatch.setattr(source_module.Path, "open", lambda *args, **kwargs: Failing(source))
    with pytest.raises(InputError, match=r"in\.mkv cannot be read.*Input/output error"):
        VideoReader(source)


def png(width: int, height: int) -> bytes:
    """A picture that says it is so large, and is not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(16385, 16), (16, 16385), (16384, 4097)])
def test_monstrous_frames_are_refused_before_they_are_decoded(tmp_path: Path, width: int, height: int):
    image = tmp_path / "1.png"
    image.write_bytes(png(width, height))
    for attempt in (lambda: read_image(image), lambda: open_reader(tmp_path)):
        with pytest.raises(InputError, match=rf"{width}x{height}; at most 16,384 pixels a side and 67,108,864 in all"):
            attempt()
    video = tmp_path / "in.y4m"
    video.write_bytes(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\nFRAME\n".encode() + bytes(1000))
    with pytest.raises(InputError, match=r"at most 16,384|cannot be read"):
        open_reader(video)


def test_a_file_of_too_many_streams_is_refused(tmp_path: Path):
    source = tmp_path / "in.mkv"
    with av.open(str(make(tmp_path / "one.mkv"))) as container, av.open(str(source), "w") as output:
        streams = [output.add_stream_from_template(container.streams.video[0]) for _ in range(65)]
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = streams[0]
                output.mux(packet)
    with pytest.raises(InputError, match="holds 65 streams; at most 64"):
        open_reader(source)


def test_decoders_take_few_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 500)
    with VideoReader(make(tmp_path / "in.mkv")) as reader:
        assert reader._stream.codec_context.thread_count == MAX_DECODER_THREADS == 8


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {name}\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n"),
    ],
)
def test_a_list_does_not_even_open_the_files_it_names(
    tmp_path: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch
):
    pipe = tmp_path / "in.ts"
    os.mkfifo(pipe)
    playlist = tmp_path / name
    playlist.write_text(text.format(name="in.ts"))
    # Whoever opens the pipe for reading waits for ever.
    with pytest.raises(InputError, match=r"playlist|cannot be read"):
        open_reader(playlist)


def test_the_exit_status_of_what_was_cut_off(tmp_path: Path):
    source = make(tmp_path / "in.ts")
    source.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(
        DecodeError, match=r"was cut off; the \d+ frames that could be read are in .*out\.mp4"
    ) as caught:
        upscale_video(source, tmp_path / "out.mp4", "bicubic")
    assert caught.value.exit_code == 3
    assert len(times(tmp_path / "out.mp4")) >= COUNT - 4
