"""Time: parts of a video, times that are late, negative or irregular, and interlaced frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from skipvsr import upscale_video
from skipvsr.cli.main import main
from skipvsr.errors import ConfigError, InputError
from skipvsr.video.frame import Frame
from skipvsr.video.open import open_reader, probe
from skipvsr.video.read import VideoReader
from skipvsr.video.timeline import Timeline
from tests.media import make_video, packets, picture, times

GROUPS = {"crf": "4", "g": "8", "bf": "2"}
SECONDS_A_FRAME = Fraction(1, 25)


def read(path: Path, *args, **kwargs) -> list[Frame]:
    with VideoReader(path, *args, **kwargs) as reader:
        return list(reader)


def make_long(folder: Path, ending: str, **settings) -> Path:
    base = Fraction(1, 25) if ending == "avi" else Fraction(1, 12800)
    return make_video(folder / f"in.{ending}", 40, time_base=base, options=settings.pop("options", GROUPS), **settings)


def interlaced(count: int) -> list[np.ndarray]:
    """Pictures of which every second line is from another time."""
    woven = []
    for index in range(count):
        frame = picture(4 * index, 64, 48)
        frame[1::2] = picture(4 * index + 12, 64, 48)[1::2]
        woven.append(frame)
    return woven


INTERLACED = {"crf": "1", "x264-params": "bff=1"}


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize(
    ("start", "end"), [(None, 0.6), (0.6, 1.0), (0.64, None), (0.03, 0.05), (0.61, 1.01), (1.5, 9)]
)
def test_a_part_is_exactly_what_the_whole_has_at_that_time(
    tmp_path: Path, ending: str, start: float | None, end: float | None
):
    source = make_long(tmp_path, ending)
    whole = read(source)
    first = whole[0].pts * whole[0].time_base
    # Transport streams begin late; a part is of the file's own clock.
    begin = None if start is None else start + float(round(first, 3))
    stop = None if end is None else end + float(round(first, 3))
    low = Fraction(str(begin)) if begin is not None else Fraction(0)
    high = Fraction(str(stop)) if stop is not None else Fraction(1000)
    expected = [frame for frame in whole if low <= frame.pts * frame.time_base < high]
    assert 0 < len(expected) < len(whole)
    with VideoReader(source, begin, stop) as reader:
        part, info = list(reader), reader.info
    shift = -int(-low // info.time_base) if begin is not None else 0
    assert [frame.pts for frame in part] == [frame.pts - shift for frame in expected]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(part, expected, strict=True))
    assert info.start_seconds == float(shift * info.time_base)
    assert info.end_seconds == (None if stop is None else pytest.approx(stop))
    assert info.frame_count is not None
    assert abs(info.frame_count - len(part)) <= 1


def test_a_part_that_starts_between_two_units_starts_at_the_next(tmp_path: Path):
    source = make_long(tmp_path, "mkv")
    with VideoReader(source, 0.0405, 0.2) as reader:
        assert [frame.pts for frame in reader] == [39, 79, 119]
        assert reader.info.start_seconds == 0.041
        assert reader.info.duration_seconds == pytest.approx(0.159)


def test_a_part_begins_in_the_file_and_not_far_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = make_long(tmp_path, "mp4")
    placed: list[int | None] = []
    place = Timeline.place

    def note(self: Timeline, pts: int | None, duration: int | None) -> int | None:
        placed.append(pts)
        return place(self, pts, duration)

    monkeypatch.setattr(Timeline, "place", note)
    with VideoReader(source, 1.32) as reader:
        assert len(list(reader)) == 7
    assert placed[0] == 32 * 512


def test_frames_that_lean_on_those_before_a_key_frame_are_right_in_a_part(tmp_path: Path):
    """Open groups: after a key frame come frames that are shown before it and need the group before."""
    source = make_long(tmp_path, "mkv", options={**GROUPS, "flags": "-cgop", "x264-params": "open-gop=1"})
    whole = read(source)
    for start in range(1, 40, 3):
        part = read(source, float(start * SECONDS_A_FRAME))
        assert len(part) == 40 - start
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(part, whole[start:], strict=True))


def test_the_last_frame_of_a_part_is_not_shown_beyond_it(tmp_path: Path):
    source = make_video(tmp_path / "in.mkv", 3, times=[0, 512, 12800], options={"crf": "4", "bf": "0"})
    (first, second) = read(source, end=0.05)
    assert first.pts == 0
    assert second.pts == 40
    assert second.duration is not None
    assert second.duration == 10


@pytest.mark.parametrize(("start", "end"), [(5.0, None), (None, -1.0), (0.041, 0.079)])
def test_a_part_without_a_frame_is_refused(tmp_path: Path, start: float | None, end: float | None):
    source = make_video(tmp_path / "in.mp4", 6)
    with pytest.raises(InputError, match=r"in\.mp4 has no frame .*(from|before) -?\d:\d\d\.\d+.*choose another part"):
        VideoReader(source, start, end)


@pytest.mark.parametrize(("start", "end"), [(2.0, 1.0), (1.0, 1.0), (float("nan"), None), (None, float("inf"))])
def test_a_part_that_is_none_is_refused(tmp_path: Path, start: float | None, end: float | None):
    with pytest.raises(ConfigError, match=r"end must be later|number of seconds"):
        VideoReader(make_video(tmp_path / "in.mp4", 2), start, end)


def test_a_folder_has_no_parts(tmp_path: Path):
    with pytest.raises(ConfigError, match="folder of images"):
        open_reader(tmp_path, 1.0)


def test_the_command_line_takes_times_in_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = make_long(tmp_path, "mp4")
    for number, (start, end) in enumerate([("0.4", "0.8"), ("0:00.4", "0:00:00.800")]):
        out = tmp_path / f"{number}.mp4"
        arguments = ["upscale", str(source), str(out), "--model", "bicubic", "--start", start, "--end", end, "--quiet"]
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert times(out) == [index * SECONDS_A_FRAME for index in range(10)]
    with pytest.raises(SystemExit) as caught:
        main(["upscale", str(source), str(tmp_path / "3.mp4"), "--start", "1h"])
    assert caught.value.code == 2
    assert "'1h' is no time" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "flv", "mov"])
@pytest.mark.parametrize("first", [0, 90_000, 3])
def test_irregular_and_late_times_are_read_as_they_are(tmp_path: Path, ending: str, first: int):
    base = Fraction(1, 1000)
    irregular = [first + time for time in (0, 40, 170, 171, 500, 900, 930, 2000)]
    source = make_video(tmp_path / f"in.{ending}", 8, times=irregular, time_base=base, options=GROUPS)
    found = [frame.pts * frame.time_base for frame in read(source)]
    assert found == times(source)
    # Those who write transport streams and FLV begin at a time of their own.
    start = found[0] - irregular[0] * base if ending in {"ts", "flv"} else 0
    assert [time - start for time in found] == [time * base for time in irregular]


def test_negative_times_are_read_and_cut_as_they_are(tmp_path: Path):
    """Only MP4 without an edit list and Matroska that another program wrote can hold them."""
    source = tmp_path / "in.mp4"
    with av.open(str(make_video(tmp_path / "zero.mp4", 10, options=GROUPS))) as container:
        muxer = {"avoid_negative_ts": "disabled", "use_editlist": "0"}
        with av.open(str(source), "w", options=muxer) as output:
            stream = output.add_stream_from_template(container.streams.video[0])
            for packet in container.demux(video=0):
                if packet.size:
                    packet.pts, packet.dts = (packet.pts or 0) - 2048, (packet.dts or 0) - 2048
                    packet.stream = stream
                    output.mux(packet)
    found = [frame.pts for frame in read(source)]
    assert found == [time / Fraction(1, 12800) for time in times(source)]
    assert np.diff(found).tolist() == [512] * 9
    from_zero = read(source, 0.0)
    assert [frame.pts for frame in from_zero] == [pts for pts in found if pts >= 0]


def moved(source: Path, destination: Path, seconds: Fraction) -> Path:
    """The same packets, later."""
    with (
        av.open(str(source)) as container,
        av.open(str(destination), "w", options={"avoid_negative_ts": "0"}) as output,
    ):
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.size:
                shift = round(seconds / packet.time_base)
                packet.pts, packet.dts = (packet.pts or 0) + shift, (packet.dts or 0) + shift
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return destination


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_a_video_from_before_zero_is_moved_whole(tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture):
    """A player shows nothing before 0: all streams move by the same time, and no frame and no sound goes."""
    whole = make_video(
        tmp_path / "whole.mp4", 20, options={"crf": "4", "bf": "0"}, audio_codec="aac", audio_seconds=1.0
    )
    source = moved(whole, tmp_path / "in.ts", -Fraction(4, 25))
    assert times(source)[0] == -Fraction(4, 25)
    destination = tmp_path / f"out.{ending}"
    assert upscale_video(source, destination, "bicubic").frames == 20
    assert times(destination) == [Fraction(index, 25) for index in range(20)]
    # The packet that only prepares the decoder, before zero, is nowhere but in MP4.
    assert [part for _, part in packets(destination, "audio")] == [
        part for when, part in packets(whole, "audio") if when >= 0 or ending != "mkv"
    ]
    late = [when - Fraction(4, 25) for when, _ in packets(destination, "audio")]
    assert all(
        abs(one - two) < Fraction(1, 1000)
        for one, two in zip(late[::-1], [when for when, _ in packets(source, "audio")][::-1], strict=False)
    )
    assert caplog.messages == ["the first frame is at -0:00.160; everything is moved on by so much, to start at 0"]


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_a_late_start_between_two_milliseconds_is_kept(tmp_path: Path, ending: str):
    late = [129_751 + 3000 * index for index in range(5)]
    source = make_video(tmp_path / "in.ts", 5, times=late, time_base=Fraction(1, 90_000))
    assert (times(source)[0] * 1000).denominator > 1
    upscale_video(source, tmp_path / f"out.{ending}", "bicubic")
    assert times(tmp_path / f"out.{ending}") == times(source)


def test_sound_from_before_zero_moves_everything_and_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Matroska holds nothing before zero: a packet of sound that is half before it is not cut, and no stream moves alone."""
    whole = make_video(tmp_path / "whole.mp4", 20, audio_codec="aac", audio_seconds=0.8)
    source = moved(whole, tmp_path / "in.ts", Fraction(1, 100))
    first = packets(source, "audio")[0][0]
    assert -Fraction(12, 1000) < first < -Fraction(11, 1000)
    upscale_video(source, tmp_path / "out.mkv", "bicubic")
    assert caplog.messages == ["the first sound is at -0:00.011; everything is moved on by so much, to start at 0"]
    sound = packets(tmp_path / "out.mkv", "audio")
    assert len(sound) == len(packets(source, "audio"))
    assert sound[0][0] == 0
    shifts = [after - before for before, after in zip(times(source), times(tmp_path / "out.mkv"), strict=True)]
    assert all(abs(shift + first) <= Fraction(1, 1000) for shift in shifts)
    caplog.clear()
    upscale_video(source, tmp_path / "out.mp4", "bicubic")
    assert not caplog.messages
    assert times(tmp_path / "out.mp4") == times(source)


def test_frames_of_matroska_before_zero_have_their_times(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """FFmpeg drops the times of a picture that lie before zero, and keeps those of sound."""
    whole = make_video(tmp_path / "whole.mp4", 20, audio_codec="aac", audio_seconds=0.8)
    source = moved(whole, tmp_path / "in.mkv", -Fraction(1, 2))
    assert [frame.seconds for frame in read(source)] == pytest.approx(
        [index / 25 - 0.5 for index in range(20)], abs=0.002
    )
    upscale_video(source, tmp_path / "out.mp4", "bicubic")
    assert times(tmp_path / "out.mp4") == [Fraction(index, 25) for index in range(20)]
    assert caplog.messages == ["the first frame is at -0:00.500; everything is moved on by so much, to start at 0"]
    assert min(packets(tmp_path / "out.mp4", "audio"))[0] == pytest.approx(-0.021, abs=0.002)


def test_frames_are_shown_until_the_next_one(tmp_path: Path):
    """MP4 says how far apart frames are decoded; with B-frames that is not how long they are shown."""
    irregular = [0, 400, 1700, 1717, 5000, 9000, 9300, 20000]
    source = make_video(tmp_path / "in.mp4", 8, times=irregular, time_base=Fraction(1, 10000), options=GROUPS)
    assert shown(source) != pytest.approx(np.diff(irregular) / 10000, abs=0.002)
    upscale_video(source, tmp_path / "out.mkv", "bicubic")
    assert shown(tmp_path / "out.mkv") == pytest.approx(np.diff(irregular) / 10000, abs=0.0011)


def shown(path: Path) -> list[float]:
    """How long each frame but the last is shown, as the file says."""
    with VideoReader(path) as reader:
        return [float((frame.duration or 0) * frame.time_base) for frame in reader][:-1]


@pytest.mark.parametrize(("before", "after"), [("mp4", "mp4"), ("mp4", "mkv"), ("mkv", "mkv"), ("mkv", "mov")])
def test_sound_is_in_time_after_three_hours(tmp_path: Path, before: str, after: str):
    """Frames of 29.97 Hz, sound of 48 kHz, times in other units on either side: nothing drifts."""
    hours, short = 3, make_video(tmp_path / "short.mkv", 2, audio_codec="aac", audio_seconds=2)
    base, source = Fraction(1, 30000), tmp_path / f"in.{before}"
    make_video(tmp_path / f"picture.{before}", 36, times=[hours * 1001 * 2997 * n for n in range(36)], time_base=base)
    with (
        av.open(str(tmp_path / f"picture.{before}")) as picture_file,
        av.open(str(short)) as sound_file,
        av.open(str(source), "w") as output,
    ):
        video = output.add_stream_from_template(picture_file.streams.video[0])
        audio = output.add_stream_from_template(sound_file.streams.audio[0])
        for packet in picture_file.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        frames = [packet for packet in sound_file.demux(audio=0) if packet.size]
        for number in range(0, hours * 3600 * 48000 // 1024, 97):
            packet = av.Packet(bytes(frames[number % len(frames)]))
            packet.stream, packet.time_base = audio, Fraction(1, 48000)
            packet.pts = packet.dts = 1024 * number
            output.mux(packet)
    destination = tmp_path / f"out.{after}"
    upscale_video(source, destination, "bicubic", scene_detection=False)
    for kind in ("video", "audio"):
        old, new = packets(source, kind), packets(destination, kind)
        assert max(old)[0] > 3600 * hours - 400
        if kind == "audio":
            assert [part for _, part in new] == [part for _, part in old]
        old_times, new_times = (sorted(when for when, _ in each) for each in (old, new))
        assert max(abs(one - two) for one, two in zip(old_times, new_times, strict=True)) < Fraction(1, 1000)


def test_an_edit_list_hides_what_it_hides(tmp_path: Path):
    """A cut without re-encoding: the packets before the cut are there, and are not shown."""
    source = tmp_path / "in.mp4"
    whole = make_video(tmp_path / "whole.mp4", 12, options={"crf": "4", "bf": "0", "g": "30"})
    with av.open(str(whole)) as container, av.open(str(source), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = (packet.pts or 0) - 3 * 512, (packet.dts or 0) - 3 * 512
                packet.stream = stream
                output.mux(packet)
    found = read(source)
    assert [frame.pts * frame.time_base for frame in found] == times(source)
    assert len(found) == len(times(source)) < 12
    assert np.array_equal(found[0].pixels, read(whole)[3].pixels)


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "libx264"), ("ts", "mpeg2video"), ("mp4", "libx264")])
def test_a_part_of_a_video_goes_out_from_zero(tmp_path: Path, ending: str, codec: str):
    options = GROUPS if codec == "libx264" else {"g": "8", "bf": "2", "b": "1M"}
    base = Fraction(1, 25) if codec == "mpeg2video" else Fraction(1, 12800)
    source = make_video(tmp_path / f"in.{ending}", 30, codec=codec, options=options, time_base=base)
    first = times(source)[0]
    upscale_video(source, tmp_path / "out.mp4", "bicubic", start=float(first) + 0.4, end=float(first) + 0.8)
    assert times(tmp_path / "out.mp4") == pytest.approx([index / 25 for index in range(10)], abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_interlaced_frames_become_whole_ones_each_at_its_time(
    tmp_path: Path, count: int, caplog: pytest.LogCaptureFixture
):
    source = make_video(tmp_path / "in.mkv", interlaced(count), options=INTERLACED)
    assert probe(source).interlaced
    caplog.clear()
    whole = read(source)
    notices = caplog.messages
    woven = read(source, deinterlace=False)
    assert [frame.pts for frame in whole] == [frame.pts for frame in woven]
    assert [frame.duration for frame in whole] == [frame.duration for frame in woven]
    assert len(whole) == count
    assert len(notices) == 1
    assert "interlaced" in notices[0]

    def comb(frame: Frame) -> float:
        lines = frame.pixels.astype(float)
        return np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean()

    for whole_frame, woven_frame, index in zip(whole, woven, range(count), strict=True):
        # One frame alone says nothing about motion; bwdif leaves it.
        assert comb(whole_frame) < comb(woven_frame) / 4 or count == 1
        # It is this frame and no other: the lines of its first field are still there.
        field = whole_frame.pixels[1::2].astype(int)
        errors = [np.abs(field - picture(4 * k + 12, 64, 48)[1::2]).mean() for k in range(count)]
        assert int(np.argmin(errors)) == index


def test_frames_become_interlaced_midway(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The frames before are untouched, and there is one notice."""
    source = tmp_path / "in.h264"
    plain = make_video(tmp_path / "plain.h264", [picture(k, 64, 48) for k in range(5)], options={"crf": "1"})
    woven = make_video(tmp_path / "woven.h264", interlaced(5), options=INTERLACED)
    source.write_bytes(plain.read_bytes() + woven.read_bytes())
    found = read(source)
    notices = list(caplog.messages)
    as_it_is = read(source, deinterlace=False)
    assert not probe(source).interlaced
    assert len(found) == len(as_it_is) == 10
    assert len(notices) == 1
    same = [np.array_equal(a.pixels, b.pixels) for a, b in zip(found, as_it_is, strict=True)]
    assert same == [True] * 5 + [False] * 5
    assert [frame.pts for frame in found] == [frame.pts for frame in as_it_is]


def test_progressive_frames_are_not_touched(tmp_path: Path):
    source = make_video(tmp_path / "in.mkv", 6)
    assert not probe(source).interlaced
    pairs = zip(read(source), read(source, deinterlace=False), strict=True)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in pairs)


def test_the_command_line_says_that_it_deinterlaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = make_video(tmp_path / "in.mkv", interlaced(3), options=INTERLACED)
    said = []
    for number, more in enumerate(([], ["--no-deinterlace"], ["--quiet"], ["--json"])):
        with pytest.raises(SystemExit) as caught:
            main(["upscale", str(source), str(tmp_path / f"{number}.mkv"), "--model", "bicubic", *more])
        assert caught.value.code == 0
        captured = capsys.readouterr()
        said.append([captured.err.count("is interlaced"), captured.out.count('"event": "notice"')])
    assert said == [[1, 0], [0, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_subtitles_and_chapters_of_a_part_stay_in_time(tmp_path: Path, ending: str):
    source = make_video(
        tmp_path / "in.mkv",
        100,
        audio_codec="aac",
        audio_seconds=4.0,
        subtitles=[(0, "before"), (1, "on"), (3, "after")],
    )
    destination = tmp_path / f"out.{ending}"
    if ending == "mp4":
        source = make_video(tmp_path / "in.mp4", 100, audio_codec="aac", audio_seconds=4.0)
    upscale_video(source, destination, "bicubic", start=1.2, end=2.6)
    assert times(destination) == [Fraction(index, 25) for index in range(35)]
    sound = {contents: time for time, contents in packets(source, "audio")}
    kept = packets(destination, "audio")
    assert len(kept) > 60
    offsets = {time - sound[contents] for time, contents in kept}
    assert all(abs(offset + Fraction(12, 10)) <= Fraction(1, 1000) for offset in offsets)
    assert min(sound[contents] for _, contents in kept) < Fraction(1222, 1000)
    assert max(sound[contents] for _, contents in kept) >= Fraction(2578, 1000)
    if ending == "mkv":
        # "on" is shown from 1.0 to 1.8 s.
        assert [(time, text) for time, text in packets(destination, "subtitle")] == [(Fraction(0), b"on")]
