"""What the numbers of a picture mean as colour, and exact conversion between a stream's YUV and RGB."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.video.format import VideoFormat
from av.video.reformatter import Interpolation

# FFmpeg's codes (ITU-T H.273).
RGB, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020_NCL, BT2020_CL = 0, 1, 2, 4, 5, 6, 7, 9, 10
LIMITED, FULL = 1, 2

# The matrices that swscale knows by its own codes.
_SWSCALE = {BT709: 1, FCC: 4, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020_NCL: 9, BT2020_CL: 9}

# By default swscale rounds coarsely (pictures come out one level darker) and repeats chroma samples.
_ACCURATE = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class ColourSpec:
    """Colour description of a stream, in the codes of ITU-T H.273, never unspecified in matrix and range.

    Args:
        matrix: from YUV to RGB: 1 BT.709, 5 and 6 BT.601, 9 BT.2020; 0 where the stream is RGB.
        range: 1 limited (luma 16 to 235), 2 full.
        primaries, transfer: carried along; 2 where the source does not say.
    """

    matrix: int
    range: int
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


def colour_of(frame: av.VideoFrame, *, still: bool = False) -> ColourSpec:
    """The colour description of a decoded frame, with the usual conventions where it says nothing.

    Without a matrix, YUV pictures of up to 576 lines and 1,024 columns are BT.601, larger ones BT.709; stills (JPEG) are
    BT.601 at any size. Without a range, video is limited, "yuvj" formats and RGB are full.
    """
    name = frame.format.name
    if is_rgb(frame.format):
        return ColourSpec(RGB, FULL, frame.color_primaries, frame.color_trc)
    matrix = frame.colorspace
    if matrix not in _SWSCALE:
        small = frame.height <= 576 and frame.width <= 1024
        matrix = SMPTE170M if small or still else BT709
    full = frame.color_range == FULL or (frame.color_range != LIMITED and name.startswith(("yuvj", "gray")))
    return ColourSpec(matrix, FULL if full else LIMITED, frame.color_primaries, frame.color_trc)


def is_rgb(pixel_format: VideoFormat) -> bool:
    """Whether a pixel format stores red, green and blue (palettes too)."""
    return pixel_format.is_rgb or pixel_format.name.startswith(("gbr", "pal8", "mono"))


def bit_depth(pixel_format: VideoFormat) -> int:
    """Bits of the deepest component."""
    return max(component.bits for component in pixel_format.components)


def to_rgb(frame: av.VideoFrame, colour: ColourSpec) -> np.ndarray:
    """A decoded frame as (H, W, 3) full-range RGB: uint8, or uint16 where it has more than 8 bits. Alpha is dropped."""
    deep = bit_depth(frame.format) > 8
    if frame.format.name.startswith("gray") and colour.range == LIMITED:
        return _stretch(frame.reformat(format="gray16le" if deep else "gray").to_ndarray())
    rgb = frame.reformat(
        format="rgb48le" if deep else "rgb24",
        src_colorspace=_SWSCALE.get(colour.matrix),
        src_color_range=colour.range,
        dst_color_range=FULL,
        interpolation=_ACCURATE,
    )
    return rgb.to_ndarray()


def _stretch(luma: np.ndarray) -> np.ndarray:
    """Limited-range grey (H, W) as full-range RGB (H, W, 3); swscale takes all grey for full range."""
    unit = 256 if luma.dtype == np.uint16 else 1
    peak = np.iinfo(luma.dtype).max
    full = (luma.astype(np.float64) - 16 * unit) * (peak / (219 * unit))
    return np.repeat(full.round().clip(0, peak).astype(luma.dtype)[..., None], 3, axis=2)


def from_rgb(pixels: np.ndarray, pixel_format: str, colour: ColourSpec) -> av.VideoFrame:
    """(H, W, 3) full-range RGB, uint8 or uint16, as a frame of the given pixel format, tagged with `colour`."""
    source = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=source)
    frame = frame.reformat(
        format=pixel_format,
        src_color_range=FULL,
        dst_colorspace=_SWSCALE.get(colour.matrix),
        dst_color_range=colour.range,
        interpolation=_ACCURATE,
    )
    frame.colorspace, frame.color_range = colour.matrix, colour.range
    frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
    return frame
