"""The phase of LR against HR is measured, and named."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skipvsr.data.degradations import bd, bd_duf, bi
from skipvsr.data.phase import detect_phase
from skipvsr.errors import ShapeError


def texture(frames: int = 1, side: int = 192, seed: int = 0) -> Tensor:
    """Detail at all scales."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(frames, 3, side, side)
    for step in (1, 4, 16):
        noise = torch.rand(frames, 3, side // step, side // step, generator=generator)
        total += F.interpolate(noise, size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1) / 3
    return total


@pytest.mark.parametrize(
    ("make_low", "name", "position"),
    [
        (bi, "centred", 1.5),
        (bd, "centred", 1.5),
        (bd_duf, "duf", 0.0),
        (lambda gt: F.avg_pool2d(gt, 4), "centred", 1.5),
        (lambda gt: bi(gt.roll((-2, -2), (-2, -1))), "other", 3.5),
    ],
)
def test_each_degradation_is_recognised(make_low, name: str, position: float):
    gt = texture()
    phase = detect_phase(gt, make_low(gt))
    assert phase.name == name
    assert (phase.x_px, phase.y_px) == pytest.approx((position, position), abs=0.15)
    assert phase.error_px < 0.1


def test_x_and_y_are_told_apart():
    gt = texture()
    phase = detect_phase(gt, bi(gt).roll((1, -2), (-2, -1)))
    # Down by one LR pixel: LR row i shows row i - 1.
    assert (phase.x_px, phase.y_px) == pytest.approx((1.5 + 8, 1.5 - 4), abs=0.05)


def test_brightness_and_contrast_do_not_matter():
    gt = texture(2)
    phase = detect_phase(gt, 0.2 + 0.5 * bd_duf(gt))
    assert phase.name == "duf"


def test_one_frame_does_for_a_clip():
    gt = texture()
    assert detect_phase(gt[0], bi(gt)[0]).name == "centred"


@pytest.mark.parametrize(
    "lr",
    [torch.full((1, 3, 48, 48), 0.4), bi(texture(seed=9)), bi(texture()).flip(-1)],
    ids=["flat", "other", "mirrored"],
)
def test_what_cannot_be_told_is_not_guessed(lr: Tensor):
    phase = detect_phase(texture(), lr)
    assert phase.name == "undetermined"
    assert "cannot be told" in phase.describe()


def test_one_flat_direction_is_not_guessed():
    gt = texture()[..., :1].expand(1, 3, 192, 192)
    assert detect_phase(gt, bi(gt)).name == "undetermined"


def test_the_description_names_the_mismatch():
    gt = texture()
    line = detect_phase(gt, bd_duf(gt)).describe()
    assert "DUF" in line
    assert "-1.5" in line
    assert "4j+1.5" in line
    assert "BasicVSR" in detect_phase(gt, bd(gt)).describe(expected_px=0.0)
    assert "off" not in detect_phase(gt, bd(gt)).describe()


def test_sizes_must_fit():
    with pytest.raises(ShapeError, match="4 times"):
        detect_phase(torch.rand(1, 3, 192, 192), torch.rand(1, 3, 48, 47))
    with pytest.raises(ShapeError, match="24 pixels"):
        detect_phase(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 16, 16))
