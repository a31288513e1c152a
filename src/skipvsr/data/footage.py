"""How real footage came to be: random settings of blur, resizing, noise and one or two encodings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from skipvsr.video.compress import ClipEncoding, Codec

ResizeKernel = Literal["bicubic", "bilinear", "area"]

_CODECS: tuple[Codec, ...] = ("h264", "h265", "vp9", "mpeg4", "mpeg2")
_CODEC_RATIOS = (0.6, 0.2, 0.08, 0.06, 0.06)
# How many draws of all are blurred, noisy, encoded at full size, and encoded when small. Most footage is only compressed; more
# of the rest costs sharpness where nothing is wrong (docs/training.md).
_BLURRED, _NOISY, _SOURCE_ENCODED, _ENCODED = 0.25, 0.2, 0.15, 0.75
# From visually lossless to plainly damaged, on each codec's own scale.
_QUALITIES: dict[Codec, tuple[int, int]] = {
    "h264": (14, 37),
    "h265": (16, 37),
    "vp9": (20, 50),
    "mpeg4": (2, 10),
    "mpeg2": (2, 10),
}
_PRESETS = ("ultrafast", "veryfast", "fast", "medium")
_MAX_LEAD_FRAMES = 40


@dataclass(frozen=True)
class Footage:
    """One way in which real footage came to be: the settings of the degradation "video".

    Blur is a Gaussian with two standard deviations in HR pixels along axes turned by `blur_degrees`; (0, 0) is none. Noise has
    the standard deviation sqrt(read_noise^2 + shot_noise * signal), signal in [0, 1]; grey noise is the same in R, G, B.
    `source` is an encoding at full size, before everything else, and `encoding` one of the small frames. `lead_frames` are
    coded before the clip and dropped, so that it may lie anywhere in a long group of pictures.
    """

    blur_sigmas_px: tuple[float, float] = (0.0, 0.0)
    blur_degrees: float = 0.0
    resize: ResizeKernel = "bicubic"
    read_noise: float = 0.0
    shot_noise: float = 0.0
    grey_noise: bool = False
    source: ClipEncoding | None = None
    encoding: ClipEncoding | None = None
    lead_frames: int = 0


def draw_footage(random: np.random.Generator) -> Footage:
    """Settings from clean to soft, noisy and heavily compressed.

    Three quarters are not blurred beyond the resize, four fifths have no noise, and a quarter is not compressed, so that a
    network learns to leave clean footage alone.
    """
    blur = _draw_blur(random) if random.random() < _BLURRED else (0.0, 0.0)
    noisy = random.random() < _NOISY
    return Footage(
        blur_sigmas_px=blur,
        blur_degrees=float(random.uniform(0, 180)),
        resize=("bicubic", "bilinear", "area")[random.choice(3, p=(0.7, 0.15, 0.15))],
        read_noise=float(np.exp(random.uniform(np.log(0.002), np.log(0.02)))) if noisy else 0.0,
        shot_noise=float(np.exp(random.uniform(np.log(1e-5), np.log(1e-3)))) if noisy else 0.0,
        grey_noise=bool(random.random() < 0.4),
        source=ClipEncoding("h264", int(random.integers(15, 29))) if random.random() < _SOURCE_ENCODED else None,
        encoding=draw_encoding(random) if random.random() < _ENCODED else None,
        lead_frames=int(random.integers(0, _MAX_LEAD_FRAMES + 1)),
    )


def draw_encoding(random: np.random.Generator) -> ClipEncoding:
    """An encoding of small frames: codec, quality or bit rate, preset and B-frames."""
    codec = _CODECS[random.choice(len(_CODECS), p=_CODEC_RATIOS)]
    best, worst = _QUALITIES[codec]
    by_rate = codec == "h264" and random.random() < 0.25
    return ClipEncoding(
        codec,
        quality=int(random.integers(best, worst + 1)),
        bits_per_pixel=float(np.exp(random.uniform(np.log(0.04), np.log(0.5)))) if by_rate else None,
        preset=_PRESETS[random.integers(len(_PRESETS))],
        b_frames=int(random.choice((0, 2, 3))),
        keyframe_interval=int(random.choice((12, 50, 250))),
    )


def _draw_blur(random: np.random.Generator) -> tuple[float, float]:
    long, short = sorted(random.uniform(0.2, 1.8, size=2), reverse=True)
    if random.random() < 0.5:
        short = long  # isotropic: an out-of-focus lens rather than a shaken one
    return float(long), float(short)
