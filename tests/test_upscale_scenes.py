"""Scene cuts."""

from __future__ import annotations

import torch

from skipvsr.inference.scenes import SceneCuts


def texture(seed: int, height: int = 90, width: int = 400) -> torch.Tensor:
    """A smooth random picture, (3, height, width)."""
    coarse = torch.rand(1, 3, 6, 25, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[0]


def cuts(frames: list[torch.Tensor]) -> list[int]:
    detector = SceneCuts()
    return [index for index, frame in enumerate(frames) if detector(frame)]


def pan(seed: int, speed_px: int, frames: int) -> list[torch.Tensor]:
    picture = texture(seed)
    return [picture[..., t * speed_px : t * speed_px + 160] for t in range(frames)]


def test_a_still_scene_has_no_cut():
    assert cuts([texture(0)] * 5) == []


def test_a_cut_is_found_where_it_is():
    assert cuts(pan(0, 2, 6) + pan(1, 3, 5) + pan(2, 0, 4)) == [6, 11]


def test_drawings_shown_two_to_four_times_are_judged_by_their_changes():
    for times in (2, 3, 4):
        moving = [frame for frame in pan(3, 12, 16) for _ in range(times)]
        cut = [frame for frame in pan(0, 2, 6) + pan(1, 3, 5) for _ in range(times)]
        assert cuts(moving) == []
        assert cuts(cut) == [6 * times]


def test_slides_are_scenes():
    assert cuts([texture(number) for number in range(4) for _ in range(8)]) == [8, 16, 24]


def test_a_steady_pan_is_no_cut():
    assert cuts(pan(3, 12, 16)) == []


def test_noise_and_slow_fades_are_no_cuts():
    generator = torch.Generator().manual_seed(0)
    noisy = [texture(0) + 0.1 * torch.randn(3, 90, 400, generator=generator) for _ in range(5)]
    fade = [texture(0) * (1 - t / 20) for t in range(20)]
    assert cuts(noisy) == []
    assert cuts(fade) == []


def test_one_frame_and_no_frame():
    assert cuts([]) == []
    assert cuts([texture(0)]) == []
