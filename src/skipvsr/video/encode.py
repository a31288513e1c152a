"""The encoders, and the setting with which each of them is visually lossless."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import get_args

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from skipvsr.errors import ConfigError
from skipvsr.video.colour import bit_depth
from skipvsr.video.hdr import HdrMetadata, encoder_parameters
from skipvsr.video.sound import Audio, Kept


@dataclass(frozen=True)
class EncodeOptions:
    """How a video is encoded.

    Args:
        codec: FFmpeg's name of the encoder; None: H.264 for 8 bits, H.265 for more (H.264 where that is too narrow); in
            .webm the first of AV1 and VP9 that can store it.
        crf: the encoder's constant rate factor, lower is better; None: visually lossless for the encoders that are
            known here, otherwise the encoder's own default.
        pixel_format: FFmpeg's name; None: yuv420p, and yuv420p10le for sources of more than 8 bits or in HDR; or what the
            encoder has of that depth.
        preset: the encoder's name for its speed; None: "faster" for x264 and "fast" for x265, which share the
            cores with the network (docs/speed.md), and the others' own default.
        audio: what becomes of sound: "copy", packet for packet; "aac", "opus" or "flac": what is not that already is
            converted to it; "none": left out.
        subtitles: False: left out.

    Raises:
        ConfigError: another word for `audio`.
    """

    codec: str | None = None
    crf: int | None = None
    pixel_format: str | None = None
    preset: str | None = None
    audio: Audio = "copy"
    subtitles: bool = True

    def __post_init__(self) -> None:
        if self.audio not in get_args(Audio):
            raise ConfigError(f"sound is to be {self.audio!r}; choose one of {', '.join(get_args(Audio))}")

    @property
    def kept(self) -> Kept:
        """What becomes of all but the video."""
        return Kept(self.audio, self.subtitles)


@dataclass(frozen=True)
class _Known:
    """The option that sets the constant rate factor, and its visually lossless value; None: it cannot be set."""

    option: str | None
    crf: int | None
    fixed: tuple[tuple[str, str], ...] = ()


_KNOWN = {
    "libx264": _Known("crf", 16, (("preset", "faster"),)),
    "libx265": _Known("crf", 18, (("preset", "fast"), ("x265-params", "log-level=error"))),
    "libsvtav1": _Known("crf", 20),
    "libaom-av1": _Known("crf", 18),
    "libvpx-vp9": _Known("crf", 18, (("b", "0"),)),
    "ffv1": _Known(None, None),
    "prores_ks": _Known(None, None, (("profile", "hq"),)),
}


# At widths of 33 to 48 px it corrupts memory, whatever its settings.
_X265_MIN_WIDTH_PX = 64


@dataclass(frozen=True)
class Encoder:
    """Checked encoder settings: what `add_stream` needs."""

    codec: str
    pixel_format: str
    options: dict[str, str]


def choose_encoder(
    options: EncodeOptions,
    width: int,
    height: int,
    *,
    container: str = ".mp4",
    deep: bool = False,
    hdr: bool = False,
    metadata: HdrMetadata | None = None,
) -> Encoder:
    """Choose what the options leave open, and check them against this build of FFmpeg and the size of the frame.

    Args:
        options: what was asked for.
        width, height: of the frame.
        container: the ending of the file.
        deep: the source has more than 8 bits.
        hdr: the source is PQ or HLG.
        metadata: what an HDR source says of its display.

    Raises:
        ConfigError: an unknown encoder or pixel format, a quality that the encoder does not take, a side that is too small
            for it, an odd side that the pixel format cannot hold, or an encoder of 8 bits for HDR.
    """
    deep = deep or hdr
    codec = options.codec or _automatic_codec(container, width, _depth(options.pixel_format, deep))
    formats = _formats(codec)
    pixel_format = options.pixel_format or _automatic_format(formats, deep)
    if formats and pixel_format not in formats:
        raise ConfigError(f"{codec} cannot store {pixel_format!r}; it can store {', '.join(formats)}")
    if hdr and options.pixel_format is None and bit_depth(av.VideoFormat(pixel_format)) <= 8:
        raise ConfigError(
            f"the input is HDR, and {codec} stores only 8 bits, in which it shows bands; choose libx265, or give a pixel format"
        )
    try:
        layout = av.VideoFormat(pixel_format, width, height)
    except ValueError as error:
        raise ConfigError(f"there is no pixel format {pixel_format!r}; try yuv420p or yuv444p") from error
    for side, name, chroma in ((width, "width", layout.chroma_width(2)), (height, "height", layout.chroma_height(2))):
        if side % 2 and chroma == 1:
            raise ConfigError(f"{pixel_format} needs an even {name}, not {side}; choose another size, or yuv444p")
    known = _KNOWN.get(codec, _Known("crf", None))
    settings = dict(known.fixed)
    if codec == "libx265" and width < _X265_MIN_WIDTH_PX:
        raise ConfigError(f"libx265 needs a width of {_X265_MIN_WIDTH_PX} px, not {width}; use libx264")
    crf = options.crf if options.crf is not None else known.crf
    if crf is not None:
        if known.option is None:
            raise ConfigError(f"{codec} has no constant rate factor (CRF); leave it out")
        if not 0 <= crf <= 63:
            raise ConfigError(f"the CRF is {crf}; it must be from 0 (best) to 51 (63 for AV1 and VP9)")
        settings[known.option] = str(crf)
    if options.preset is not None:
        settings["preset"] = options.preset
    for option, value in encoder_parameters(codec, metadata).items():
        settings[option] = f"{settings[option]}:{value}" if option in settings else value
    return Encoder(codec, pixel_format, settings)


def _depth(pixel_format: str | None, deep: bool) -> int:
    """Bits to be stored, as far as that is known before the encoder is."""
    if pixel_format is None:
        return 10 if deep else 8
    try:
        return bit_depth(av.VideoFormat(pixel_format))
    except ValueError as error:
        raise ConfigError(f"there is no pixel format {pixel_format!r}; try yuv420p or yuv444p") from error


def _automatic_codec(container: str, width: int, bits: int) -> str:
    if container.lower() == ".webm":
        candidates = ["libvpx-vp9", "libsvtav1"] if bits <= 8 else ["libsvtav1", "libaom-av1", "libvpx-vp9"]
        return next((name for name in candidates if _exists(name)), candidates[0])
    if bits <= 8 or width < _X265_MIN_WIDTH_PX or not _exists("libx265"):
        return "libx264"
    return "libx265"


def _automatic_format(formats: list[str], deep: bool) -> str:
    """The usual format of the wanted depth, or the encoder's first of at least that depth, or its first."""
    usual = "yuv420p10le" if deep else "yuv420p"
    if not formats or usual in formats:
        return usual
    wanted = 10 if deep else 8
    return next((name for name in formats if bit_depth(av.VideoFormat(name)) >= wanted), formats[0])


def _formats(name: str) -> list[str]:
    """What an encoder can store; empty where it does not say."""
    try:
        codec = Codec(name, "w")
    except UnknownCodecError as error:
        known = ", ".join(name for name in _KNOWN if _exists(name))
        raise ConfigError(f"there is no encoder {name!r}; try one of {known}") from error
    if codec.type != "video":
        raise ConfigError(f"{name!r} encodes {codec.type}, not video; try libx264")
    return [video_format.name for video_format in codec.video_formats or []]


def encoder_rate(frame_rate: Fraction | None) -> Fraction:
    """The nominal frame rate for the encoder's rate control; exact times are in the timestamps."""
    return frame_rate.limit_denominator(1001000) if frame_rate else Fraction(25)


def _exists(name: str) -> bool:
    try:
        Codec(name, "w")
    except UnknownCodecError:
        return False
    return True
