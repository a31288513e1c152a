"""A clip through a real encoder and back, in memory: how footage gets its compression noise."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import av
import numpy as np
from av.codec import CodecContext
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from skipvsr.errors import ConfigError, DecodeError, ShapeError
from skipvsr.video.colour import BT709, LIMITED, ColourSpec, from_rgb, to_rgb

Codec = Literal["h264", "h265"]

# Encoder, decoder, and what keeps a clip's bits independent of the machine's number of cores.
_CODECS = {
    # x264's macroblock tree gives other bits from run to run on small pictures, even with one thread.
    "h264": ("libx264", "h264", {"x264-params": "mbtree=0"}),
    "h265": ("libx265", "hevc", {"x265-params": "log-level=error:pools=none:frame-threads=1"}),
}
MAX_CRF = 51
# x265 takes no lower pictures, and corrupts memory where they are 33 to 48 px wide, whatever its settings.
_MIN_HEIGHT_PX, _MIN_WIDTH_PX = 16, 64
_COLOUR = ColourSpec(BT709, LIMITED)


def compress_clip(frames: np.ndarray, codec: Codec, crf: int, pixel_format: str = "yuv420p") -> np.ndarray:
    """Encode a clip at constant quality, decode it again, and return what is left.

    Args:
        frames: (T, H, W, 3) uint8, full-range RGB; any H and W, odd ones included.
        codec: "h264" or "h265".
        crf: the encoder's constant rate factor, 0 (best) to 51 (worst).
        pixel_format: what the encoder stores; "yuv420p" halves the resolution of colour, "yuv444p" does not.

    Returns:
        (T, H, W, 3) uint8. Colours go through BT.709, limited range, both ways. One thread, so that the same clip gives
        the same bits on every machine with the same encoder.

    Raises:
        ConfigError: an unknown codec, a CRF out of range, or an encoder that this build of FFmpeg does not have.
        ShapeError: `frames` is not such an array.
        DecodeError: other than T frames came back.
    """
    if codec not in _CODECS:
        raise ConfigError(f"codec is {codec!r}; it must be one of {', '.join(_CODECS)}")
    if not 0 <= crf <= MAX_CRF:
        raise ConfigError(f"crf is {crf}; it must be from 0 (best) to {MAX_CRF} (worst)")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ShapeError(f"frames are {frames.dtype} of shape {frames.shape}; they must be uint8 (T, H, W, 3)")
    count, height, width, _ = frames.shape
    # Even sides, for subsampled colour.
    below = max(_MIN_HEIGHT_PX, height + height % 2) - height
    right = max(_MIN_WIDTH_PX, width + width % 2) - width
    padded = np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    try:
        decoded = _decode(_encode(padded, codec, crf, pixel_format), codec)
    except (FFmpegError, ValueError) as error:
        raise ConfigError(f"{codec} at crf {crf} in {pixel_format} does not work with this FFmpeg: {error}") from error
    if len(decoded) != count:
        raise DecodeError(f"{codec} returned {len(decoded)} frames of {count}; try another codec or quality")
    return np.stack(decoded)[:, :height, :width]


def _encode(frames: np.ndarray, codec: Codec, crf: int, pixel_format: str) -> list[av.Packet]:
    name, _, options = _CODECS[codec]
    encoder = CodecContext.create(name, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt = pixel_format
    encoder.framerate = Fraction(25)
    encoder.thread_count = 1
    # "veryfast" is near to what the encoders inside phones do.
    encoder.options = {"crf": str(crf), "preset": "veryfast", **options}
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
