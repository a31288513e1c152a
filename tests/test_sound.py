"""Sound that is converted, and sound whose packets are copied from where they do not say all."""

from __future__ import annotations

import logging
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream

from skipvsr import upscale_video
from skipvsr.errors import ConfigError, DecodeError
from skipvsr.video.containers import CONTAINERS
from skipvsr.video.encode import EncodeOptions
from skipvsr.video.open import probe
from skipvsr.video.sound import CONVERSIONS, Audio
from tests.media import make_video, packets
from tests.test_cli import run
from tests.test_containers import assert_advice, outcomes

DATA = Path(__file__).parent / "data"
RATE = 48_000
# Of the sound in these tests: odd, so that nothing ends where a packet does.
SAMPLES = 30_011


def noise(count: int = SAMPLES, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise that codecs keep well, (channels, count) int16: each sample can be told from its neighbours."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=(channels, count)))
    spectrum[:, int(0.25 * spectrum.shape[1]) :] = 0
    wave = np.fft.irfft(spectrum, count)
    return (8000 * wave / np.abs(wave).max()).astype(np.int16)


def film(
    path: Path,
    sound: np.ndarray,
    *,
    codec: str = "pcm_s16le",
    begins: int = 0,
    gaps: dict[int, int] | None = None,
    layout: str = "mono",
    packet: int = 1000,
    together: int = 1,
    frames: int = 20,
) -> Path:
    """A film with this sound.

    Args:
        begins: samples after the picture.
        together: packets that share the time of the first.
        gaps: before the sample of this number, this many samples are missing (there are too many, if below 0).
    """
    silent = make_video(path.with_name(f"silent{path.suffix}"), frames)
    with av.open(str(silent)) as source, av.open(str(path), "w") as output:
        picture = output.add_stream_from_template(source.streams.video[0])
        stream = output.add_stream(codec, rate=RATE, layout=layout)
        assert isinstance(stream, AudioStream)
        stream.codec_context.format = kind = "s32" if sound.dtype == np.int32 else "s16"
        stream.metadata["language"] = "fra"
        for piece in source.demux():
            if piece.size:
                piece.stream = picture
                output.mux(piece)
        late = begins
        for first in range(0, sound.shape[1], packet):
            late += (gaps or {}).get(first, 0)
            part = np.ascontiguousarray(sound[:, first : first + packet].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(part, format=kind, layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = (
                RATE,
                first // (together * packet) * (together * packet) + late,
                Fraction(1, RATE),
            )
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    silent.unlink()
    return path


def heard(path: Path, number: int = 0) -> tuple[float, np.ndarray]:
    """When sound begins, in seconds, and its samples, (channels, count), as fractions of what there is room for."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.audio[number]))
    assert frames[0].pts is not None
    assert frames[0].time_base is not None
    channels = frames[0].layout.nb_channels
    parts = [frame.to_ndarray() for frame in frames]
    parts = [part if len(part) == channels and channels > 1 else part.reshape(-1, channels).T for part in parts]
    scale = {"s16": 2**15, "s16p": 2**15, "s32": 2**31, "s32p": 2**31}.get(frames[0].format.name, 1)
    return float(frames[0].pts * frames[0].time_base), np.concatenate(parts, axis=1) / scale


def convert(source: Path, ending: str, audio: Audio, **options: Any) -> Path:
    """Upscale, with the sound converted."""
    destination = source.with_name(f"out-{audio}{ending}")
    upscale_video(source, destination, "bicubic", encoding=EncodeOptions(audio=audio), **options)
    return destination


def test_flac_keeps_every_sample(tmp_path: Path):
    sound = noise(channels=2)
    source = film(tmp_path / "in.avi", sound, codec="pcm_s16le", layout="stereo")
    for ending in (".mkv", ".mp4"):
        begins, samples = heard(convert(source, ending, "flac"))
        assert begins == 0
        assert np.array_equal(np.round(samples * 2**15).astype(np.int16), sound)


def test_flac_keeps_24_bits(tmp_path: Path):
    sound = noise(channels=2).astype(np.int32) * 65_000 // 256 * 256
    source = film(tmp_path / "in.mov", sound, codec="pcm_s24le", layout="stereo")
    result = convert(source, ".mkv", "flac")
    with av.open(str(result)) as container:
        assert container.streams.audio[0].codec_context.format.name == "s32"
    assert np.array_equal(heard(result)[1] * 2**31, sound)


@pytest.mark.parametrize("begins", [0, 5040])
@pytest.mark.parametrize(
    ("audio", "ending"),
    [("aac", ".mp4"), ("aac", ".mov"), ("aac", ".mkv"), ("opus", ".mp4"), ("opus", ".mkv"), ("opus", ".webm")],
)
def test_sound_stands_where_it_stood_to_the_sample(tmp_path: Path, audio: Audio, ending: str, begins: int):
    sound = noise()
    source = film(tmp_path / "in.mov", sound, codec="pcm_mulaw", begins=begins)
    when, samples = heard(convert(source, ending, audio))
    original = sound[0] / 2**15
    shift = best_shift(samples[0], original)
    if ending in (".mp4", ".mov"):
        # What the encoder puts before a late start is not hidden.
        assert round(when * RATE) + shift == begins
    else:
        # Matroska counts milliseconds.
        assert (shift, samples.shape[1]) == (0, SAMPLES)
        assert when == pytest.approx(begins / RATE, abs=1.1e-3)
    error = samples[0, shift : shift + SAMPLES] - original
    assert np.mean(error[2000:-2000] ** 2) < 0.1 * np.mean(original**2)


def best_shift(samples: np.ndarray, reference: np.ndarray) -> int:
    """How many samples come before the reference, found by correlation."""
    count = len(samples) + len(reference)
    product = np.fft.irfft(np.fft.rfft(samples, count) * np.conj(np.fft.rfft(reference, count)), count)
    shift = int(np.argmax(product))
    return shift if shift <= count // 2 else shift - count


def test_mp4_says_how_long_converted_sound_is(tmp_path: Path):
    """Players stop there: what an encoder adds at the end is not played."""
    result = convert(film(tmp_path / "in.mkv", noise()), ".mp4", "aac")
    with av.open(str(result)) as container:
        stream = container.streams.audio[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base * RATE == SAMPLES


def test_gaps_are_silence_and_what_overlaps_is_left_out(tmp_path: Path):
    sound = noise()
    source = film(tmp_path / "in.mkv", sound, gaps={4800: 7008, 19_200: -3984}, packet=4800)
    begins, samples = heard(convert(source, ".mkv", "flac"))
    assert begins == 0
    expected = np.concatenate(
        [sound[:, :4800], np.zeros((1, 7008), np.int16), sound[:, 4800:19_200], sound[:, 19_200 + 3984 :]], axis=1
    )
    assert np.array_equal(np.round(samples * 2**15).astype(np.int16), expected)


def test_times_that_are_rounded_leave_sound_as_it_is(tmp_path: Path):
    """Matroska's milliseconds: 1000 samples are 20.83 of them."""
    sound = noise()
    source = film(tmp_path / "in.mkv", sound)
    assert np.array_equal(np.round(heard(convert(source, ".mkv", "flac"))[1] * 2**15).astype(np.int16), sound)


def test_packets_that_share_a_time_follow_one_another(tmp_path: Path):
    """As in RealMedia: here five of a fiftieth of a second."""
    sound = noise()
    source = film(tmp_path / "in.mkv", sound, packet=960, together=5)
    assert np.array_equal(np.round(heard(convert(source, ".mkv", "flac"))[1] * 2**15).astype(np.int16), sound)


def test_a_part_has_its_sound_to_the_sample(tmp_path: Path):
    sound = noise()
    source = film(tmp_path / "in.mov", sound)
    begins, samples = heard(convert(source, ".mkv", "flac", start=0.2, end=0.52))
    first, last = round(0.2 * RATE), round(0.52 * RATE)
    assert begins == 0
    assert np.array_equal(np.round(samples * 2**15).astype(np.int16), sound[:, first:last])


def test_what_is_that_already_is_copied(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 10, audio_codec="aac", audio_seconds=0.4)
    assert packets(convert(source, ".mp4", "aac"), "audio") == packets(source, "audio")


def test_converted_sound_keeps_its_language(tmp_path: Path):
    result = convert(film(tmp_path / "in.mkv", noise()), ".mkv", "opus")
    with av.open(str(result)) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.metadata["language"]) == ("opus", "fra")


@pytest.mark.parametrize("audio", CONVERSIONS)
def test_channels_stay_where_they_are(tmp_path: Path, audio: Audio):
    sound = np.zeros((6, SAMPLES), np.int16)
    sound[5] = noise()[0]
    _, samples = heard(convert(film(tmp_path / "in.mov", sound, layout="5.1(side)"), ".mp4", audio))
    assert samples.shape[0] == 6
    energy = np.mean(samples**2, axis=1)
    assert energy[5] > 1000 * energy[:5].max()


def test_other_sample_rates(tmp_path: Path):
    """Opus has 48 kHz and AAC at most 96: the same time at another rate."""
    source = make_video(tmp_path / "in.mkv", 10)
    with av.open(str(source)) as picture, av.open(str(tmp_path / "fast.mov"), "w") as output:
        video = output.add_stream_from_template(picture.streams.video[0])
        stream = output.add_stream("pcm_s16le", rate=192_000, layout="mono")
        assert isinstance(stream, AudioStream)
        for piece in picture.demux():
            if piece.size:
                piece.stream = video
                output.mux(piece)
        tone = (9000 * np.sin(2 * np.pi * 440 / 192_000 * np.arange(76_800))).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 192_000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    rates: dict[Audio, int] = {"opus": 48_000, "aac": 96_000, "flac": 192_000}
    for audio, rate in rates.items():
        result = convert(tmp_path / "fast.mov", ".mkv", audio)
        with av.open(str(result)) as container:
            assert container.streams.audio[0].codec_context.sample_rate == rate
        assert abs(heard(result)[1].shape[1] / rate - 0.4) <= 1 / rate


def test_no_sound_if_none_is_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = make_video(tmp_path / "in.mov", 10, audio_codec="pcm_mulaw", audio_seconds=0.4)
    with caplog.at_level(logging.WARNING, "skipvsr"):
        info = probe(convert(source, ".webm", "none"))
    assert (info.audio_streams, info.frame_count, caplog.text) == (0, 10, "")


def test_sound_that_does_not_decode_becomes_silence_and_is_named(tmp_path: Path):
    source = make_video(tmp_path / "in.mkv", 10, audio_codec="flac", audio_seconds=0.4)
    whole = heard(source)[1]
    contents = source.read_bytes()
    second = packets(source, "audio")[1][1]
    assert contents.count(second) == 1
    source.write_bytes(contents.replace(second, bytes(len(second))))
    with pytest.raises(DecodeError, match="a packet of its sound could not be decoded and became silence, at 0:00"):
        convert(source, ".mp4", "aac")
    samples = heard(tmp_path / "out-aac.mp4")[1]
    assert np.abs(samples[0, 4608 + 1024 : 2 * 4608 - 1024]).max() < 0.01
    assert np.abs(samples[0, 2 * 4608 + 2048 : 3 * 4608] - whole[0, 2 * 4608 + 2048 : 3 * 4608]).max() < 0.02


CONVERTED = {"aac": "mp4 m4v mov mkv", "opus": "mp4 m4v mkv webm", "flac": "mp4 m4v mkv", "none": " ".join(CONTAINERS)}


@pytest.mark.parametrize("audio", CONVERTED)
def test_conversions_and_containers(tmp_path: Path, audio: Audio):
    """Where it cannot be, it is refused before the start, by a dry run too."""
    picture: dict[str, Any] = {"codec": "mpeg4", "options": {"qscale": "3"}, "time_base": Fraction(1, 25)}
    source = make_video(tmp_path / "in.avi", 2, audio_codec="adpcm_ms", audio_seconds=0.3, **picture)
    found = outcomes(source, audio=audio)
    allowed = [ending for ending, error in found.items() if error is None]
    assert sorted(allowed) == sorted(f".{word.strip('.')}" for word in CONVERTED[audio].split())
    assert all("convert its sound with --audio" in str(error) for error in found.values() if error is not None)
    assert_advice(found)


def test_a_way_out_where_no_container_holds_both(tmp_path: Path):
    """Text subtitles want Matroska, this sound does not go there as it is."""
    source = tmp_path / "in.mkv"
    shutil.copy(DATA / "adpcm-and-subtitle.mkv", source)
    found = outcomes(source)
    assert str(found.pop(".mkv")).endswith("convert its sound with --audio aac (or opus, flac)")
    assert all(str(error).endswith("write to out.mkv instead, with --audio aac") for error in found.values())
    upscale_video(source, tmp_path / "out.mkv", "bicubic", encoding=EncodeOptions(audio="aac"))
    assert probe(tmp_path / "out.mkv").subtitle_streams == 1


def test_a_word_for_sound_that_there_is_not():
    with pytest.raises(ConfigError, match="sound is to be 'mp3'; choose one of copy, aac, opus, flac, none"):
        EncodeOptions(audio="mp3")  # pyright: ignore[reportArgumentType] - that is the test


def test_the_command_line_converts_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = make_video(tmp_path / "in.mov", 3, audio_codec="pcm_mulaw", audio_seconds=0.1)
    assert run("upscale", source, tmp_path / "out.mp4", "--model", "bicubic") == 1
    assert "convert its sound with --audio aac (or opus, flac), or write to out.mov instead" in capsys.readouterr().err
    assert run("upscale", source, tmp_path / "out.mp4", "--model", "bicubic", "--audio", "aac") == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_packets_that_share_a_millisecond_stay_there(tmp_path: Path):
    """TrueHD in Matroska has six packets in five milliseconds. Moved on by one each, sound becomes a fifth longer."""
    source = film(tmp_path / "in.mkv", noise(), packet=40)
    times = [time for time, _ in packets(source, "audio")]
    assert len(set(times)) < len(times)
    upscale_video(source, tmp_path / "out.mkv", "bicubic")
    assert packets(tmp_path / "out.mkv", "audio") == packets(source, "audio")


def test_the_last_packet_of_sound_is_played_where_packets_do_not_say_how_long_they_are(tmp_path: Path):
    source = DATA / "speex.flv"
    upscale_video(source, tmp_path / "out.mov", "bicubic")
    copied = packets(tmp_path / "out.mov", "audio")
    assert [part for _, part in copied] == [part for _, part in packets(source, "audio")]


def test_a_subtitle_without_an_end(tmp_path: Path):
    source = DATA / "subtitle-without-end.mkv"
    upscale_video(source, tmp_path / "out.mp4", "bicubic")
    assert packets(tmp_path / "out.mp4", "subtitle")[0][1] == packets(source, "subtitle")[0][1]


def test_the_frame_rate_of_raw_dv(tmp_path: Path):
    pictures = [np.full((576, 720, 3), 40 * index, np.uint8) for index in range(3)]
    film = make_video(tmp_path / "in.avi", pictures, codec="dvvideo", options={}, time_base=Fraction(1, 25))
    source = tmp_path / "in.dv"
    source.write_bytes(b"".join(part for _, part in packets(film, "video")))
    info = probe(source)
    assert (info.frame_rate, info.frame_count) == (25, 3)
