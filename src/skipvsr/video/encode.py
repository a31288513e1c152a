"""Encoders: what they are called, and what makes each of them visually lossless."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from skipvsr.errors import ConfigError


@dataclass(frozen=True)
class EncodeOptions:
    """How a video is encoded.

    Args:
        codec: FFmpeg's name of the encoder; None: H.264 for 8 bits, H.265 for more, VP9 and AV1 in WebM.
        quality: the encoder's constant rate factor, lower is better; None: visually lossless for the encoders that are
            known here, otherwise the encoder's own default.
        pixel_format: FFmpeg's name; None: yuv420p, of 10 bits for a source of more than 8, or the encoder's first where it
            cannot do that.
        preset: the encoder's name for its speed; None: its own default ("medium" for x264 and x265).
    """

    codec: str | None = None
    quality: int | None = None
    pixel_format: str | None = None
    preset: str | None = None


@dataclass(frozen=True)
class _Known:
    """The option that sets quality, and its visually lossless value; None: quality cannot be set."""

    option: str | None
    quality: int | None
    fixed: tuple[tuple[str, str], ...] = ()


_KNOWN = {
    "libx264": _Known("crf", 16),
    "libx265": _Known("crf", 18, (("x265-params", "log-level=error"),)),
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
    deep: bool = False,
    webm: bool = False,
    static_hdr: dict[str, str] | None = None,
) -> Encoder:
    """Check the options against this build of FFmpeg and the size of the picture.

    Args:
        options: what was asked for.
        width, height: of the output.
        deep: whether the source has more than 8 bits.
        webm: whether the container is WebM.
        static_hdr: what an HDR source says of the display it was made on (`skipvsr.video.hdr`), as x265's parameters.

    Raises:
        ConfigError: an unknown encoder or pixel format, a quality that the encoder does not take, a side that is too small
            for it, or an odd side that the pixel format cannot hold.
    """
    name = options.codec or _default_codec(width, deep=deep, webm=webm)
    try:
        codec = Codec(name, "w")
    except UnknownCodecError as error:
        known = ", ".join(name for name in _KNOWN if _exists(name))
        raise ConfigError(f"there is no encoder {name!r}; try one of {known}") from error
    if codec.type != "video":
        raise ConfigError(f"{name!r} encodes {codec.type}, not video; try libx264")
    formats = [video_format.name for video_format in codec.video_formats or []]
    usual = ["yuv420p10le", "yuv420p"] if deep else ["yuv420p"]
    pixel_format = options.pixel_format or next((one for one in usual if one in formats), (formats or ["yuv420p"])[0])
    if formats and pixel_format not in formats:
        raise ConfigError(f"{name} cannot store {pixel_format!r}; it can store {', '.join(formats)}")
    try:
        layout = av.VideoFormat(pixel_format, width, height)
    except ValueError as error:
        raise ConfigError(f"there is no pixel format {pixel_format!r}; try yuv420p or yuv444p") from error
    for side, which, chroma in ((width, "width", layout.chroma_width(2)), (height, "height", layout.chroma_height(2))):
        if side % 2 and chroma == 1:
            raise ConfigError(f"{pixel_format} needs an even {which}, not {side}; choose another size, or yuv444p")
    known = _KNOWN.get(name, _Known("crf", None))
    settings = dict(known.fixed)
    if name == "libx265" and width < _X265_MIN_WIDTH_PX:
        raise ConfigError(f"libx265 needs a width of {_X265_MIN_WIDTH_PX} px, not {width}; use libx264")
    if static_hdr and name == "libx265":
        pairs = [settings["x265-params"], *(f"{key}={value}" for key, value in static_hdr.items())]
        settings["x265-params"] = ":".join(pairs)
    quality = options.quality if options.quality is not None else known.quality
    if quality is not None:
        if known.option is None:
            raise ConfigError(f"{name} has no quality setting; leave it out")
        if not 0 <= quality <= 63:
            raise ConfigError(f"the quality is {quality}; it must be from 0 (best) to 51 (63 for AV1 and VP9)")
        settings[known.option] = str(quality)
    if options.preset is not None:
        settings["preset"] = options.preset
    return Encoder(name, pixel_format, settings)


def encoder_rate(frame_rate: Fraction | None) -> Fraction:
    """What rate control is told; timestamps say the truth."""
    return frame_rate.limit_denominator(1001000) if frame_rate else Fraction(25)


def _default_codec(width: int, *, deep: bool, webm: bool) -> str:
    if webm:
        return "libsvtav1" if deep else "libvpx-vp9"
    # Players know 10 bits of H.265 rather than of H.264.
    return "libx265" if deep and width >= _X265_MIN_WIDTH_PX else "libx264"


def _exists(name: str) -> bool:
    try:
        Codec(name, "w")
    except UnknownCodecError:
        return False
    return True
