"""The flow of synthetic camera motion is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skipvsr.data.degradations import bi
from skipvsr.data.motion import CameraPath, MotionRange, draw_path, exact_flow, known_flow, render
from skipvsr.models.flow import warp
from skipvsr.models.resize import bicubic_downsample

STILL = (300, 400)
LARGE = MotionRange(pan_px=20, zoom=0.03, rotation_degrees=2, parallax_px=6, shake_px=2)


def ramps(height: int, width: int) -> Tensor:
    """A still whose red is x, green y and blue their sum, scaled to 0 ... 255: colour tells the position."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    scale = 255 / (height + width)
    return torch.stack((x, y, x + y)) * scale


def simple_path(
    frames: int, pan=(0.0, 0.0), zoom: float = 1.0, degrees: float = 0.0, centre=(200.0, 150.0)
) -> CameraPath:
    """Constant pan (HR pixels a frame), zoom and rotation a frame, no parallax."""
    time = torch.arange(frames, dtype=torch.float64)
    angle, scale = torch.deg2rad(degrees * time), zoom**time
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    matrices = torch.stack((torch.stack((cosine, -sine), -1), torch.stack((sine, cosine), -1)), -2)
    centres = torch.tensor(centre, dtype=torch.float64) + time[:, None] * torch.tensor(pan, dtype=torch.float64)
    return CameraPath(
        matrices, centres, torch.zeros(frames, 2, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64)
    )


def test_flow_of_a_pan():
    # The camera goes right by 6 HR pixels: content goes left by 1.5 LR pixels.
    flow = known_flow(simple_path(3, pan=(6.0, -2.0)), 10, 12)
    assert flow.backward.shape == (2, 2, 10, 12)
    torch.testing.assert_close(flow.backward, torch.tensor((-1.5, 0.5)).view(1, 2, 1, 1).expand(2, 2, 10, 12))
    torch.testing.assert_close(flow.forward, -flow.backward)
    # Frame 1 lies 1.5 pixels to the right: its content is at negative x of frame 0's left columns.
    assert flow.backward_valid[0, 0].sum() == (10 - 1) * (12 - 2)
    assert not flow.backward_valid[0, 0, :, :2].any()
    assert not flow.forward_valid[0, 0, :, -2:].any()


def test_flow_of_a_zoom_and_a_rotation():
    flow = known_flow(simple_path(2, zoom=1.25), 9, 9)
    # Frame 1 shows 1.25 times as much: what is at offset u comes to lie at u / 1.25.
    x = torch.arange(9.0) - 4
    torch.testing.assert_close(flow.backward[0, 0, 4], x * (1 / 1.25 - 1))
    torch.testing.assert_close(flow.forward[0, 1, :, 4], x * 0.25)
    assert flow.backward_valid.all()
    turned = known_flow(simple_path(2, degrees=90.0), 9, 9)
    # A quarter turn of the axes takes offset (4, 0) to (0, -4).
    torch.testing.assert_close(turned.backward[0, :, 4, 8], torch.tensor((-4.0, -4.0)))


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([(0, 1), (1, 0), (0, 3)]))
def test_flow_leads_to_the_same_point(seed: int, frames: tuple[int, int]):
    path = draw_path(4, 64, STILL, np.random.default_rng(seed), LARGE)
    reference, support = (torch.tensor([index]) for index in frames)
    flow, _ = exact_flow(path, reference, support, 16, 16)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    start = torch.stack((x, y), -1)
    seen = point_seen(path, frames[0], start)
    seen_again = point_seen(path, frames[1], start + flow[0].permute(1, 2, 0))
    torch.testing.assert_close(seen_again, seen, atol=2e-3, rtol=0)


def point_seen(path: CameraPath, frame: int, pixels: Tensor) -> Tensor:
    """The point of the still that LR pixels (16, 16, 2) show, straight from the module's equations."""
    offset = 4 * (pixels.double() - 7.5)
    plane = offset @ path.matrices[frame].T + path.centres[frame]
    depth = sum(wave[0] * torch.cos(plane @ wave[1:3] + wave[3]) for wave in path.waves)
    return plane + torch.as_tensor(depth)[..., None] * path.parallax[frame]


@pytest.mark.parametrize("seed", range(6))
def test_warping_by_the_flow_reproduces_the_reference(seed: int):
    path = draw_path(4, 96, STILL, np.random.default_rng(seed), MotionRange(pan_px=8, parallax_px=3))
    lr = bicubic_downsample(render(ramps(*STILL), path, 96, 96))
    flow = known_flow(path, 24, 24)
    # A ramp is linear in position: an error of colour is an error of flow. One LR pixel is about 4 of the still.
    lr_pixel = 4 * 255 / sum(STILL) / 255
    for found, wanted, valid in (
        (warp(lr[:-1], flow.forward), lr[1:], flow.forward_valid),
        (warp(lr[1:], flow.backward), lr[:-1], flow.backward_valid),
    ):
        error = ((found - wanted).abs() * valid)[:, :2, 3:-3, 3:-3]
        assert error.max() < 0.05 * lr_pixel


def test_rendering_agrees_with_the_equations():
    path = draw_path(3, 64, STILL, np.random.default_rng(3), LARGE)
    drawn = render(ramps(*STILL), path, 64, 64)
    pixels = (torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy"), -1) - 1.5) / 4
    seen = point_seen(path, 2, pixels) * 255 / sum(STILL) / 255
    inside = ((seen > 0.01) & (seen < 0.4)).all(dim=-1)
    assert inside.float().mean() > 0.5
    assert (drawn[2, :2].permute(1, 2, 0) - seen)[inside].abs().max() < 1e-3


def test_a_photograph_in_motion():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, 15, 20, generator=generator)
    still = (torch.nn.functional.interpolate(noise, STILL, mode="bicubic")[0].clamp(0, 1) * 255).byte()
    path = simple_path(2, pan=(5.0, 3.0))
    gt = render(still, path, 96, 96)
    assert gt.shape == (2, 3, 96, 96)
    lr, flow = bi(gt), known_flow(path, 24, 24)
    still_error = (lr[1] - lr[0]).square().mean()
    error = ((warp(lr[1:], flow.backward) - lr[:1]) * flow.backward_valid).square()[..., 2:-2, 2:-2].mean()
    assert error < 0.01 * still_error


def test_whole_pixel_motion_copies_the_still():
    still = torch.randint(0, 256, (3, 60, 70), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    # An odd picture has its middle on a pixel.
    drawn = render(still, simple_path(2, pan=(4.0, -3.0), centre=(30.0, 28.0)), 21, 21)
    torch.testing.assert_close(drawn[0] * 255, still[:, 18:39, 20:41].float(), atol=1e-2, rtol=0)
    torch.testing.assert_close(drawn[1] * 255, still[:, 15:36, 24:45].float(), atol=1e-2, rtol=0)


def test_beyond_its_border_the_still_is_mirrored():
    drawn = render(ramps(60, 70), simple_path(1, centre=(0.0, 30.0)), 21, 21)
    torch.testing.assert_close(drawn[0, :, :, :10], drawn[0, :, :, 11:].flip(-1), atol=1e-5, rtol=0)


def test_paths_differ_by_generator_only_and_stay_over_the_still():
    first, again = (draw_path(5, 64, STILL, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first.matrices, again.matrices)
    assert torch.equal(first.centres, again.centres)
    for seed in range(30):
        centres = draw_path(7, 64, STILL, np.random.default_rng(seed)).centres
        assert (centres > 0).all()
        assert (centres < torch.tensor((STILL[1] - 1, STILL[0] - 1))).all()


def test_some_clips_are_static():
    paths = [draw_path(2, 64, STILL, np.random.default_rng(seed)) for seed in range(100)]
    static = [path for path in paths if torch.equal(path.centres[0], path.centres[1])]
    assert 2 <= len(static) <= 25
    assert known_flow(static[0], 8, 8).forward.abs().max() < 1e-9
