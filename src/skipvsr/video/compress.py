"""A clip through a real encoder and back, in memory: how footage gets its compression noise."""

from __future__ import annotations

from typing import Literal

import av
import numpy as np
from av.video.reformatter import Interpolation

from skipvsr.errors import ConfigError, DecodeError, ShapeError

Codec = Literal["h264", "h265"]

# Encoder, decoder, and what keeps a clip's bits independent of the machine's number of cores.
_CODECS = {
    "h264": ("libx264", "h264", {}),
    "h265": ("libx265", "hevc", {"x265-params": "log-level=error:pools=none:frame-threads=1"}),
}
MAX_CRF = 51

# FFmpeg's default conversion between YUV 4:2:0 and RGB is the fast one: it darkens pictures by one level of 255.
_ACCURATE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


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
    # Subsampled colour needs even sides.
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    try:
        decoded = _decode(_encode(even, codec, crf, pixel_format), codec)
    except (av.FFmpegError, ValueError) as error:
        raise ConfigError(f"{codec} at crf {crf} in {pixel_format} does not work with this FFmpeg: {error}") from error
    if len(decoded) != count:
        raise DecodeError(f"{codec} returned {len(decoded)} frames of {count}; try another codec or quality")
    return np.stack(decoded)[:, :height, :width]


def _encode(frames: np.ndarray, codec: Codec, crf: int, pixel_format: str) -> list[av.Packet]:
    name, _, options = _CODECS[codec]
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt = pixel_format
    encoder.framerate = 25
    encoder.thread_count = 1
    # "veryfast" is near to what the encoders inside phones do.
    encoder.options = {"crf": str(crf), "preset": "veryfast", **options}
    packets: list[av.Packet] = []
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
            format=pixel_format,
            dst_colorspace="ITU709",
            src_color_range="JPEG",
            dst_color_range="MPEG",
            interpolation=_ACCURATE,
        )
        frame.pts = index
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def _decode(packets: list[av.Packet], codec: Codec) -> list[np.ndarray]:
    decoder = av.CodecContext.create(_CODECS[codec][1], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    decoded: list[np.ndarray] = []
    for packet in [*packets, None]:
        for frame in decoder.decode(packet):
            rgb = frame.reformat(
                format="rgb24",
                src_colorspace="ITU709",
                src_color_range="MPEG",
                dst_color_range="JPEG",
                interpolation=_ACCURATE,
            )
            decoded.append(rgb.to_ndarray())
    return decoded
