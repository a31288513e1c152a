"""How a high-resolution clip becomes a low-resolution one: BI, BD in its two phases, and real footage.

Every function takes a clip (T, 3, H, W), RGB float in [0, 1], and returns (T, 3, H / 4, W / 4) in [0, 1], rounded to
8 bit as a saved picture would be. Frames do not influence one another in `bi`, `bd` and `bd_duf`; they do in `video`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.errors import ConfigError, ShapeError
from skipvsr.models.resize import bicubic_downsample
from skipvsr.video.compress import Codec, compress_clip

SCALE = 4
BLUR_SIGMA_PX = 1.6

Degradation = Literal["bi", "bd", "bd-duf", "video"]
DEGRADATIONS: tuple[str, ...] = get_args(Degradation)
ResizeKernel = Literal["bicubic", "bilinear", "area"]


def degrade(clip: Tensor, kind: Degradation, random: np.random.Generator | None = None) -> Tensor:
    """Apply the degradation named `kind`; (T, 3, H, W) -> (T, 3, H / 4, W / 4).

    `random` is needed, and used, by "video" only.

    Raises:
        ConfigError: an unknown name.
        ShapeError: sides that are not multiples of 4.
    """
    match kind:
        case "bi":
            return bi(clip)
        case "bd":
            return bd(clip)
        case "bd-duf":
            return bd_duf(clip)
        case "video":
            assert random is not None, "the video degradation draws random numbers"
            return video(clip, draw_footage(random), random)
    raise ConfigError(f"degradation is {kind!r}; it must be one of {', '.join(DEGRADATIONS)}")


def bi(clip: Tensor) -> Tensor:
    """MATLAB's `imresize(clip, 1/4, "bicubic")`, the degradation "BI"; LR pixel j sits at HR 4j + 1.5."""
    return round_to_8_bit(bicubic_downsample(_checked(clip), SCALE))


def bd(clip: Tensor) -> Tensor:
    """Blur and take every fourth pixel as BasicVSR's own BD script does; LR pixel j sits at HR 4j + 1.5.

    The script's kernel has 12 taps per side, from -5 to +6 around pixel i (MATLAB's origin of an even kernel), so that
    its centre is i + 0.5; it keeps i = 1, 5, 9, ... of the blurred picture. Borders repeat the edge pixel.
    """
    padded = F.pad(_checked(clip), (5, 6, 5, 6), mode="replicate")[..., 1:, 1:]
    return round_to_8_bit(_blur_and_stride(padded, _gaussian(12)))


def bd_duf(clip: Tensor) -> Tensor:
    """Blur and take every fourth pixel as DUF, PFNL and EDVR's tests do; LR pixel j sits at HR 4j.

    13 taps per side, borders mirrored without the edge pixel. 1.5 HR pixels off `bd`: a network trained on one loses
    about 12 dB on the other.
    """
    padded = F.pad(_checked(clip), (6, 6, 6, 6), mode="reflect")
    return round_to_8_bit(_blur_and_stride(padded, _gaussian(13)))


@dataclass(frozen=True)
class Footage:
    """One way in which real footage came to be: the settings of `video`.

    Blur is a Gaussian with two standard deviations in HR pixels along axes turned by `blur_degrees`. Noise has the
    standard deviation sqrt(read_noise^2 + shot_noise * signal), signal in [0, 1]; grey noise is the same in R, G, B.
    `lead_frames` mirrored frames are coded before the clip and dropped, so that it need not begin with a key frame.
    """

    blur_sigmas_px: tuple[float, float]
    blur_degrees: float
    resize: ResizeKernel
    read_noise: float
    shot_noise: float
    grey_noise: bool
    codec: Codec
    crf: int
    lead_frames: int


def draw_footage(random: np.random.Generator) -> Footage:
    """Settings from soft but clean to noisy and heavily compressed, each on its own uniform or log-uniform range."""
    long, short = sorted(random.uniform(0.2, 2.4, size=2), reverse=True)
    if random.random() < 0.5:
        short = long  # isotropic: an out-of-focus lens rather than a shaken one
    noisy = random.random() < 0.7
    codec: Codec = "h264" if random.random() < 0.6 else "h265"
    return Footage(
        blur_sigmas_px=(float(long), float(short)),
        blur_degrees=float(random.uniform(0, 180)),
        resize=("bicubic", "bilinear", "area")[random.integers(3)],
        read_noise=float(np.exp(random.uniform(np.log(0.002), np.log(0.03)))) if noisy else 0.0,
        shot_noise=float(np.exp(random.uniform(np.log(1e-5), np.log(2e-3)))) if noisy else 0.0,
        grey_noise=bool(random.random() < 0.4),
        codec=codec,
        crf=int(random.integers(15, 33)) if codec == "h264" else int(random.integers(17, 35)),
        lead_frames=int(random.integers(0, 4)),
    )


def video(clip: Tensor, footage: Footage, random: np.random.Generator) -> Tensor:
    """Blur, resize by 1/4, add noise, and send the clip through a real H.264 or H.265 encoder.

    `random` supplies the noise; with the same clip, settings and generator state the result is the same. LR pixel j
    sits at HR 4j + 1.5, as in `bi`.
    """
    lr = _blur_and_resize(_checked(clip), footage)
    noise_shape = (lr.shape[0], 1 if footage.grey_noise else 3, *lr.shape[2:])
    noise = torch.from_numpy(random.standard_normal(noise_shape, dtype=np.float32)).to(lr)
    deviation = (footage.read_noise**2 + footage.shot_noise * lr.clamp(0, 1)).sqrt()
    lr = (lr + deviation * noise).clamp(0, 1)

    lead = min(footage.lead_frames, lr.shape[0] - 1)
    lr = torch.cat((lr[1 : lead + 1].flip(0), lr))
    frames = (lr * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    coded = torch.from_numpy(compress_clip(frames, footage.codec, footage.crf)[lead:])
    return coded.permute(0, 3, 1, 2).contiguous().to(lr) / 255


def round_to_8_bit(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1 / 255; same shape."""
    return (images.clamp(0, 1) * 255).round() / 255


def _checked(clip: Tensor) -> Tensor:
    if clip.ndim != 4 or clip.shape[1] != 3 or not clip.is_floating_point():
        raise ShapeError(f"clip is {clip.dtype} of shape {tuple(clip.shape)}; it must be floating (T, 3, H, W)")
    height, width = clip.shape[-2:]
    if height % SCALE or width % SCALE or min(height, width) < 2 * SCALE:
        raise ShapeError(
            f"clip is {width}x{height}; both sides must be multiples of {SCALE} and at least {2 * SCALE}: cut it first"
        )
    return clip


def _gaussian(taps: int) -> Tensor:
    """The 1-D factor of MATLAB's `fspecial("gaussian", taps, 1.6)`."""
    x = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    weights = torch.exp(-(x**2) / (2 * BLUR_SIGMA_PX**2))
    return weights / weights.sum()


def _blur_and_stride(padded: Tensor, taps: Tensor) -> Tensor:
    """Correlate rows and columns with `taps` without padding, keeping every fourth result.

    Written as sums of shifted pictures, not as a convolution: the sums of a crop are then, to the last bit, those of
    the whole picture, whatever algorithm a convolution would choose for the two sizes.
    """
    for dim in (-1, -2):
        reach = padded.shape[dim] - len(taps) + 1
        total = padded.new_zeros(())
        for tap, weight in enumerate(taps.tolist()):
            part = padded.narrow(dim, tap, reach)
            total = total + weight * (part[..., ::SCALE] if dim == -1 else part[..., ::SCALE, :])
        padded = total
    return padded


def _blur_and_resize(clip: Tensor, footage: Footage) -> Tensor:
    """Blur and resize in one strided correlation with the convolution of the two kernels; borders repeat the edge."""
    resize = _resize_taps(footage.resize)
    reach = len(resize) - 1
    blur = F.pad(_elliptic_gaussian(footage), (reach,) * 4)
    kernel = F.conv2d(blur[None, None], torch.outer(resize, resize)[None, None])
    # An even number of taps around 4j + 1.5.
    border = kernel.shape[-1] // 2 - SCALE // 2
    padded = F.pad(clip, (border,) * 4, mode="replicate")
    lr = F.conv2d(padded.flatten(0, 1)[:, None], kernel.to(clip), stride=SCALE)
    return lr.view(*clip.shape[:2], *lr.shape[-2:])


def _elliptic_gaussian(footage: Footage) -> Tensor:
    """The blur kernel, square and float64: a Gaussian of two widths, turned by an angle, cut off at three sigma."""
    angle = np.deg2rad(footage.blur_degrees)
    radius = math.ceil(3 * max(footage.blur_sigmas_px))
    side = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    along = (x * np.cos(angle) + y * np.sin(angle)) / footage.blur_sigmas_px[0]
    across = (y * np.cos(angle) - x * np.sin(angle)) / footage.blur_sigmas_px[1]
    kernel = torch.exp(-0.5 * (along**2 + across**2))
    return kernel / kernel.sum()


def _resize_taps(kernel: ResizeKernel) -> Tensor:
    """The 1-D taps of an antialiased resize by 1/4, around 4j + 1.5: Keys' cubic, a triangle, or a box."""
    match kernel:
        case "bicubic":
            x = (torch.arange(16, dtype=torch.float64) - 7.5).abs() / SCALE
            near = 1.5 * x**3 - 2.5 * x**2 + 1
            far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            return torch.where(x <= 1, near, far) / SCALE
        case "bilinear":
            x = (torch.arange(8, dtype=torch.float64) - 3.5).abs() / SCALE
            return (1 - x) / SCALE
        case "area":
            return torch.full((SCALE,), 1 / SCALE, dtype=torch.float64)
