"""A clip through a real encoder and back, in memory: how footage gets its compression artefacts."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import av
import numpy as np
from av.codec import CodecContext
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from skipvsr.errors import ConfigError, DecodeError, ShapeError
from skipvsr.video.colour import BT709, LIMITED, ColourSpec, from_rgb, to_rgb

Codec = Literal["h264", "h265", "vp9", "mpeg4", "mpeg2"]

# Encoder and decoder of each codec.
_CODECS: dict[str, tuple[str, str]] = {
    "h264": ("libx264", "h264"),
    "h265": ("libx265", "hevc"),
    "vp9": ("libvpx-vp9", "vp9"),
    "mpeg4": ("mpeg4", "mpeg4"),
    "mpeg2": ("mpeg2video", "mpeg2video"),
}
# Worst quality on each codec's own scale: CRF, or the quantiser of the MPEG family.
MAX_QUALITY: dict[str, int] = {"h264": 51, "h265": 51, "vp9": 63, "mpeg4": 31, "mpeg2": 31}
_QUANTISERS = ("mpeg4", "mpeg2")
# x265 takes no lower frames, and corrupts memory where they are 33 to 48 px wide, whatever its settings.
_MIN_HEIGHT_PX, _MIN_WIDTH_PX = 16, 64
_COLOUR = ColourSpec(BT709, LIMITED)
_FRAME_RATE = 25


@dataclass(frozen=True)
class ClipEncoding:
    """How a clip is encoded.

    Args:
        codec: "h264", "h265", "vp9", "mpeg4" (part 2) or "mpeg2".
        quality: on the codec's own scale: constant rate factor from 0 to 51 (H.264, H.265) or 63 (VP9), quantiser from 1 to 31
            (MPEG); lower is better.
        bits_per_pixel: average bit rate in the place of `quality`; for H.264 and H.265.
        preset: speed of x264 and x265, from "ultrafast" to "veryslow"; the others have none.
        b_frames: most B-frames between two other frames; VP9 has none.
        keyframe_interval: most frames from one key frame to the next.

    Raises:
        ConfigError: an unknown codec, or a value out of its range.
    """

    codec: Codec = "h264"
    quality: int = 23
    bits_per_pixel: float | None = None
    preset: str = "veryfast"
    b_frames: int = 3
    keyframe_interval: int = 250

    def __post_init__(self) -> None:
        if self.codec not in _CODECS:
            raise ConfigError(f"codec is {self.codec!r}; it must be one of {', '.join(get_args(Codec))}")
        minimum = 1 if self.codec in _QUANTISERS else 0
        if not minimum <= self.quality <= MAX_QUALITY[self.codec]:
            raise ConfigError(
                f"quality of {self.codec} is {self.quality}; it must be from {minimum} (best) to "
                f"{MAX_QUALITY[self.codec]} (worst)"
            )
        if self.bits_per_pixel is not None and (self.codec not in ("h264", "h265") or self.bits_per_pixel <= 0):
            raise ConfigError(
                f"bits_per_pixel is {self.bits_per_pixel} with {self.codec}; it must be above 0, with h264 or h265"
            )

    def options(self) -> dict[str, str]:
        """FFmpeg's options for it, with all that keeps the bits independent of the machine's number of cores."""
        shared = {"g": str(self.keyframe_interval)}
        match self.codec:
            case "h264":
                # The macroblock tree gives other bits from run to run on small frames, even with one thread.
                own = {"x264-params": "mbtree=0", "bf": str(self.b_frames), "preset": self.preset}
            case "h265":
                parameters = f"log-level=error:pools=none:frame-threads=1:bframes={self.b_frames}"
                return self._rate() | {
                    "preset": self.preset,
                    "x265-params": f"{parameters}:keyint={self.keyframe_interval}",
                }
            case "vp9":
                own = {"deadline": "realtime", "cpu-used": "7", "lag-in-frames": "0"}
            case _:
                quantiser = str(self.quality)
                return shared | {"bf": str(self.b_frames), "qmin": quantiser, "qmax": quantiser}
        return shared | own | self._rate()

    def _rate(self) -> dict[str, str]:
        return {} if self.bits_per_pixel is not None else {"crf": str(self.quality)}


def compress_clip(frames: np.ndarray, encoding: ClipEncoding, pixel_format: str = "yuv420p") -> np.ndarray:
    """Encode a clip, decode it again, and return what is left.

    Args:
        frames: (T, H, W, 3) uint8, full-range RGB; any H and W, odd ones included.
        encoding: codec, quality and structure.
        pixel_format: what the encoder stores; "yuv420p" halves the resolution of colour, "yuv444p" does not.

    Returns:
        (T, H, W, 3) uint8. Colours go through BT.709, limited range, both ways. One thread, so that the same clip gives
        the same bits on every machine with the same encoder.

    Raises:
        ConfigError: an encoder that this build of FFmpeg does not have, or that does not take the pixel format.
        ShapeError: `frames` is not such an array.
        DecodeError: other than T frames came back.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ShapeError(f"frames are {frames.dtype} of shape {frames.shape}; they must be uint8 (T, H, W, 3)")
    count, height, width, _ = frames.shape
    # Even sides, for subsampled colour.
    below = max(_MIN_HEIGHT_PX, height + height % 2) - height
    right = max(_MIN_WIDTH_PX, width + width % 2) - width
    padded = np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    try:
        decoded = _decode(_encode(padded, encoding, pixel_format), encoding.codec)
    except (FFmpegError, ValueError) as error:
        raise ConfigError(f"{encoding} in {pixel_format} does not work with this FFmpeg: {error}") from error
    if len(decoded) != count:
        raise DecodeError(f"{encoding.codec} returned {len(decoded)} frames of {count}; try another codec or quality")
    return np.stack(decoded)[:, :height, :width]


def _encode(frames: np.ndarray, encoding: ClipEncoding, pixel_format: str) -> list[av.Packet]:
    encoder = CodecContext.create(_CODECS[encoding.codec][0], "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt = pixel_format
    encoder.framerate = Fraction(_FRAME_RATE)
    encoder.time_base = Fraction(1, _FRAME_RATE)
    encoder.thread_count = 1
    encoder.options = encoding.options()
    if encoding.bits_per_pixel is not None:
        encoder.bit_rate = round(encoding.bits_per_pixel * frames.shape[1] * frames.shape[2] * _FRAME_RATE)
    elif encoding.codec == "vp9":
        encoder.bit_rate = 0  # constant quality instead of the library's default rate
    packets: list[av.Packet] = []
    for index, pixels in enumerate(frames):
        frame = from_rgb(pixels, pixel_format, _COLOUR)
        frame.pts = index
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def _decode(packets: list[av.Packet], codec: Codec) -> list[np.ndarray]:
    decoder = CodecContext.create(_CODECS[codec][1], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    return [to_rgb(frame, _COLOUR) for packet in [*packets, None] for frame in decoder.decode(packet)]
