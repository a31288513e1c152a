"""How a high-resolution clip becomes a low-resolution one: BI, BD in its two phases, and real footage.

Every function takes a clip (T, 3, H, W), RGB float in [0, 1], and returns (T, 3, H / s, W / s) in [0, 1] for the scale s,
rounded to 8 bit as a saved image would be. BD is defined for x4 alone. Frames do not influence one another in `bi`, `bd`
and `bd_duf`; they do where an encoder comes in.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.data.footage import Footage, ResizeKernel, draw_footage
from skipvsr.errors import ConfigError, ShapeError
from skipvsr.models.blocks import SCALE
from skipvsr.models.resize import bicubic_downsample
from skipvsr.video.compress import ClipEncoding, compress_clip

BLUR_SIGMA_PX = 1.6

# "h264-23": BI, then H.264 at CRF 23.
Degradation = Literal["bi", "bd", "bd-duf", "video", "h264-18", "h264-23", "h264-28", "h264-33", "h265-28"]
DEGRADATIONS: tuple[str, ...] = get_args(Degradation)
# These make each LR frame from its HR frame alone.
FRAMEWISE: tuple[Degradation, ...] = ("bi", "bd", "bd-duf")


def degrade(
    clip: Tensor, kind: Degradation, random: np.random.Generator | None = None, *, scale: int = SCALE
) -> Tensor:
    """Apply the degradation named `kind`; (T, 3, H, W) -> (T, 3, H / s, W / s) for the scale s.

    `random` is needed, and used, by "video" only.

    Raises:
        ConfigError: an unknown name, or BD with another scale than 4.
        ShapeError: sides that are not multiples of the scale.
    """
    match kind:
        case "bi":
            return bi(clip, scale)
        case "bd" | "bd-duf":
            if scale != SCALE:
                raise ConfigError(f"the degradation {kind} is defined for x4, not x{scale}; take bi or video")
            return bd(clip) if kind == "bd" else bd_duf(clip)
        case "video":
            assert random is not None, "the video degradation draws random numbers"
            return video(clip, draw_footage(random), random, scale)
        case "h264-18" | "h264-23" | "h264-28" | "h264-33" | "h265-28":
            return compressed(clip, _as_published(kind), scale)
    raise ConfigError(f"degradation is {kind!r}; it must be one of {', '.join(DEGRADATIONS)}")


def _as_published(kind: str) -> ClipEncoding:
    """ "h264-23" -> H.264 at CRF 23, as an encoder's defaults have it."""
    codec, crf = kind.split("-")
    return ClipEncoding("h264" if codec == "h264" else "h265", int(crf), preset="medium")


def bi(clip: Tensor, scale: int = SCALE) -> Tensor:
    """MATLAB's `imresize(clip, 1/s, "bicubic")`, the degradation "BI"; LR pixel j sits at HR s * j + (s - 1) / 2."""
    return round_to_8_bit(bicubic_downsample(_checked(clip, scale), scale))


def bd(clip: Tensor) -> Tensor:
    """Blur and take every fourth pixel as BasicVSR's own BD script does; LR pixel j sits at HR 4j + 1.5.

    The script's kernel has 12 taps per side, from -5 to +6 around pixel i (MATLAB's origin of an even kernel), so that
    its centre is i + 0.5; it keeps i = 1, 5, 9, ... of the blurred image. Borders repeat the edge pixel.
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


def compressed(clip: Tensor, encoding: ClipEncoding, scale: int = SCALE) -> Tensor:
    """BI, then through an encoder and back, the clip from its first frame on."""
    return _through(bi(clip, scale), encoding)


def video(clip: Tensor, footage: Footage, random: np.random.Generator, scale: int = SCALE) -> Tensor:
    """Encode at full size, blur, resize by 1/s, add noise, encode again; what of it, `footage` says.

    `random` supplies the noise; with the same clip, settings and generator state the result is the same. LR pixel j
    sits where `bi` has it.
    """
    if footage.source is not None:
        clip = _through(_checked(clip, scale), footage.source)
    lr = _blur_and_resize(_checked(clip, scale), footage, scale)
    noise_shape = (lr.shape[0], 1 if footage.grey_noise else 3, *lr.shape[2:])
    noise = torch.from_numpy(random.standard_normal(noise_shape, dtype=np.float32)).to(lr)
    deviation = (footage.read_noise**2 + footage.shot_noise * lr.clamp(0, 1)).sqrt()
    lr = (lr + deviation * noise).clamp(0, 1)
    if footage.encoding is None:
        return round_to_8_bit(lr)
    return _through(lr, footage.encoding, footage.lead_frames)


def _through(clip: Tensor, encoding: ClipEncoding, lead_frames: int = 0) -> Tensor:
    """A clip (T, 3, H, W) as it comes out of a decoder; `lead_frames` are coded before it, the clip played to and fro."""
    period = max(2 * (len(clip) - 1), 1)
    # -1 is frame 1, -2 is frame 2, ..., and at the last frame it turns round.
    lead = [min(back % period, period - back % period) for back in range(lead_frames, 0, -1)]
    frames = (clip[lead + list(range(len(clip)))] * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    coded = torch.from_numpy(compress_clip(frames, encoding)[lead_frames:])
    return coded.permute(0, 3, 1, 2).contiguous().to(clip) / 255


def round_to_8_bit(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1 / 255; same shape."""
    return (images.clamp(0, 1) * 255).round() / 255


def _checked(clip: Tensor, scale: int = SCALE) -> Tensor:
    if clip.ndim != 4 or clip.shape[1] != 3 or not clip.is_floating_point():
        raise ShapeError(f"clip is {clip.dtype} of shape {tuple(clip.shape)}; it must be floating (T, 3, H, W)")
    height, width = clip.shape[-2:]
    if height % scale or width % scale or min(height, width) < 2 * scale:
        raise ShapeError(
            f"clip is {width}x{height}; both sides must be multiples of {scale} and at least {2 * scale}: cut it first"
        )
    return clip


def _gaussian(taps: int) -> Tensor:
    """The 1-D factor of MATLAB's `fspecial("gaussian", taps, 1.6)`."""
    x = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    weights = torch.exp(-(x**2) / (2 * BLUR_SIGMA_PX**2))
    return weights / weights.sum()


def _blur_and_stride(padded: Tensor, taps: Tensor) -> Tensor:
    """Correlate rows and columns with `taps` without padding, keeping every fourth result.

    Written as sums of shifted images, not as a convolution: the sums of a crop are then, to the last bit, those of
    the whole image, whatever algorithm a convolution would choose for the two sizes.
    """
    for dim in (-1, -2):
        reach = padded.shape[dim] - len(taps) + 1
        total = padded.new_zeros(())
        for tap, weight in enumerate(taps.tolist()):
            part = padded.narrow(dim, tap, reach)
            total = total + weight * (part[..., ::SCALE] if dim == -1 else part[..., ::SCALE, :])
        padded = total
    return padded


def _blur_and_resize(clip: Tensor, footage: Footage, scale: int) -> Tensor:
    """Blur and resize in one strided correlation with the convolution of the two kernels; borders repeat the edge."""
    resize = _resize_taps(footage.resize, scale)
    reach = len(resize) - 1
    blur = F.pad(_elliptic_gaussian(footage), (reach,) * 4)
    kernel = F.conv2d(blur[None, None], torch.outer(resize, resize)[None, None])
    # An even number of taps around s * j + (s - 1) / 2.
    border = kernel.shape[-1] // 2 - scale // 2
    padded = F.pad(clip, (border,) * 4, mode="replicate")
    lr = F.conv2d(padded.flatten(0, 1)[:, None], kernel.to(clip), stride=scale)
    return lr.view(*clip.shape[:2], *lr.shape[-2:])


def _elliptic_gaussian(footage: Footage) -> Tensor:
    """The blur kernel, square and float64: a Gaussian of two widths, turned by an angle, cut off at three sigma."""
    if max(footage.blur_sigmas_px) == 0:
        return torch.ones(1, 1, dtype=torch.float64)
    angle = np.deg2rad(footage.blur_degrees)
    radius = math.ceil(3 * max(footage.blur_sigmas_px))
    side = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    along = (x * np.cos(angle) + y * np.sin(angle)) / footage.blur_sigmas_px[0]
    across = (y * np.cos(angle) - x * np.sin(angle)) / footage.blur_sigmas_px[1]
    kernel = torch.exp(-0.5 * (along**2 + across**2))
    return kernel / kernel.sum()


def _resize_taps(kernel: ResizeKernel, scale: int) -> Tensor:
    """The 1-D taps of an antialiased resize by 1/s, around s * j + (s - 1) / 2: Keys' cubic, a triangle, or a box."""
    match kernel:
        case "bicubic":
            x = (torch.arange(4 * scale, dtype=torch.float64) - (4 * scale - 1) / 2).abs() / scale
            near = 1.5 * x**3 - 2.5 * x**2 + 1
            far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            return torch.where(x <= 1, near, far) / scale
        case "bilinear":
            x = (torch.arange(2 * scale, dtype=torch.float64) - (2 * scale - 1) / 2).abs() / scale
            return (1 - x) / scale
        case "area":
            return torch.full((scale,), 1 / scale, dtype=torch.float64)
