"""What the numbers of a frame mean as colour, and exact conversion between a stream's YUV and RGB."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.video.format import VideoFormat
from av.video.reformatter import Interpolation

from skipvsr.errors import InputError
from skipvsr.video.properties import CHROMA_OFFSETS, plane_array, with_chroma_location
from skipvsr.video.yuv import MATRICES, YCGCO, rgb_to_yuv, yuv_to_rgb

# FFmpeg's codes (ITU-T H.273).
RGB, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020_NCL = 0, 1, 2, 4, 5, 6, 7, 9
LIMITED, FULL = 1, 2
PQ, HLG = 16, 18

# swscale's own codes for the matrices that it knows.
_SWSCALE = {BT709: 1, FCC: 4, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020_NCL: 9}

# Not a matrix from Y, Cb and Cr to RGB, or one that depends on more than its code.
_UNUSABLE = {
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "a matrix derived from the primaries",
    13: "a matrix derived from the primaries, with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}

# By default swscale rounds coarsely (frames come out one level darker) and repeats chroma samples.
_ACCURATE = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class ColourSpec:
    """Colour description of a stream, in the codes of ITU-T H.273, never unspecified in matrix and range.

    Args:
        matrix: from YUV to RGB: 1 BT.709, 5 and 6 BT.601, 8 YCgCo, 9 BT.2020; 0 where the stream is RGB.
        range: 1 limited (luma 16 to 235), 2 full.
        primaries, transfer: carried along; 2 where the source does not say.
        chroma_location: where the samples of subsampled chroma lie, a key of `CHROMA_OFFSETS`.
    """

    matrix: int
    range: int
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    chroma_location: str = "left"

    @property
    def hdr(self) -> bool:
        """Whether the transfer is PQ or HLG: such frames need more than 8 bits."""
        return self.transfer in (PQ, HLG)


def colour_of(frame: av.VideoFrame, *, still: bool = False) -> ColourSpec:
    """The colour description of a decoded frame, with the usual conventions where it says nothing.

    Without a matrix, YUV frames of up to 576 lines and 1,024 columns are BT.601, larger ones BT.709; stills (JPEG) are
    BT.601 at any size. Without a range, video is limited; stills, "yuvj" formats and RGB are full. Chroma lies in the
    centre in stills, else left: the frame does not say (see `properties.chroma_location`).

    Raises:
        InputError: a matrix that is not supported.
    """
    name = frame.format.name
    if is_rgb(frame.format):
        return ColourSpec(RGB, FULL, frame.color_primaries, frame.color_trc)
    matrix = frame.colorspace
    if matrix in _UNUSABLE or name.startswith("xyz"):
        kind = "XYZ" if name.startswith("xyz") else f"{_UNUSABLE[matrix]} (matrix {matrix})"
        raise InputError(f"its colours are stored as {kind}, which is not supported; convert it to BT.709 or BT.2020")
    if matrix not in MATRICES:
        small = frame.height <= 576 and frame.width <= 1024
        matrix = SMPTE170M if small or still else BT709
    full = frame.color_range == FULL or (
        frame.color_range != LIMITED and (still or name.startswith(("yuvj", "gray", "ya")))
    )
    location = "center" if still else "left"
    return ColourSpec(matrix, FULL if full else LIMITED, frame.color_primaries, frame.color_trc, location)


def is_rgb(pixel_format: VideoFormat) -> bool:
    """Whether a pixel format stores red, green and blue (palettes too)."""
    return pixel_format.is_rgb or pixel_format.name.startswith(("gbr", "pal8", "mono"))


def bit_depth(pixel_format: VideoFormat) -> int:
    """Bits of the deepest component."""
    return max(component.bits for component in pixel_format.components)


def is_subsampled(pixel_format: VideoFormat) -> bool:
    """Whether a pixel format has fewer chroma samples than pixels."""
    return not is_rgb(pixel_format) and (pixel_format.chroma_width(8), pixel_format.chroma_height(8)) != (8, 8)


def to_rgb(frame: av.VideoFrame, colour: ColourSpec) -> np.ndarray:
    """A decoded frame as (H, W, 3) full-range RGB: uint8, or uint16 where it has more than 8 bits. Alpha is dropped."""
    bits = bit_depth(frame.format)
    if is_rgb(frame.format):
        return frame.reformat(format="rgb48le" if bits > 8 else "rgb24", dst_color_range=FULL).to_ndarray()
    if bits > 8 or colour.matrix == YCGCO or _is_grey(frame.format):
        return _exactly_to_rgb(frame, colour, bits)
    if is_subsampled(frame.format):
        frame = with_chroma_location(frame, colour.chroma_location)
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=_SWSCALE.get(colour.matrix),
        src_color_range=colour.range,
        dst_color_range=FULL,
        interpolation=_ACCURATE,
    )
    return rgb.to_ndarray()


def alpha_of(frame: av.VideoFrame) -> np.ndarray | None:
    """Opacity of a decoded frame, (H, W) over the full range of uint8 or uint16, as deep as its colours.

    None where the pixel format has none, or always has it (palettes, argb of WebP) and everything is opaque.
    """
    pixel_format = frame.format
    if not (pixel_format.name.startswith(("ya", "yuva", "gbrap", "pal8")) or _has_alpha_letter(pixel_format.name)):
        return None
    deep = bit_depth(pixel_format) > 8
    alpha = frame.reformat(format="rgba64le" if deep else "rgba", dst_color_range=FULL).to_ndarray()[..., 3]
    if pixel_format.name in ("pal8", "argb") and alpha.min() == 255:
        return None
    return np.ascontiguousarray(alpha)


def from_rgb(pixels: np.ndarray, pixel_format: str, colour: ColourSpec) -> av.VideoFrame:
    """(H, W, 3) full-range RGB, uint8 or uint16, as a frame of the given pixel format, tagged with `colour`."""
    wanted = av.VideoFormat(pixel_format)
    deep = pixels.dtype == np.uint16
    if is_rgb(wanted):
        if deep and bit_depth(wanted) <= 8:
            pixels = to_8_bit(pixels)
        source = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels), "rgb48le" if pixels.itemsize == 2 else "rgb24"
        )
        frame = source.reformat(format=pixel_format, src_color_range=FULL, dst_color_range=FULL)
    elif deep or bit_depth(wanted) > 8 or colour.range == FULL or colour.matrix == YCGCO or _is_grey(wanted):
        frame = _exactly_from_rgb(pixels, wanted, colour)
    else:
        source = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        if is_subsampled(wanted):
            source = with_chroma_location(source, colour.chroma_location)
        frame = source.reformat(
            format=pixel_format,
            src_color_range=FULL,
            dst_colorspace=_SWSCALE.get(colour.matrix),
            dst_color_range=colour.range,
            interpolation=_ACCURATE,
        )
    frame.colorspace, frame.color_range = colour.matrix, colour.range
    frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
    return frame


def from_rgba(pixels: np.ndarray, pixel_format: str) -> av.VideoFrame:
    """(H, W, 4) full-range RGB and opacity, uint8 or uint16, as a frame of a format that holds them."""
    if bit_depth(av.VideoFormat(pixel_format)) <= 8:
        pixels = to_8_bit(pixels)
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgba64le" if pixels.itemsize == 2 else "rgba")
    return source.reformat(format=pixel_format, src_color_range=FULL, dst_color_range=FULL)


def to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """uint8 as it is, uint16 reduced to it."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _exactly_to_rgb(frame: av.VideoFrame, colour: ColourSpec, bits: int) -> np.ndarray:
    planar = _repacked(frame, _planar_name(frame.format), colour)
    planes = [plane_array(plane, np.uint8 if bits <= 8 else np.uint16) for plane in planar.planes]
    return yuv_to_rgb(
        planes,
        colour.matrix if len(planes) == 3 else BT709,
        full=colour.range == FULL,
        bits=bit_depth(planar.format),
        offsets=CHROMA_OFFSETS[colour.chroma_location],
    )


def _exactly_from_rgb(pixels: np.ndarray, wanted: VideoFormat, colour: ColourSpec) -> av.VideoFrame:
    height, width = pixels.shape[:2]
    frame = av.VideoFrame(width, height, _planar_name(wanted))
    bits = bit_depth(frame.format)
    planes = rgb_to_yuv(
        pixels,
        colour.matrix,
        full=colour.range == FULL,
        bits=bits,
        offsets=CHROMA_OFFSETS[colour.chroma_location],
        shapes=[(plane.height, plane.width) for plane in frame.planes],
    )
    for plane, values in zip(frame.planes, planes, strict=True):
        plane_array(plane, np.uint8 if bits <= 8 else np.uint16)[:] = values
    return _repacked(frame, wanted.name, colour)


def _repacked(frame: av.VideoFrame, pixel_format: str, colour: ColourSpec) -> av.VideoFrame:
    """The same numbers in another order."""
    if frame.format.name == pixel_format:
        return frame
    code = _SWSCALE.get(colour.matrix, 1)
    return frame.reformat(
        format=pixel_format,
        src_colorspace=code,
        dst_colorspace=code,
        src_color_range=colour.range,
        dst_color_range=colour.range,
    )


def _planar_name(pixel_format: VideoFormat) -> str:
    """The planar format without alpha that holds the samples of a YUV or grey format as they are."""
    bits = bit_depth(pixel_format)
    depth = "" if bits <= 8 else f"{bits}le"
    if _is_grey(pixel_format):
        return f"gray{depth}"
    if pixel_format.name.startswith("yuvj"):
        return pixel_format.name
    sides = pixel_format.chroma_width(8), pixel_format.chroma_height(8)
    layout = {(8, 8): "444", (4, 8): "422", (4, 4): "420", (8, 4): "440", (2, 8): "411", (2, 2): "410"}[sides]
    return f"yuv{layout}p{depth}"


def _is_grey(pixel_format: VideoFormat) -> bool:
    return pixel_format.name.startswith(("gray", "ya8", "ya16"))


def _has_alpha_letter(name: str) -> bool:
    """Whether a packed RGB format (rgba, argb, bgra, abgr, rgba64le ...) has an alpha component."""
    letters = name.rstrip("0123456789lbe") if name.endswith(("le", "be")) else name
    return sorted(letters) == sorted("rgba")
