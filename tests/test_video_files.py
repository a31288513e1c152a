"""Video files in and out: what must be kept is kept."""

from __future__ import annotations

import errno
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream

from skipvsr.errors import ConfigError, DecodeError, InputError, OutputError
from skipvsr.video.colour import LIMITED, ColourSpec, colour_of, to_rgb
from skipvsr.video.frame import Frame
from skipvsr.video.images import write_image
from skipvsr.video.open import open_reader, open_writer, probe, read_clip
from skipvsr.video.probe import VideoInfo
from skipvsr.video.read import VideoReader
from skipvsr.video.timeline import Timeline
from skipvsr.video.write import EncodeOptions, VideoWriter
from tests.media import make_video, packets, picture, times


def copy(source: Path, destination: Path, scale: int = 2, **settings) -> VideoInfo:
    """Read every frame and write it `scale` times larger; the least that an upscaler does."""
    with open_reader(source) as reader:
        size = (scale * reader.info.width, scale * reader.info.height)
        with open_writer(destination, *size, reader, **settings) as writer:
            for frame in reader:
                writer.write(replace(frame, pixels=frame.pixels.repeat(scale, axis=0).repeat(scale, axis=1)))
    return probe(destination)


def assert_nothing_left(folder: Path, *expected: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_frames_times_and_sound_are_kept(tmp_path: Path, ending: str):
    source = make_video(tmp_path / f"in.{ending}", 30, audio_codec="aac", audio_seconds=1.2)
    info = copy(source, tmp_path / f"out.{ending}")
    assert (info.width, info.height) == (96, 64)
    assert times(info.path) == times(source)
    assert len(times(source)) == 30
    assert packets(info.path, "audio") == packets(source, "audio")
    assert len(packets(source, "audio")) > 50
    with av.open(str(info.path)) as container:
        assert container.streams.audio[0].metadata["language"] == "fra"
    assert_nothing_left(tmp_path, f"in.{ending}", f"out.{ending}")


def test_variable_frame_rate_is_kept(tmp_path: Path):
    irregular = [0, 400, 1700, 1701, 5000, 9000, 9300, 20000]
    source = make_video(tmp_path / "in.mp4", 8, times=irregular, time_base=Fraction(1, 10000))
    info = copy(source, tmp_path / "out.mp4")
    assert times(info.path) == [Fraction(time, 10000) for time in irregular]


def test_a_late_start_is_kept(tmp_path: Path):
    late = [6400 + 512 * index for index in range(6)]
    source = make_video(tmp_path / "in.mp4", 6, times=late, audio_codec="aac", audio_seconds=0.7)
    info = copy(source, tmp_path / "out.mp4")
    assert times(info.path) == times(source)
    assert times(source)[0] == Fraction(1, 2)
    assert packets(info.path, "audio") == packets(source, "audio")


def test_sound_is_interleaved_with_the_frame(tmp_path: Path):
    """Sound in its place in the file: a player must not have to seek for it."""
    source = make_video(tmp_path / "in.mkv", 100, audio_codec="aac", audio_seconds=4.0)
    info = copy(source, tmp_path / "out.mkv", options=EncodeOptions(preset="ultrafast"))
    with av.open(str(info.path)) as container:
        kinds = [
            (packet.stream.type, float(packet.dts * packet.time_base)) for packet in container.demux() if packet.dts
        ]
    latest = {"video": 0.0, "audio": 0.0}
    for kind, seconds in kinds:
        latest[kind] = seconds
        if min(latest.values()) > 0:
            assert abs(latest["video"] - latest["audio"]) < 1.0


def test_subtitles_are_kept(tmp_path: Path):
    source = make_video(tmp_path / "in.mkv", 50, subtitles=[(0, "first"), (1, "second")])
    info = copy(source, tmp_path / "out.mkv")
    assert packets(info.path, "subtitle") == packets(source, "subtitle")
    assert info.subtitle_streams == 1


def test_a_container_that_cannot_hold_a_stream_says_so(tmp_path: Path):
    source = make_video(tmp_path / "in.mkv", 50, subtitles=[(0, "first")])
    with pytest.raises(OutputError, match=r"subtitle, \w+.*out\.mkv"):
        copy(source, tmp_path / "out.mp4")
    assert_nothing_left(tmp_path, "in.mkv")


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_kept(tmp_path: Path, rotation: int):
    source = make_video(tmp_path / "in.mp4", 3, rotation=rotation)
    info = copy(source, tmp_path / "out.mp4")
    assert info.rotation_degrees == probe(source).rotation_degrees == rotation
    assert info.display_matrix == probe(source).display_matrix
    assert (info.width, info.height) == (96, 64)


def test_pixel_aspect_is_kept(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 3, sample_aspect_ratio=Fraction(16, 15))
    assert copy(source, tmp_path / "out.mp4").sample_aspect_ratio == Fraction(16, 15)


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("colour_range", [1, 2])
def test_colours_and_their_description_are_kept(tmp_path: Path, matrix: int, colour_range: int):
    random = np.random.default_rng(matrix)
    flat = [np.tile(random.integers(0, 256, 3).astype(np.uint8), (32, 48, 1)) for _ in range(4)]
    colour = ColourSpec(matrix, colour_range, 1, 1)
    source = make_video(tmp_path / "in.mp4", flat, colour=colour, options={"crf": "1"})
    assert probe(source).colour == colour
    info = copy(source, tmp_path / "out.mp4", options=EncodeOptions(crf=1))
    assert info.colour == colour
    # Two conversions and two encodings: a level each way.
    assert np.abs(read_clip(source).astype(int) - np.stack(flat)).max() <= 3
    assert np.abs(read_clip(info.path)[:, ::2, ::2].astype(int) - read_clip(source)).max() <= 3


def test_an_undescribed_small_video_is_bt601_and_its_large_output_says_so(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 2, colour=ColourSpec(2, 1))
    assert probe(source).colour.matrix == 6
    assert copy(source, tmp_path / "out.mp4", scale=30).colour.matrix == 6


def test_ten_bits_come_as_sixteen_and_go_out_as_ten(tmp_path: Path):
    source = make_video(
        tmp_path / "in.mkv",
        [picture(index, 160, 128) for index in range(3)],
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"crf": "12", "x265-params": "log-level=error"},
    )
    with open_reader(source) as reader:
        frame = next(iter(reader))
    assert frame.pixels.dtype == np.uint16
    assert np.abs(frame.pixels / 257 - picture(0, 160, 128)).mean() < 2
    info = copy(source, tmp_path / "out.mkv")
    assert (info.bit_depth, info.pixel_format) == (10, "yuv420p10le")
    assert (
        copy(source, tmp_path / "out8.mkv", options=EncodeOptions(pixel_format="yuv420p", codec="libx264")).bit_depth
        == 8
    )


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "ffv1"])
def test_encoders_are_visually_lossless(tmp_path: Path, codec: str):
    pictures = [picture(index, 96, 64) for index in range(3)]
    source = make_video(tmp_path / "in.mkv", pictures, options={"crf": "0"}, pixel_format="yuv444p")
    info = copy(source, tmp_path / f"{codec}.mkv", scale=1, options=EncodeOptions(codec=codec))
    error = np.square(read_clip(info.path).astype(float) - np.stack(pictures)).mean()
    assert 10 * np.log10(255**2 / error) > 40


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (EncodeOptions(codec="libx999"), "libx264"),
        (EncodeOptions(codec="aac"), "not video"),
        (EncodeOptions(pixel_format="yuv999"), "no pixel format"),
        (EncodeOptions(pixel_format="gbrp"), "libx264 cannot store"),
        (EncodeOptions(crf=99), "CRF"),
        (EncodeOptions(codec="ffv1", crf=3), "CRF"),
        (EncodeOptions(preset="warp"), "libx264 refuses"),
        (EncodeOptions(codec="libx265"), "width of 64 px, not 48"),
    ],
)
def test_impossible_encoder_settings_are_refused(tmp_path: Path, options: EncodeOptions, match: str):
    source = make_video(tmp_path / "in.mp4", 2)
    with pytest.raises((ConfigError, OutputError), match=match):
        copy(source, tmp_path / "out.mp4", scale=1, options=options)
    assert_nothing_left(tmp_path, "in.mp4")


def test_an_odd_size_and_subsampled_colour_do_not_go_together(tmp_path: Path):
    with pytest.raises(ConfigError, match="even width, not 33"):
        VideoWriter(tmp_path / "out.mp4", 33, 32)
    with VideoWriter(tmp_path / "out.mp4", 33, 35, options=EncodeOptions(pixel_format="yuv444p")) as writer:
        source = make_video(tmp_path / "in.mp4", [picture(0, 33, 35)], pixel_format="yuv444p")
        with open_reader(source) as reader:
            writer.write(next(iter(reader)))
    assert probe(tmp_path / "out.mp4").width == 33


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_file_that_was_cut_off_gives_what_it_has_and_says_so(tmp_path: Path, ending: str):
    whole = tmp_path / f"whole.{ending}"
    with av.open(str(make_video(tmp_path / f"in.{ending}", 50, options={"crf": "4", "g": "10"}))) as container:
        muxer = {"movflags": "faststart"} if ending == "mp4" else {"cluster_time_limit": "200"}
        with av.open(str(whole), "w", options=muxer) as output:
            stream = output.add_stream_from_template(container.streams.video[0])
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    output.mux(packet)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    frames = []
    with VideoReader(cut) as reader, pytest.raises(DecodeError, match=r"at 0:0\d\.\d+.*cut off"):
        frames.extend(frame.pts for frame in reader)
    assert 5 < len(frames) < 45
    with VideoReader(whole) as reader:
        assert len(list(reader)) == 50


def test_bad_inputs_are_named(tmp_path: Path):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    text = tmp_path / "text.mp4"
    text.write_text("no video at all\n" * 50)
    header = tmp_path / "header.mp4"
    header.write_bytes(make_video(tmp_path / "in.mp4", 5).read_bytes()[:200])
    sound = make_video(tmp_path / "sound.mp4", audio_codec="aac", audio_seconds=0.2, video=False)
    small = make_video(tmp_path / "small.mp4", [picture(0, 48, 8)])
    for path, match in [
        (tmp_path / "missing.mp4", "does not exist"),
        (empty, "empty"),
        (text, "cannot be read"),
        (header, "no video|cannot be read"),
        (sound, "no video.*audio"),
        (small, "at least 16"),
    ]:
        with pytest.raises(InputError, match=match):
            open_reader(path)


def test_a_playlist_opens_nothing_else(tmp_path: Path):
    make_video(tmp_path / "in.ts", 5)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/in.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError):
        open_reader(playlist)


def test_outputs_are_guarded(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 3)
    there = tmp_path / "there.mp4"
    there.write_bytes(b"precious")
    for destination, match in [
        (there, "exists already"),
        (source, "is the input"),
        (tmp_path / "no" / "out.mp4", "does not exist"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(OutputError, match=match):
            copy(source, destination)
    with pytest.raises(ConfigError, match="container"):
        copy(source, tmp_path / "out.xyz")
    assert there.read_bytes() == b"precious"
    copy(source, there, overwrite=True)
    assert len(read_clip(there)) == 3
    assert_nothing_left(tmp_path, "in.mp4", "there.mp4")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException):
    source = make_video(tmp_path / "in.mp4", 10, audio_codec="aac", audio_seconds=0.4)
    (tmp_path / "out.mp4").write_bytes(b"precious")
    calls = 0

    def fail_later(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls > 4:
            raise error
        return original(*args, **kwargs)

    from skipvsr.video import write

    original = write.from_rgb
    monkeypatch.setattr(write, "from_rgb", fail_later)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="disk is full" if expected is OutputError else None):
        copy(source, tmp_path / "out.mp4", overwrite=True)
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"
    assert_nothing_left(tmp_path, "in.mp4", "out.mp4")


def test_parts_of_a_clip(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 8)
    whole = read_clip(source)
    assert whole.shape == (8, 32, 48, 3)
    assert np.array_equal(read_clip(source, start=3, frames=4), whole[3:7])
    with pytest.raises(InputError, match="only 8 frames"):
        read_clip(source, start=5, frames=4)


def test_an_avi_with_b_frames_is_read_in_order(tmp_path: Path):
    """AVI knows no presentation times; the frames come out in the order in which they are shown, a frame apart."""
    source = make_video(tmp_path / "in.avi", 12, time_base=Fraction(1, 25), options={"crf": "4", "bf": "2"})
    with VideoReader(source) as reader:
        frames = list(reader)
    assert len(frames) == 12
    assert np.diff([frame.pts for frame in frames]).tolist() == [1] * 11
    for index, frame in enumerate(frames):
        errors = [np.abs(frame.pixels.astype(int) - picture(other)).mean() for other in range(12)]
        assert int(np.argmin(errors)) == index
    copy(source, tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert [frame.seconds for frame in reader] == pytest.approx([index / 25 for index in range(12)], abs=0.05)


def test_times_that_repeat_or_are_missing_lose_no_frame():
    timeline = Timeline(Fraction(1, 1000))
    assert [timeline.place(pts, 40) for pts in (1000, 1040, 1040, 1030, None)] == [1000, 1040, 1041, 1042, 1082]
    assert timeline.place(1200, None) == 1200
    assert timeline.place(None, None) == 1318  # as long as the one before
    assert timeline.where() == "0:01.436"
    assert timeline.place(319, 40) == 1319
    assert timeline.place(319, 40) is None  # a second back


def test_times_that_jump_back_end_the_video(tmp_path: Path):
    """Two transport streams, one behind the other in one file."""
    parts = [make_video(tmp_path / f"{count}.ts", count, options={"crf": "4", "bf": "0"}) for count in (40, 5)]
    source = tmp_path / "both.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    with VideoReader(source) as reader:
        frames = iter(reader)
        assert len([next(frames) for _ in range(40)]) == 40
        with pytest.raises(DecodeError, match=r"jumps back in time at 0:01\.600"):
            next(frames)


def test_how_long_the_last_frame_is_shown_is_kept(tmp_path: Path):
    """In Matroska; MP4 takes the duration of the frame that is decoded last, which with B-frames is another."""
    times = [0, 512, 1024]
    frames = [Frame(picture(index), time, duration, Fraction(1, 12800)) for index, (time, duration) in
              enumerate(zip(times, (512, 512, 12800), strict=True))]  # fmt: skip
    path = tmp_path / "held.mkv"
    info = probe(make_video(tmp_path / "like.mp4", 2))
    with VideoWriter(path, info.width, info.height, source=info) as writer:
        for frame in frames:
            writer.write(frame)
    duration = probe(path).duration_seconds
    assert duration == pytest.approx(0.08 + 1.0, abs=0.02)


def test_sound_that_outlasts_the_frame_is_not_a_file_cut_off(tmp_path: Path):
    source = make_video(tmp_path / "in.flv", 10, audio_codec="aac", audio_seconds=5.0, time_base=Fraction(1, 1000))
    with VideoReader(source) as reader:
        assert len(list(reader)) == 10


def test_a_colon_in_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "in.mp4", 3).rename(tmp_path / "12:30.mp4")
    copy(Path("12:30.mp4"), Path("a:b.mp4"))
    with VideoReader(Path("a:b.mp4")) as reader:
        assert len(list(reader)) == 3


@pytest.mark.parametrize("ending", [".avi", ".m3u8", ".mpd", ".ts", ".png", ""])
def test_containers_that_would_lose_something_are_refused(tmp_path: Path, ending: str):
    info = probe(make_video(tmp_path / "in.mp4", 2))
    with pytest.raises(ConfigError, match=r"use \.mp4"):
        VideoWriter(tmp_path / f"out{ending}", info.width, info.height, source=info)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_lists_of_other_files_are_refused(tmp_path: Path):
    make_video(tmp_path / "in.mp4", 2)
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile in.mp4\n")
    with pytest.raises(InputError, match=r"playlist|cannot be read"):
        VideoReader(tmp_path / "list.txt")


def test_limited_grey_keeps_its_black_and_white(tmp_path: Path):
    luma = np.repeat(np.array([16, 126, 235], np.uint8), 16)[None].repeat(32, 0)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(luma), format="gray")
    frame.color_range = LIMITED
    colour = colour_of(frame)
    assert colour.range == LIMITED
    found = to_rgb(frame, colour)[0, [0, 16, 32]]
    assert np.abs(found.astype(int) - [[0] * 3, [128] * 3, [255] * 3]).max() <= 1


def covers(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
        return [bytes(packet) for packet in container.demux(streams) if packet.size] if streams else []


def attachments(path: Path) -> list[tuple[str | None, str | None, bytes]]:
    with av.open(str(path)) as container:
        return [(stream.name, stream.mimetype, stream.data) for stream in container.streams.attachments]


def test_attachments_and_covers_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_image(tmp_path / "cover.png", picture(3))
    art = (tmp_path / "cover.png").read_bytes()
    font = ("font.ttf", "application/x-truetype-font", b"glyphs" * 50)
    film = make_video(tmp_path / "film.mp4", 5, cover=tmp_path / "cover.png", audio_codec="aac", audio_seconds=0.2)
    show = make_video(tmp_path / "show.mkv", 5, attachments=[font, ("cover.png", "image/png", art)])
    assert (covers(film), covers(show), attachments(show)) == ([art], [art], [font])
    for source in (film, show):
        for ending in ("mp4", "mkv"):
            copy(source, tmp_path / f"out.{ending}", overwrite=True)
            assert covers(tmp_path / f"out.{ending}") == [art]
            assert len(times(tmp_path / f"out.{ending}")) == 5
    assert attachments(tmp_path / "out.mkv") == [font]
    assert caplog.messages == [
        "stream 1 of show.mkv (attachment) is left out: .mp4 files made here have no place for it"
    ]
    copy(film, tmp_path / "out.mov")
    assert "cover image) is left out: .mov" in caplog.messages[-1]


def test_a_second_video_stream_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = []
        for _ in range(2):
            stream = container.add_stream("libx264", rate=25)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            streams.append(stream)
        for stream in streams:
            for index in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index))))
            container.mux(stream.encode(None))
    assert copy(tmp_path / "two.mkv", tmp_path / "out.mkv").frame_count == 3
    assert caplog.messages == [
        "stream 1 of two.mkv (another video stream) is left out: .mkv files made here have no place for it"
    ]


def encoder_of(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


@pytest.mark.parametrize(
    ("ending", "pixel_format", "width", "expected"),
    [
        ("mp4", "yuv420p", 48, ("h264", "yuv420p")),
        ("mp4", "yuv422p10le", 128, ("hevc", "yuv420p10le")),
        ("mkv", "yuv420p10le", 20, ("h264", "yuv420p10le")),  # x265 takes no 40 px
        ("webm", "yuv420p", 48, ("vp9", "yuv420p")),
        ("webm", "yuv420p10le", 128, ("av1", "yuv420p10le")),
    ],
)
def test_the_encoder_follows_depth_and_container(
    tmp_path: Path, ending: str, pixel_format: str, width: int, expected: tuple[str, str]
):
    source = make_video(
        tmp_path / "in.mkv", [picture(0, width, 64)], codec="ffv1", pixel_format=pixel_format, options={"level": "3"}
    )
    info = copy(source, tmp_path / f"out.{ending}")
    assert (encoder_of(info.path).replace("libdav1d", "av1"), info.pixel_format) == expected


def test_ten_bit_ramps_keep_their_steps(tmp_path: Path):
    """A ramp of 1/1023 a pixel comes through decoding, the bypass and encoding within a code value of ten bits."""
    ramp = np.broadcast_to(np.arange(256)[None, :, None] * 64 * 2 + 16384, (64, 256, 3)).astype(np.uint16)
    source = make_video(
        tmp_path / "in.mkv", [ramp, ramp], codec="ffv1", pixel_format="yuv420p10le", options={"level": "3"}
    )
    copy(source, tmp_path / "out.mkv", options=EncodeOptions(crf=0))
    lumas = []
    for path in (source, tmp_path / "out.mkv"):
        with av.open(str(path)) as container:
            lumas.append(next(container.decode(video=0)).reformat(format="gray10le").to_ndarray().astype(int))
    assert len(np.unique(lumas[0])) > 200
    assert np.abs(lumas[1][::2, ::2] - lumas[0]).max() <= 1
