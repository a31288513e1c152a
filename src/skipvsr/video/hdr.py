"""For which display an HDR video was made (SMPTE ST 2086), and how bright it gets (CTA-861.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import av
from av.sidedata.sidedata import Type

from skipvsr.video.properties import side_data

# FFmpeg's AVMasteringDisplayMetadata: ten fractions, then which of them are there.
_MASTERING = struct.Struct("=20i2i")
_LIGHT = struct.Struct("=2I")


@dataclass(frozen=True)
class HdrMetadata:
    """Mastering display and content light level; None where the video does not say.

    Args:
        mastering: x and y of red, green, blue and white, then the least and the greatest luminance in cd/m2.
        light: the brightest pixel and the brightest frame's mean, in cd/m2 (MaxCLL, MaxFALL).
    """

    mastering: tuple[Fraction, ...] | None
    light: tuple[int, int] | None


def hdr_metadata(frame: av.VideoFrame) -> HdrMetadata | None:
    """What a decoded frame says; None where it says nothing."""
    display = side_data(frame, Type.MASTERING_DISPLAY_METADATA)
    levels = side_data(frame, Type.CONTENT_LIGHT_LEVEL)
    mastering = None if display is None else _mastering(display)
    light = None if levels is None else _LIGHT.unpack_from(levels)
    if mastering is None and light is None:
        return None
    return HdrMetadata(mastering, light)


def encoder_parameters(codec: str, metadata: HdrMetadata | None) -> dict[str, str]:
    """The options by which an encoder is told; empty for encoders that cannot be."""
    if metadata is None or codec not in _SYNTAX:
        return {}
    option, display, levels, exact = _SYNTAX[codec]
    parameters = []
    if metadata.mastering is not None:
        # In units of 0.00002 and 0.0001 cd/m2, or as they are.
        units = [50_000] * 8 + [10_000] * 2
        values = [
            f"{float(value):.6g}" if exact else str(round(value * unit))
            for value, unit in zip(metadata.mastering, units, strict=True)
        ]
        red, green, blue, white, luminance = (
            f"({first},{second})"
            for first, second in (*zip(values[0:8:2], values[1:8:2], strict=True), (values[9], values[8]))
        )
        parameters.append(f"{display}=G{green}B{blue}R{red}WP{white}L{luminance}")
    if metadata.light is not None:
        parameters.append(f"{levels}={metadata.light[0]},{metadata.light[1]}")
    return {option: ":".join(parameters)}


# Option of the encoder, its names for the two, and whether it takes decimal numbers.
_SYNTAX = {
    "libx264": ("x264-params", "mastering-display", "cll", False),
    "libx265": ("x265-params", "master-display", "max-cll", False),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light", True),
}


def _mastering(data: bytes) -> tuple[Fraction, ...] | None:
    *numbers, has_primaries, has_luminance = _MASTERING.unpack_from(data)
    if not (has_primaries and has_luminance) or not all(numbers[1::2]):
        return None
    return tuple(Fraction(top, bottom) for top, bottom in zip(numbers[::2], numbers[1::2], strict=True))
