"""Make the two clips that `make demo` upscales; assets/README.md says where they come from.

    python scripts/make_demo_clip.py                               # assets/demo.mp4
    python scripts/make_demo_clip.py --horsejump horsejump.mp4     # assets/horsejump.mp4, from the 640x360 clip

demo.mp4 has three scenes of 24 frames (a cup of coffee, an astronaut, a rocket: photographs of scikit-image), 112x80 at 24
frames per second, with a sound track of one tone per scene. The camera moves over the photograph at full size (448x320), and
each view is reduced x1/4 as MATLAB's imresize would. horsejump.mp4 has 30 frames of 240x136 of a real moving scene.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from av.container import OutputContainer
from av.video.stream import VideoStream
from torch import Tensor

from skipvsr.models.resize import bicubic_downsample
from skipvsr.video.open import read_clip

ASSETS = Path(__file__).parent.parent / "assets"
TARGET = ASSETS / "demo.mp4"
HORSEJUMP = ASSETS / "horsejump.mp4"
# 635x360 of the 640x360 pixels have the shape of 240x136, whose sides are even.
HORSEJUMP_WIDTH, HORSEJUMP_HEIGHT, HORSEJUMP_CROP = 240, 136, 635
WIDTH, HEIGHT, SCALE = 112, 80, 4
FRAMES, RATE, SAMPLE_RATE = 24, 24, 48_000


@dataclass(frozen=True)
class Camera:
    """Where the camera looks: centre in pixels of the photograph, zoom (1: pixel for pixel), roll in degrees."""

    x: float
    y: float
    zoom: float
    roll: float


SCENES = (
    (skimage.data.coffee, Camera(270, 190, 1.0, 0.0), Camera(330, 205, 1.06, 2.0), 262),
    (skimage.data.astronaut, Camera(230, 165, 1.0, -1.5), Camera(262, 200, 1.0, 1.5), 330),
    (skimage.data.rocket, Camera(300, 250, 1.1, 0.0), Camera(330, 190, 1.0, -1.0), 392),
)


def view(photograph: Tensor, camera: Camera) -> Tensor:
    """The camera's view of a photograph: (3, H, W) in [0, 1] -> (3, 320, 448)."""
    rows = torch.arange(SCALE * HEIGHT, dtype=torch.float32) - (SCALE * HEIGHT - 1) / 2
    columns = torch.arange(SCALE * WIDTH, dtype=torch.float32) - (SCALE * WIDTH - 1) / 2
    y, x = torch.meshgrid(rows / camera.zoom, columns / camera.zoom, indexing="ij")
    angle = torch.deg2rad(torch.tensor(camera.roll))
    column = camera.x + x * angle.cos() - y * angle.sin()
    row = camera.y + x * angle.sin() + y * angle.cos()
    height, width = photograph.shape[-2:]
    grid = torch.stack((2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1), dim=-1)
    return F.grid_sample(photograph[None], grid[None], mode="bicubic", padding_mode="border", align_corners=True)[0]


def views(photograph: np.ndarray, start: Camera, end: Camera) -> Iterator[Tensor]:
    """The ground truth of a move from `start` to `end`: frames (3, 320, 448) in [0, 1]."""
    image = torch.from_numpy(photograph[..., :3].copy()).permute(2, 0, 1).float() / 255
    for step in range(FRAMES):
        ratio = 0.5 - 0.5 * np.cos(np.pi * step / (FRAMES - 1))
        at = (a + ratio * (b - a) for a, b in zip(vars(start).values(), vars(end).values(), strict=True))
        yield view(image, Camera(*at)).clamp(0, 1)


def small(large: Tensor) -> np.ndarray:
    """(3, 320, 448) in [0, 1] -> (80, 112, 3) uint8."""
    return (bicubic_downsample(large).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def add_video(container: OutputContainer, width: int, height: int) -> VideoStream:
    """An H.264 stream, limited-range BT.709."""
    video = container.add_stream("libx264", rate=RATE, options={"crf": "6", "preset": "veryslow"})
    video.width, video.height, video.pix_fmt = width, height, "yuv420p"
    context = video.codec_context
    context.colorspace, context.color_range, context.color_primaries, context.color_trc = 1, 1, 1, 1
    return video


def encode(container: OutputContainer, video: VideoStream, images: Iterable[np.ndarray], first: int = 0) -> None:
    """Append images (H, W, 3) uint8 as frames `first`, `first` + 1, ..."""
    for index, image in enumerate(images, first):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(
            format="yuv420p", src_color_range="JPEG", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.pts, frame.time_base = index, Fraction(1, RATE)
        container.mux(video.encode(frame))


def make_demo() -> None:
    """Write assets/demo.mp4."""
    with av.open(str(TARGET), "w") as container:
        video = add_video(container, WIDTH, HEIGHT)
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=48_000)
        for index, (photograph, start, end, hertz) in enumerate(SCENES):
            encode(container, video, map(small, views(photograph(), start, end)), index * FRAMES)
            seconds = np.arange(SAMPLE_RATE * FRAMES // RATE) / SAMPLE_RATE
            fade = np.minimum(1, 20 * np.minimum(seconds, seconds[::-1]))
            tone = (0.1 * fade * np.sin(2 * np.pi * hertz * seconds)).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = SAMPLE_RATE, index * len(tone)
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def make_horsejump(source: Path) -> None:
    """Write assets/horsejump.mp4 from the 640x360 clip."""
    frames = torch.from_numpy(read_clip(source)).permute(0, 3, 1, 2).float()
    left = (frames.shape[-1] - HORSEJUMP_CROP) // 2
    size = (HORSEJUMP_HEIGHT, HORSEJUMP_WIDTH)
    reduced = F.interpolate(frames[..., left : left + HORSEJUMP_CROP], size, mode="bicubic", antialias=True)
    with av.open(str(HORSEJUMP), "w") as container:
        video = add_video(container, HORSEJUMP_WIDTH, HORSEJUMP_HEIGHT)
        encode(container, video, reduced.clamp(0, 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy())
        container.mux(video.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the clips of the demo.")
    parser.add_argument(
        "--horsejump", type=Path, metavar="CLIP", help="make assets/horsejump.mp4 from this clip instead"
    )
    args = parser.parse_args()
    ASSETS.mkdir(exist_ok=True)
    if args.horsejump is None:
        make_demo()
    else:
        make_horsejump(args.horsejump)
    made = TARGET if args.horsejump is None else HORSEJUMP
    print(f"{made.name}: {made.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
