"""The losses against plain transcriptions of their equations, and that they teach a network known motion."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage import data as pictures
from torch import Tensor

from skipvsr.data.degradations import bi
from skipvsr.data.motion import MotionRange, draw_path, known_flow, render
from skipvsr.models.flow import light_flow, warp
from skipvsr.training.losses import census, charbonnier, end_point, photometric, smoothness, stays_inside

FLOW = Path(__file__).parent / "data" / "flow-light.safetensors"
RANDOM = np.random.default_rng(5)


class KnownPyramid(torch.nn.Module):
    """Stands for a flow network whose answer is known, at one level."""

    def __init__(self, flow: Tensor) -> None:
        super().__init__()
        self.flow = flow

    def level_flows(self, reference: Tensor, support: Tensor) -> list[Tensor]:
        return [self.flow]


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(RANDOM.random(shape)).float()


def test_charbonnier():
    # Differences 0.3 and 0, epsilon 0.4: (0.5 + 0.4) / 2.
    assert charbonnier(torch.tensor([0.3, 1.0]), torch.tensor([0.0, 1.0]), 0.4).item() == pytest.approx(0.45)


def test_smoothness():
    flow, guide = picture(1, 2, 5, 6), picture(1, 3, 5, 6)
    sums = {"x": [], "y": []}
    f, g = flow[0].double().numpy(), guide[0].double().numpy()
    for i in range(5):
        for j in range(6):
            for name, (k, m) in {"x": (i, j + 1), "y": (i + 1, j)}.items():
                if k < 5 and m < 6:
                    weight = math.exp(-10 * np.abs(g[:, k, m] - g[:, i, j]).mean())
                    sums[name] += [weight * abs(f[c, k, m] - f[c, i, j]) for c in range(2)]
    expected = sum(np.mean(values) for values in sums.values())
    assert smoothness(flow, guide).item() == pytest.approx(expected, rel=1e-5)


def test_census():
    one, two = picture(1, 3, 6, 7), picture(1, 3, 6, 7)

    def describe(frame: Tensor, i: int, j: int) -> list[float]:
        grey = 255 * np.tensordot([0.299, 0.587, 0.114], frame[0].double().numpy(), 1)
        found = []
        for k in range(i - 2, i + 3):
            for m in range(j - 2, j + 3):
                difference = grey[min(max(k, 0), 5), min(max(m, 0), 6)] - grey[i, j]
                found.append(difference / math.sqrt(0.81 + difference**2))
        return found

    expected = np.zeros((6, 7))
    for i in range(6):
        for j in range(7):
            squares = (np.array(describe(one, i, j)) - np.array(describe(two, i, j))) ** 2
            expected[i, j] = (squares / (0.1 + squares)).mean()
    np.testing.assert_allclose(census(one, two)[0, 0].numpy(), expected, atol=1e-5)


def test_census_does_not_see_brightness():
    frame = picture(1, 3, 8, 8)
    assert census(frame, frame + 0.1).max().item() < 1e-6
    assert census(frame, frame.flip(-1)).mean().item() > 0.1


def test_what_stays_inside():
    flow = torch.zeros(1, 2, 3, 4)
    flow[0, 0] = 1.5  # to the right
    assert stays_inside(flow)[0, 0].tolist() == [[1, 1, 0, 0]] * 3
    flow[0, 0], flow[0, 1] = 0, -1  # up
    assert stays_inside(flow)[0, 0].tolist() == [[0] * 4, [1] * 4, [1] * 4]


def test_photometric_loss_prefers_the_true_flow():
    support = picture(2, 3, 12, 16)
    flow = torch.zeros(2, 2, 12, 16)
    flow[:, 0] = 1.0
    reference = warp(support, flow, padding="border")
    weights = {"smooth": 0.1, "census_weight": 0.5}
    true = photometric(KnownPyramid(flow), reference, support, **weights)  # pyright: ignore[reportArgumentType]
    assert true.item() == pytest.approx(1e-3, rel=1e-3)  # the square root of Charbonnier's 1e-6
    for other in (torch.zeros_like(flow), 2 * flow, flow.flip(1)):
        wrong = photometric(KnownPyramid(other), reference, support, **weights)  # pyright: ignore[reportArgumentType]
        assert wrong > 100 * true


def test_end_point_error():
    truth = torch.zeros(1, 2, 4, 4)
    truth[0, 0], truth[0, 1] = 3, 4
    valid = torch.ones(1, 1, 4, 4)
    valid[..., :2] = 0
    guess = torch.zeros(1, 2, 4, 4)
    guess[..., :2] = 100  # does not count
    frames = torch.zeros(1, 3, 4, 4)
    error = end_point(KnownPyramid(guess), frames, frames, truth, valid)  # pyright: ignore[reportArgumentType]
    assert error.item() == pytest.approx(5, rel=1e-5)


def moving_pairs(still: np.ndarray, count: int, seed: int, side_px: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of LR frames in known motion: reference, support, flow, valid."""
    random = np.random.default_rng(seed)
    source = torch.from_numpy(still).permute(2, 0, 1)
    motion = MotionRange(pan_px=16, zoom=0.01, rotation_degrees=0.5, parallax_px=0, shake_px=0)
    found = []
    for _ in range(count):
        path = draw_path(2, 4 * side_px, (source.shape[-2], source.shape[-1]), random, motion)
        lr = bi(render(source, path, 4 * side_px, 4 * side_px))
        known = known_flow(path, side_px, side_px)
        found.append((lr[0], lr[1], known.backward[0], known.backward_valid[0].float()))
    reference, support, flow, valid = (torch.stack(items) for items in zip(*found, strict=True))
    return reference, support, flow, valid


def mean_error(estimate: Tensor, flow: Tensor, valid: Tensor) -> float:
    return (((estimate - flow).square().sum(1, keepdim=True).sqrt() * valid).sum() / valid.sum()).item()


def test_the_flow_stage_recovers_known_motion():
    """What the flow stage of configs/compact/compact.toml trained (its provenance is in the file), on photographs that it
    never saw: end-point error far under that of no motion. The backbone stage bends flow to its own ends afterwards.
    """
    network = light_flow()
    network.load_state_dict({name: part.float() for name, part in load_file(FLOW).items()})
    found, still = 0.0, 0.0
    for picture_of in (pictures.coffee(), pictures.astronaut(), pictures.chelsea()):
        reference, support, flow, valid = moving_pairs(picture_of, 8, seed=7, side_px=64)
        with torch.inference_mode():
            found += mean_error(network(reference, support), flow, valid)
        still += mean_error(torch.zeros_like(flow), flow, valid)
    assert found < 0.5 * still
