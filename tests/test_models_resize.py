"""MATLAB's imresize, against a naive transcription of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipvsr.errors import ShapeError
from skipvsr.models.resize import bicubic_downsample, bicubic_upsample, lanczos_upsample
from skipvsr.upscale.frames import upscale_frames


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.5."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def imresize_matrix(side: int, scale: float) -> torch.Tensor:
    """One axis of MATLAB's imresize as a matrix (output, input): its `contributions`, in 1-based coordinates."""
    stretch = min(scale, 1.0)
    width = 4.0 / stretch
    matrix = np.zeros((round(side * scale), side))
    mirrored = [*range(side), *reversed(range(side))]
    for i in range(matrix.shape[0]):
        centre = (i + 1) / scale + 0.5 * (1 - 1 / scale)
        left = int(np.floor(centre - width / 2))
        taps = range(left, left + int(np.ceil(width)) + 2)
        weights = np.array([cubic(stretch * (centre - tap)) for tap in taps])
        for tap, weight in zip(taps, weights / weights.sum(), strict=True):
            matrix[i, mirrored[(tap - 1) % (2 * side)]] += weight
    return torch.from_numpy(matrix)


@settings(max_examples=20)
@given(st.integers(4, 13), st.integers(4, 13), st.sampled_from([2, 3, 4]))
def test_downsampling_is_imresize(rows: int, columns: int, factor: int):
    image = torch.rand(2, 3, factor * rows, factor * columns, dtype=torch.float64)
    expected = imresize_matrix(factor * rows, 1 / factor) @ image @ imresize_matrix(factor * columns, 1 / factor).T
    torch.testing.assert_close(bicubic_downsample(image, factor), expected, atol=1e-12, rtol=0)


@settings(max_examples=20)
@given(st.integers(4, 21), st.integers(4, 21), st.sampled_from([2, 3, 4]))
def test_upsampling_is_imresize(rows: int, columns: int, factor: int):
    image = torch.rand(3, rows, columns, dtype=torch.float64)
    expected = imresize_matrix(rows, factor) @ image @ imresize_matrix(columns, factor).T
    torch.testing.assert_close(bicubic_upsample(image, factor), expected, atol=1e-12, rtol=0)


def test_pixel_j_lands_at_4j_plus_one_and_a_half():
    ramp = torch.arange(64, dtype=torch.float64).expand(1, 64, 64)
    lr = bicubic_downsample(ramp)[0, 8]
    torch.testing.assert_close(lr[2:-2], 4 * torch.arange(2, 14, dtype=torch.float64) + 1.5)


def test_a_side_that_does_not_divide_is_refused():
    with pytest.raises(ShapeError, match="multiples of 4"):
        bicubic_downsample(torch.zeros(3, 16, 18))


def test_the_bypass_is_bicubic_whatever_the_windows() -> None:
    frames = [torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    results = list(upscale_frames(frames, "bicubic", window=2, lookahead=1))
    for frame, result in zip(frames, results, strict=True):
        assert torch.equal(result, bicubic_upsample(frame).clamp(0, 1))


def lanczos_matrix(side: int, scale: int) -> torch.Tensor:
    """One axis of Lanczos interpolation as a matrix (output, input)."""
    matrix = np.zeros((side * scale, side))
    mirrored = [*range(side), *reversed(range(side))]
    for i in range(side * scale):
        centre = (i + 0.5) / scale - 0.5
        taps = [tap for tap in range(-4, side + 4) if abs(tap - centre) < 3]
        weights = np.array([np.sinc(tap - centre) * np.sinc((tap - centre) / 3) for tap in taps])
        for tap, weight in zip(taps, weights / weights.sum(), strict=True):
            matrix[i, mirrored[tap % (2 * side)]] += weight
    return torch.from_numpy(matrix)


@pytest.mark.parametrize("scale", [2, 4])
def test_lanczos_is_its_definition(scale: int):
    images = torch.rand(2, 3, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = lanczos_matrix(7, scale) @ images @ lanczos_matrix(9, scale).T
    torch.testing.assert_close(lanczos_upsample(images, scale), expected, atol=1e-12, rtol=0)
    assert lanczos_upsample(images[0, 0].float()[None], scale).dtype == torch.float32
