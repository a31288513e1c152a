"""A camera moving over a photograph: clips whose optical flow is known exactly.

A still is a plane that the camera looks at. In frame t, the HR pixel at offset u from the middle of the image shows
the point q of the still

    a = matrix_t u + centre_t              pan, zoom, rotation, mirror image
    q = a + depth(a) parallax_t            points that are nearer move further

with `depth` smooth and in [-1, 1]. To follow a point into another frame, the second line is inverted by iteration and
the first by algebra. All positions are (x, y), in pixels, of pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.data.degradations import SCALE

_SHORTEST_WAVE_PX = 160.0
_WAVES = 3
# The inversion halves its error at least by this each round.
_STEEPEST = 0.4
_INVERSION_ROUNDS = 30


@dataclass(frozen=True)
class MotionRange:
    """The most a synthetic camera does, per frame, in HR pixels; small motion is drawn more often than large.

    `zoom` and `rotation_degrees` are per frame too: 0.01 is 1 % larger with every frame. `shake_px` is the standard
    deviation of a hand's independent jitter. One clip in ten is static.
    """

    pan_px: float = 16.0
    zoom: float = 0.01
    rotation_degrees: float = 0.6
    parallax_px: float = 3.0
    shake_px: float = 0.8


@dataclass(frozen=True)
class CameraPath:
    """Where the camera is in each of T frames (see the equations above); all float64.

    matrices (T, 2, 2), centres (T, 2) and parallax (T, 2), the last two in pixels of the still; waves (K, 4) are
    amplitude, angular frequency in x and y, and angle of the cosines that sum up to depth; amplitudes sum up to 1.
    """

    matrices: Tensor
    centres: Tensor
    parallax: Tensor
    waves: Tensor

    @property
    def frames(self) -> int:
        return len(self.centres)


@dataclass(frozen=True)
class KnownFlow:
    """Exact flow between the neighbours of a clip, in LR pixels, as `skipvsr.models.flow.warp` takes it.

    forward[i] brings frame i onto frame i + 1: frame[i + 1](x) = frame[i](x + forward[i](x)); backward[i] brings frame
    i + 1 onto frame i. Both (T - 1, 2, h, w). The masks (T - 1, 1, h, w) are False where content comes from outside
    the other frame.
    """

    forward: Tensor
    backward: Tensor
    forward_valid: Tensor
    backward_valid: Tensor


def draw_path(
    frames: int,
    size_px: int,
    still_size: tuple[int, int],
    random: np.random.Generator,
    motion: MotionRange | None = None,
) -> CameraPath:
    """A random camera path that stays over the still where it can.

    Args:
        frames: length of the clip.
        size_px: side of the square HR image.
        still_size: height and width of the still.
        motion: how fast the camera may be.
    """
    motion = motion or MotionRange()
    time = np.arange(frames) - (frames - 1) / 2
    calm = 0.0 if random.random() < 0.1 else 1.0

    def rate(most: float) -> float:
        """Signed, and small more often than large."""
        return calm * most * random.uniform(-1, 1) * random.random()

    zoom = 0.5 * (0.65 + 0.45 * random.random()) if min(still_size) < size_px else 0.65 + 0.45 * random.random()
    scale = zoom * np.exp(rate(motion.zoom) * time)
    turn = math.pi / 2 * random.integers(4) + random.normal(0, 0.06)
    angle = turn + np.deg2rad(rate(motion.rotation_degrees)) * time
    mirror = -1.0 if random.random() < 0.5 else 1.0
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    matrices = np.stack((np.stack((mirror * cosine, -sine), -1), np.stack((mirror * sine, cosine), -1)), -2)

    heading = random.uniform(0, 2 * math.pi)
    direction = np.array((math.cos(heading), math.sin(heading)))
    speed = rate(motion.pan_px)
    bend = rate(motion.pan_px / 8) * random.normal(size=2)
    offset = zoom * (time[:, None] * speed * direction + 0.5 * time[:, None] ** 2 * bend / max(frames, 1))
    offset += zoom * calm * motion.shake_px * random.random() ** 2 * random.normal(size=(frames, 2))
    centres = _middle(offset, 0.6 * zoom * size_px, still_size, random) + offset

    sideways = direction * rate(motion.parallax_px) + 0.3 * random.normal(size=2) * rate(motion.parallax_px)
    waves = _draw_waves(random)
    parallax = _limited(zoom * time[:, None] * sideways, waves)
    return CameraPath(*(torch.from_numpy(part) for part in (matrices, centres, parallax, waves)))


def render(still: Tensor, path: CameraPath, height: int, width: int, *, sharp: bool = True) -> Tensor:
    """What the camera sees: (3, H, W) uint8 -> (T, 3, height, width) float in [0, 1].

    Sampling is bicubic, sharp enough for ground truth, or bilinear with `sharp=False`, at a third of the cost: enough
    where only LR is wanted. A path of `draw_path` takes steps of about one pixel of the still, so that nothing needs
    averaging. Beyond its border the still is mirrored.
    """
    size = torch.tensor((still.shape[-1] - 1, still.shape[-2] - 1), dtype=torch.float32)
    grid = (2 * _look_everywhere(path, height, width) / size - 1).view(1, path.frames * height, width, 2)
    mode = "bicubic" if sharp else "bilinear"
    drawn = F.grid_sample(still[None].float(), grid, mode=mode, padding_mode="reflection", align_corners=True)
    return drawn[0].view(3, path.frames, height, width).transpose(0, 1).clamp(0, 255) / 255


def known_flow(path: CameraPath, height: int, width: int) -> KnownFlow:
    """Exact flow between neighbouring frames of LR size height x width, rendered at 4 times that size."""
    earlier = torch.arange(path.frames - 1)
    forward, forward_valid = exact_flow(path, earlier + 1, earlier, height, width)
    backward, backward_valid = exact_flow(path, earlier, earlier + 1, height, width)
    return KnownFlow(forward, backward, forward_valid, backward_valid)


def exact_flow(
    path: CameraPath, reference: Tensor, support: Tensor, height: int, width: int, scale: int = SCALE
) -> tuple[Tensor, Tensor]:
    """Flow that brings frames `support` onto frames `reference` (both (N,) indices), at LR size.

    Returns:
        Flow (N, 2, height, width) float32 in LR pixels, exact to about 1e-4, and where it stays inside the image,
        (N, 1, height, width) bool. LR pixels sit where `bi` and `bd` place them; a constant shift of the
        LR grid, as in `bd_duf`, changes flow by less than its own change over 0.4 LR pixels.
    """
    pixels = _offsets(height, width, scale).reshape(-1, 2)
    seen = _look(path, pixels.expand(len(reference), -1, -1), reference)
    found = _find(path, seen, support)
    flow = ((found - pixels) / scale).view(-1, height, width, 2)
    middle = torch.tensor(((width - 1) / 2, (height - 1) / 2), dtype=torch.float64)
    position = (found / scale + middle).view(-1, height, width, 2)
    inside = (position >= 0) & (position <= 2 * middle)
    return flow.permute(0, 3, 1, 2).float(), inside.all(dim=-1)[:, None]


def _offsets(height: int, width: int, step: int) -> Tensor:
    """Offsets (height, width, 2) of pixel centres from the middle of the image, `step` HR pixels apart."""
    y = (torch.arange(height, dtype=torch.float64) - (height - 1) / 2) * step
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * step
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)


def _look(path: CameraPath, offsets: Tensor, frames: Tensor) -> Tensor:
    """The points of the still that frames (N,) show at offsets (N, P, 2)."""
    matrices, centres, parallax = (part[frames].to(offsets) for part in (path.matrices, path.centres, path.parallax))
    plane = offsets @ matrices.transpose(1, 2) + centres[:, None]
    return plane + _depth(plane, path.waves) * parallax[:, None]


def _look_everywhere(path: CameraPath, height: int, width: int) -> Tensor:
    """`_look` of every frame at every pixel, (T, height, width, 2) float32, without a cosine per pixel.

    With offset (x, y), a wave's angle is a sum f(x) + g(y), and cos(f + g) = cos f cos g - sin f sin g: the depth of a
    frame is a product of two small matrices.
    """
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    amplitude, frequency, angle = path.waves[:, 0], path.waves[:, 1:3], path.waves[:, 3]
    turned = frequency @ path.matrices  # (T, K, 2): radians per HR pixel
    f = turned[..., 0, None] * x
    g = turned[..., 1, None] * y + (path.centres @ frequency.T + angle)[..., None]
    rows = torch.cat((g.cos(), -g.sin()), dim=1) * amplitude.repeat(2)[:, None]
    depth = rows.transpose(1, 2).float() @ torch.cat((f.cos(), f.sin()), dim=1).float()  # (T, height, width)

    down = (y[:, None] * path.matrices[:, None, :, 1] + path.centres[:, None]).float()  # (T, height, 2)
    across = (x[:, None] * path.matrices[:, None, :, 0]).float()  # (T, width, 2)
    return down[:, :, None] + across[:, None] + depth[..., None] * path.parallax[:, None, None].float()


def _find(path: CameraPath, points: Tensor, frames: Tensor) -> Tensor:
    """The offsets at which frames (N,) show points (N, P, 2) of the still: the inverse of `_look`."""
    matrices, centres, parallax = (part[frames].to(points) for part in (path.matrices, path.centres, path.parallax))
    plane = points
    if parallax.any():
        for _ in range(_INVERSION_ROUNDS):
            before, plane = plane, points - _depth(plane, path.waves) * parallax[:, None]
            if (plane - before).abs().max() < 1e-4:
                break
    return (plane - centres[:, None]) @ torch.linalg.inv(matrices).transpose(1, 2)


def _depth(plane: Tensor, waves: Tensor) -> Tensor:
    """Depth (N, P, 1) of points (N, P, 2) of the plane."""
    amplitude, frequency, angle = waves[:, 0], waves[:, 1:3], waves[:, 3]
    cosines = torch.cos(plane @ frequency.to(plane).T + angle.to(plane))
    return cosines @ amplitude.to(plane)[:, None]


def _draw_waves(random: np.random.Generator) -> np.ndarray:
    amplitude = random.uniform(0.3, 1.0, size=_WAVES)
    length = _SHORTEST_WAVE_PX * np.exp(random.uniform(0, 1.4, size=_WAVES))
    heading, angle = random.uniform(0, 2 * math.pi, size=(2, _WAVES))
    frequency = 2 * math.pi / length
    return np.stack((amplitude / amplitude.sum(), frequency * np.cos(heading), frequency * np.sin(heading), angle), 1)


def _limited(parallax: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """Scale parallax down until nothing folds over: |gradient of depth| |parallax| <= 0.4 everywhere."""
    steepest = (waves[:, 0] * np.hypot(waves[:, 1], waves[:, 2])).sum() * np.hypot(*parallax.T).max()
    return parallax * min(1.0, _STEEPEST / max(steepest, 1e-12))


def _middle(
    offset: np.ndarray, reach_px: float, still_size: tuple[int, int], random: np.random.Generator
) -> np.ndarray:
    """A point of the still (x, y) from which the whole path, `reach_px` around it, stays inside if it can."""
    middle = np.empty(2)
    for axis, side in enumerate((still_size[1], still_size[0])):
        lr = reach_px - offset[:, axis].min()
        gt = side - 1 - reach_px - offset[:, axis].max()
        middle[axis] = random.uniform(lr, gt) if lr < gt else (lr + gt) / 2
    return middle
