"""Sound that is converted: decoded, put on the output's clock sample by sample, and encoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet, PacketSideData, PktSideDataT
from av.stream import Stream

from skipvsr.video.clock import clock

Audio = Literal["copy", "aac", "opus", "flac", "none"]
# Of each kind: FFmpeg's name of the encoder, and bits a second for each channel (None: lossless).
_ENCODERS: dict[Audio, tuple[str, int | None]] = {
    "aac": ("aac", 96_000),
    "opus": ("libopus", 80_000),
    "flac": ("flac", None),
}
CONVERSIONS: tuple[Audio, ...] = tuple(_ENCODERS)
# Layouts that encoders know under the name of loudspeakers a little further back.
_LAYOUTS = {"5.0(side)": "5.0", "5.1(side)": "5.1"}
_LAYOUT_OF_CHANNELS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1")
# Times that are further from where the samples before them end are believed, nearer ones are taken for rounding.
_TOLERANCE_SECONDS = Fraction(1, 20)
# Further ones are no times.
_MAX_GAP_SECONDS = 24 * 3600
_BYTES_OF_16_BITS = 2
# Samples left out at the start and at the end, and why, as FFmpeg has it (AV_PKT_DATA_SKIP_SAMPLES).
_SKIP_SAMPLES = struct.Struct("<IIBB")


@dataclass(frozen=True)
class Kept:
    """What becomes of sound and subtitles.

    Args:
        audio: "copy", one of `CONVERSIONS`, or "none".
        subtitles: False: left out.
    """

    audio: Audio = "copy"
    subtitles: bool = True

    def has(self, stream: Stream) -> bool:
        """Whether a stream is sound or subtitles, and comes along."""
        return (stream.type == "audio" and self.audio != "none") or (stream.type == "subtitle" and self.subtitles)


def needs_conversion(stream: AudioStream, audio: Audio) -> bool:
    """Whether a stream has to be converted to be what is asked for; where it is that already, it is copied."""
    return audio in _ENCODERS and (
        stream.codec_context is None or stream.codec_context.codec.canonical_name.lower() != audio
    )


class SoundConverter:
    """Makes packets of another codec of those of a stream of sound.

    The first sample is at the source's time, to the sample; samples follow one another without a gap: silence stands where the
    source has nothing or where it could not be decoded, and what overlaps is left out. Samples before 0 are left out.

    Args:
        output: gets another stream.
        source: the stream.
        audio: what it becomes, one of `CONVERSIONS`.
        end: seconds, on the output's clock without the delay, behind which nothing is taken; None: to the end.

    Raises:
        ValueError, FFmpegError: the container has no place for it, or the source cannot be decoded.
    """

    def __init__(self, output: OutputContainer, source: AudioStream, audio: Audio, end: Fraction | None = None) -> None:
        codec, bits_per_channel = _ENCODERS[audio]
        if source.codec_context is None or not source.codec_context.sample_rate:
            raise ValueError("it cannot be decoded")
        self._rate = _sample_rate(codec, source.codec_context.sample_rate)
        stream = output.add_stream(codec, rate=self._rate)
        assert isinstance(stream, AudioStream)
        self.stream: AudioStream = stream
        encoder = stream.codec_context
        encoder.layout = self._layout = _layout(source, codec)
        encoder.format = self._format = _sample_format(source, codec)
        if bits_per_channel is not None:
            encoder.bit_rate = bits_per_channel * encoder.layout.nb_channels
        self._end = end
        # What could not be decoded: how many packets, and when the first of them is due.
        self.lost, self._first_lost = 0, Fraction(0)
        self._resampler: AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        self._position: int | None = None
        self._left_out = 0
        # Since when samples follow one another, and how many did.
        self._since, self._samples = Fraction(0), 0
        self._last_pts: int | None = None

    def convert(self, packet: Packet, delay: Fraction) -> list[Packet]:
        """The packets that are ready now.

        Args:
            packet: of the source, on the output's clock.
            delay: seconds that everything comes later.
        """
        try:
            frames = [frame for frame in packet.decode() if isinstance(frame, AudioFrame)]
        except FFmpegError:
            self._lose(packet, delay)
            return []
        return [made for frame in frames for made in self._take(frame, delay)]

    def finish(self, decoder: AudioStream, delay: Fraction) -> list[Packet]:
        """The last packets."""
        try:
            frames = decoder.codec_context.decode(None) if self._position is not None else []
        except (FFmpegError, EOFError):
            frames = []
        made = [packet for frame in frames for packet in self._take(frame, delay)]
        made += [*self._flush(delay), *self.stream.encode(None)]
        if made:
            self._mark_padding(made[-1])
        return made

    def _mark_padding(self, last: Packet) -> None:
        """Say how much of the last packet is no sound any more: Matroska keeps that, and AAC's encoder does not say it."""
        size = self.stream.codec_context.frame_size
        if self.stream.codec_context.name == "aac" and last.duration is not None and 0 < last.duration < size:
            kind = get_args(PktSideDataT).index("skip_samples")
            padding = PacketSideData(kind, _SKIP_SAMPLES.size)  # pyright: ignore[reportCallIssue] - not in its stubs
            padding.update(_SKIP_SAMPLES.pack(0, size - last.duration, 0, 0))
            last.set_sidedata(padding)

    def try_out(self) -> list[Packet]:
        """Some silence: whether the encoder and the container take it."""
        self._position = 0
        return [*self._encode(self._silence(self._rate // 10)), *self.stream.encode(None)]

    def complaint(self) -> str | None:
        """What could not be decoded, in words."""
        if not self.lost:
            return None
        packets = "a packet" if self.lost == 1 else f"{self.lost} packets"
        return f"{packets} of its sound could not be decoded and became silence, at {clock(float(self._first_lost))}"

    def _lose(self, packet: Packet, delay: Fraction) -> None:
        if not self.lost:
            self._first_lost = (packet.pts or 0) * (packet.time_base or Fraction(1)) + delay
        self.lost += 1
        # What comes next has to say itself when it comes.
        self._kind = None

    def _take(self, frame: AudioFrame, delay: Fraction) -> list[Packet]:
        """Put a frame behind those before it."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        expected = self._since + Fraction(self._samples, self._kind[2] if self._kind else frame.sample_rate)
        time = expected
        # One time for several frames (in RealMedia) is that of the first.
        if frame.pts is not None and frame.time_base is not None and frame.pts != self._last_pts:
            time = frame.pts * frame.time_base + delay
        self._last_pts = frame.pts
        made: list[Packet] = []
        distance = abs(time - expected)
        if self._kind != kind or _TOLERANCE_SECONDS < distance < _MAX_GAP_SECONDS:
            made += self._flush(delay)
            made += self._begin(time, delay)
            self._kind, self._since, self._samples = kind, time, 0
        frame.pts, frame.time_base = self._samples, Fraction(1, frame.sample_rate)
        self._samples += frame.samples
        assert self._resampler is not None
        for resampled in self._resampler.resample(frame):
            made += self._add(resampled.to_ndarray(), delay)
        return made

    def _begin(self, time: Fraction, delay: Fraction) -> list[Packet]:
        """Have the next sample stand at a time: silence before it, or samples left out."""
        self._resampler = AudioResampler(format=self._format, layout=self._layout, rate=self._rate)
        position = round(time * self._rate)
        if self._position is None:
            self._position = max(0, position)
        self._left_out = max(0, self._position - position)
        made: list[Packet] = []
        while self._position < position:
            made += self._add(self._silence(min(self._rate, position - self._position)), delay)
        return made

    def _flush(self, delay: Fraction) -> list[Packet]:
        """What the resampler still holds."""
        if self._resampler is None:
            return []
        rest = [frame for frame in self._resampler.resample(None) if frame is not None]
        self._resampler = None
        return [packet for frame in rest for packet in self._add(frame.to_ndarray(), delay)]

    def _add(self, samples: np.ndarray, delay: Fraction) -> list[Packet]:
        """Encode samples, without those that are left out and those behind the end."""
        assert self._position is not None
        channels = 1 if samples.shape[0] > 1 else self.stream.codec_context.layout.nb_channels
        count = samples.shape[1] // channels
        first = min(self._left_out, count)
        self._left_out -= first
        if self._end is not None:
            count = min(count, first + max(0, round((self._end + delay) * self._rate) - self._position))
        return self._encode(samples[:, first * channels : count * channels]) if count > first else []

    def _encode(self, samples: np.ndarray) -> list[Packet]:
        assert self._position is not None
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=self._format, layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._position, Fraction(1, self._rate)
        self._position += frame.samples
        return self.stream.encode(frame)

    def _silence(self, count: int) -> np.ndarray:
        channels = self.stream.codec_context.layout.nb_channels
        planar = av.AudioFormat(self._format).is_planar
        kind = {"s16": np.int16, "s32": np.int32}.get(self._format, np.float32)
        return np.zeros((channels, count) if planar else (1, channels * count), kind)


def _sample_rate(codec: str, rate: int) -> int:
    """The encoder's rate for sound of a rate: the same, or the next that is higher, or its highest."""
    rates = av.Codec(codec, "w").audio_rates
    return min((other for other in rates if other >= rate), default=max(rates)) if rates else rate


def _layout(source: AudioStream, codec: str) -> str:
    """Where the channels of the source stand, in a word that the encoder knows."""
    layout = source.codec_context.layout
    name = _LAYOUTS.get(layout.name, layout.name)
    if name == f"{layout.nb_channels} channels" and layout.nb_channels <= len(_LAYOUT_OF_CHANNELS):
        name = _LAYOUT_OF_CHANNELS[layout.nb_channels - 1]
    return "quad" if name == "4.0" and codec == "libopus" else name


def _sample_format(source: AudioStream, codec: str) -> str:
    """Deep enough for the source: 24 bits of a lossless one that has them, 16 bits of others (for FLAC)."""
    if codec != "flac":
        return {"aac": "fltp", "libopus": "flt"}[codec]
    context = source.codec_context
    deep = context.codec.lossless and not context.codec.lossy and context.format.bytes > _BYTES_OF_16_BITS
    return "s32" if deep else "s16"
