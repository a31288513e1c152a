"""The video stream of an output: its encoder, and what it says of its frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.codec import CodecContext
from av.codec.context import Flags
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from skipvsr.errors import ConfigError
from skipvsr.video.colour import BT709, LIMITED, RGB, ColourSpec, is_rgb, is_subsampled
from skipvsr.video.containers import ISO_CONTAINERS
from skipvsr.video.encode import EncodeOptions, Encoder, choose_encoder, encoder_rate
from skipvsr.video.probe import VideoInfo

# AV_CODEC_FLAG_FRAME_DURATION: how long each frame is shown goes through the encoder too.
_FRAME_DURATION = 0x100


@dataclass(frozen=True)
class VideoSettings:
    """All that determines the video stream of an output.

    Args:
        encoder: checked.
        width, height: of the frames.
        rate: frames a second, which rate control is told.
        colour: how frames are stored and described.
        time_base: seconds per unit of the timestamps; None: not known before the first frame.
        sample_aspect_ratio: width of a pixel over its height; None: not said.
        display_matrix: of the container, for the player to turn the frames; None: as it is.
    """

    encoder: Encoder
    width: int
    height: int
    rate: Fraction
    colour: ColourSpec
    time_base: Fraction | None
    sample_aspect_ratio: Fraction | None
    display_matrix: tuple[int, ...] | None

    @property
    def options(self) -> dict[str, str]:
        """Of the encoder."""
        if not is_subsampled(av.VideoFormat(self.encoder.pixel_format)):
            return self.encoder.options
        return {**self.encoder.options, "chroma_sample_location": self.colour.chroma_location}


def video_settings(
    ending: str,
    width: int,
    height: int,
    *,
    source: VideoInfo | None,
    options: EncodeOptions | None,
    frame_rate: Fraction | None,
    sample_aspect_ratio: Fraction | None,
) -> VideoSettings:
    """What is asked for, and the rest from the source; arguments as for `VideoWriter`.

    Raises:
        ConfigError: as `choose_encoder` does.
    """
    encoder = choose_encoder(
        options or EncodeOptions(),
        width,
        height,
        container=ending,
        deep=source is not None and source.bit_depth > 8,
        hdr=source is not None and source.colour.hdr,
        metadata=source.hdr if source is not None else None,
    )
    return VideoSettings(
        encoder=encoder,
        width=width,
        height=height,
        rate=encoder_rate(source.frame_rate if source else frame_rate),
        colour=output_colour(source, encoder.pixel_format),
        time_base=source.time_base if source else None,
        sample_aspect_ratio=sample_aspect_ratio or (source.sample_aspect_ratio if source else None),
        display_matrix=source.display_matrix if source else None,
    )


def add_video(container: OutputContainer, settings: VideoSettings, ending: str) -> VideoStream:
    """Add the stream, with an encoder that only says what the encoded frames look like.

    Raises:
        ConfigError: the encoder refuses the settings.
        FFmpegError, ValueError: the container does not take the codec.
    """
    stream = container.add_stream(settings.encoder.codec, rate=settings.rate, options=settings.options)
    assert isinstance(stream, VideoStream)
    if settings.encoder.codec == "libx265" and ending in ISO_CONTAINERS:
        # Some players take no other name for it.
        stream.codec_context.codec_tag = "hvc1"
    if settings.time_base is not None:
        stream.time_base = settings.time_base
    if settings.display_matrix is not None:
        stream.set_display_matrix(settings.display_matrix)
    _open_encoder(stream.codec_context, settings, settings.time_base)
    return stream


def new_encoder(settings: VideoSettings, like: VideoStream | None, time_base: Fraction | None) -> VideoCodecContext:
    """An encoder for a part of the video: the same settings as the stream's, and the same headers.

    Args:
        settings: of the video.
        like: the stream; None: one in a container that is not open here (all that are written keep headers apart).
        time_base: of the frames.
    """
    context = CodecContext.create(settings.encoder.codec, "w")
    assert isinstance(context, VideoCodecContext)
    context.options = settings.options
    context.framerate = settings.rate
    context.flags = Flags.global_header if like is None else like.codec_context.flags
    _open_encoder(context, settings, time_base)
    return context


def _open_encoder(context: VideoCodecContext, settings: VideoSettings, time_base: Fraction | None) -> None:
    encoder, colour = settings.encoder, settings.colour
    context.width, context.height = settings.width, settings.height
    context.pix_fmt = encoder.pixel_format
    context.thread_type = "AUTO"
    context.flags |= _FRAME_DURATION
    context.colorspace, context.color_range = colour.matrix, colour.range
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    if time_base is not None:
        context.time_base = time_base
    if settings.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = settings.sample_aspect_ratio
    try:
        context.open(strict=False)
    except (FFmpegError, ValueError) as error:
        raise ConfigError(
            f"{encoder.codec} refuses {settings.width}x{settings.height} {encoder.pixel_format} with these settings "
            f"({error.strerror if isinstance(error, FFmpegError) else error}); choose others, or another encoder"
        ) from error


def output_colour(source: VideoInfo | None, pixel_format: str) -> ColourSpec:
    """The source's colour description, but YUV for RGB sources and RGB for RGB outputs.

    Chroma goes to the left, where players expect it, but for top-left sources (BT.2020): those say so.
    """
    output = av.VideoFormat(pixel_format)
    colour = source.colour if source is not None else ColourSpec(BT709, LIMITED, BT709, BT709)
    if is_rgb(output):
        return ColourSpec(RGB, 2, colour.primaries, colour.transfer)
    if colour.matrix == RGB:
        return ColourSpec(BT709, LIMITED, colour.primaries, colour.transfer)
    top_left = colour.chroma_location == "topleft" and output.chroma_height(8) == 4
    return replace(colour, chroma_location="topleft" if top_left else "left")
