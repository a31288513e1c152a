"""What HDR video says of the display it was made on, carried from one encoder to the next."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
from av.sidedata.sidedata import Type

# FFmpeg's AVMasteringDisplayMetadata: ten fractions (red, green, blue and white in x and y, darkest, brightest), two flags.
_DISPLAY = struct.Struct("=22i")
_LIGHT = struct.Struct("=2I")
_CHROMATICITY, _LUMINANCE = 50_000, 10_000


def static_hdr(frame: av.VideoFrame) -> dict[str, str]:
    """Mastering display (SMPTE ST 2086) and light level (CTA-861.3) of a frame, as x265's parameters; empty where it has none.

    Args:
        frame: as it was decoded.

    Returns:
        "master-display" in units of 0.00002 and 0.0001 cd/m2, "max-cll" in cd/m2.
    """
    found: dict[str, str] = {}
    display = _side_data(frame, Type.MASTERING_DISPLAY_METADATA)
    if display is not None and len(display) >= _DISPLAY.size:
        numbers = _DISPLAY.unpack(display[: _DISPLAY.size])
        values = [Fraction(*pair) if pair[1] else None for pair in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
        if numbers[20] and numbers[21] and None not in values:
            known = [value for value in values if value is not None]
            red, green, blue, white = (
                f"({round(x * _CHROMATICITY)},{round(y * _CHROMATICITY)})"
                for x, y in zip(known[0:8:2], known[1:8:2], strict=True)
            )
            darkest, brightest = (round(value * _LUMINANCE) for value in known[8:])
            found["master-display"] = f"G{green}B{blue}R{red}WP{white}L({brightest},{darkest})"
    light = _side_data(frame, Type.CONTENT_LIGHT_LEVEL)
    if light is not None and len(light) >= _LIGHT.size:
        brightest, average = _LIGHT.unpack(light[: _LIGHT.size])
        found["max-cll"] = f"{brightest},{average}"
    return found


def _side_data(frame: av.VideoFrame, kind: Type) -> bytes | None:
    data = frame.side_data.get(kind)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return None if data is None else bytes(data)
