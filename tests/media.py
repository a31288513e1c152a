"""Makes the media files that the tests need, with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from skipvsr.video.colour import BT709, LIMITED, ColourSpec, from_rgb

SAMPLE_RATE = 48_000


def picture(index: int, width: int = 48, height: int = 32) -> np.ndarray:
    """A smooth picture that moves with its index, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [128 + 90 * np.sin((x + 2 * index) / 25 + k) * np.cos((y - index) / 19 + k) for k in range(3)]
    return np.stack(planes, axis=-1).round().astype(np.uint8)


def make_video(
    path: Path,
    frames: Sequence[np.ndarray] | int = 6,
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12800),
    rotation: int | None = None,
    sample_aspect_ratio: Fraction | None = None,
    colour: ColourSpec | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    audio_codec: str | None = None,
    audio_seconds: float = 0.0,
    subtitles: Sequence[tuple[int, str]] = (),
    attachments: Sequence[tuple[str, str, bytes]] = (),
    cover: Path | None = None,
    video: bool = True,
) -> Path:
    """Write a video file.

    Args:
        frames: pictures (H, W, 3), or how many of `picture` to make.
        times: their pts in units of `time_base`; None: 25 frames a second from 0.
        rotation: counter-clockwise degrees for the player.
        colour: how the pictures are stored and tagged.
        audio_codec, audio_seconds: a sine of 440 Hz.
        subtitles: (seconds, text), each shown for a second.
        attachments: (name, type, contents), for Matroska.
        cover: a PNG file, for MP4.
        video: False: leave the picture out.
    """
    pictures = [picture(index) for index in range(frames)] if isinstance(frames, int) else list(frames)
    step = int(Fraction(1, 25) / time_base)
    pts = list(times) if times is not None else [index * step for index in range(len(pictures))]
    with av.open(str(path), "w") as container:
        stream = None
        if video:
            stream = container.add_stream(codec, rate=25, options=options or {"crf": "4"})
            assert isinstance(stream, VideoStream)
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = pixel_format
            stream.codec_context.time_base = time_base
            spec = colour or ColourSpec(BT709, LIMITED, BT709, BT709)
            _tag(stream, spec, sample_aspect_ratio, rotation)
        audio = None
        if audio_codec is not None:
            audio = container.add_stream(audio_codec, rate=SAMPLE_RATE, layout="mono")
            assert isinstance(audio, AudioStream)
            audio.metadata["language"] = "fra"
        for name, kind, contents in attachments:
            container.add_attachment(name, kind, contents)
        if cover is not None:
            _add_cover(container, cover)
        script = av.open(str(_write_srt(path.with_suffix(".srt"), subtitles))) if subtitles else None
        words = container.add_stream_from_template(script.streams.subtitles[0]) if script else None
        if stream is not None:
            for pixels, when in zip(pictures, pts, strict=True):
                frame = from_rgb(pixels, pixel_format, spec)
                frame.pts, frame.time_base = when, time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if audio is not None:
            _write_tone(container, audio, audio_seconds)
        if script is not None and words is not None:
            with script:
                for packet in script.demux():
                    if packet.size:
                        packet.stream = words
                        container.mux(packet)
            path.with_suffix(".srt").unlink()
    return path


def _tag(stream: VideoStream, spec: ColourSpec, aspect: Fraction | None, rotation: int | None) -> None:
    """Say how the pictures are stored and to be shown."""
    context = stream.codec_context
    context.colorspace, context.color_range = spec.matrix, spec.range
    context.color_primaries, context.color_trc = spec.primaries, spec.transfer
    if aspect is not None:
        context.sample_aspect_ratio = aspect
    if rotation is not None:
        stream.set_display_rotation(rotation)


def _add_cover(container: OutputContainer, cover: Path) -> None:
    with av.open(str(cover)) as image:
        art = container.add_stream_from_template(image.streams.video[0])
        art.disposition = Disposition.attached_pic
        container.start_encoding()
        for packet in image.demux():
            if packet.size:
                packet.stream, packet.pts, packet.dts = art, 0, 0
                container.mux(packet)


def _write_tone(container: OutputContainer, audio: AudioStream, seconds: float) -> None:
    """A sine of 440 Hz."""
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)
    sound = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="fltp", layout="mono")
    sound.sample_rate, sound.pts = SAMPLE_RATE, 0
    container.mux(audio.encode(sound))
    container.mux(audio.encode(None))


def _write_srt(path: Path, subtitles: Sequence[tuple[int, str]]) -> Path:
    blocks = [
        f"{index}\n00:00:{seconds:02d},000 --> 00:00:{seconds:02d},800\n{text}\n"
        for index, (seconds, text) in enumerate(subtitles, 1)
    ]
    path.write_text("\n".join(blocks))
    return path


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """(presentation time in seconds, contents) of every packet of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        assert stream.time_base is not None
        base = stream.time_base
        return [(Fraction(packet.pts or 0) * base, bytes(packet)) for packet in container.demux(stream) if packet.size]


def times(path: Path) -> list[Fraction]:
    """Presentation time in seconds of every decoded frame."""
    with av.open(str(path)) as container:
        return [Fraction(frame.pts or 0) * (frame.time_base or 1) for frame in container.decode(video=0)]
