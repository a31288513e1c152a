"""YUV to RGB and back by the formulas of ITU-T H.273, in floating point: exact where swscale is not.

swscale keeps about 8 bits of deeper frames on their way through RGB, and writes full-range chroma half a level too low.
"""

from __future__ import annotations

from math import ceil, floor

import numpy as np

# Weights of red and blue in luma, by the code of the matrix.
_KR_KB = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
YCGCO = 8
MATRICES = (*_KR_KB, YCGCO)

# Taps of the cubic on each side, in samples of the coarser grid.
_REACH = 2


def rgb_matrix(matrix: int) -> np.ndarray:
    """(3, 3): from (Y in [0, 1], Cb, Cr in [-0.5, 0.5]) to RGB in [0, 1]; for YCgCo, Cg stands for Cb and Co for Cr."""
    if matrix == YCGCO:
        return np.array([[1, -1, 1], [1, 1, 0], [1, -1, -1]], np.float64)
    kr, kb = _KR_KB[matrix]
    red, blue = 2 * (1 - kr), 2 * (1 - kb)
    kg = 1 - kr - kb
    return np.array([[1, 0, red], [1, -kb * blue / kg, -kr * red / kg], [1, blue, 0]], np.float64)


def yuv_to_rgb(
    planes: list[np.ndarray], matrix: int, *, full: bool, bits: int, offsets: tuple[float, float]
) -> np.ndarray:
    """Planes of codes as RGB over the full range.

    Args:
        planes: luma (H, W), then Cb and Cr at the same or a lower resolution; luma alone is grey.
        matrix: one of `MATRICES`.
        full: full range; else limited.
        bits: of the codes.
        offsets: where chroma samples lie: pixels at half resolution, right and down from the first pixel of each.

    Returns:
        (H, W, 3), uint8 up to 8 bits, uint16 above; rounded and clipped.
    """
    black, luma_steps, middle, chroma_steps = _steps(bits, full)
    luma = (planes[0].astype(np.float32) - black) / luma_steps
    dtype = np.uint8 if bits <= 8 else np.uint16
    if len(planes) == 1:
        return np.repeat(_codes(luma, 0, np.iinfo(dtype).max, dtype)[..., None], 3, axis=2)
    height, width = luma.shape
    chroma = [
        _enlarge(
            _enlarge((plane.astype(np.float32) - middle) / chroma_steps, 0, height, offsets[1]), 1, width, offsets[0]
        )
        for plane in planes[1:]
    ]
    rows = rgb_matrix(matrix).astype(np.float32)
    result = np.empty((height, width, 3), dtype)
    for channel, (_, cb, cr) in enumerate(rows):
        result[..., channel] = _codes(luma + cb * chroma[0] + cr * chroma[1], 0, np.iinfo(dtype).max, dtype)
    return result


def rgb_to_yuv(
    pixels: np.ndarray,
    matrix: int,
    *,
    full: bool,
    bits: int,
    offsets: tuple[float, float],
    shapes: list[tuple[int, int]],
) -> list[np.ndarray]:
    """RGB (H, W, 3) over the full range of uint8 or uint16 as planes of codes; the inverse of `yuv_to_rgb`.

    Args:
        shapes: (height, width) of each plane to make; luma alone is grey.

    Returns:
        Planes, uint8 up to 8 bits, uint16 above; chroma is low-passed before it is thinned out.
    """
    black, luma_steps, middle, chroma_steps = _steps(bits, full)
    dtype = np.uint8 if bits <= 8 else np.uint16
    rows = (np.linalg.inv(rgb_matrix(matrix)) / np.iinfo(pixels.dtype).max).astype(np.float32)
    channels = [pixels[..., channel].astype(np.float32) for channel in range(3)]
    planes = []
    for index, (height, width) in enumerate(shapes):
        offset, steps = (black, luma_steps) if index == 0 else (middle, chroma_steps)
        values = sum(weight * channel for weight, channel in zip(rows[index], channels, strict=True))
        assert isinstance(values, np.ndarray)
        values = _reduce(_reduce(values, 1, width, offsets[0]), 0, height, offsets[1])
        planes.append(_codes(values, offset, steps, dtype, (1 << bits) - 1))
    return planes


def _steps(bits: int, full: bool) -> tuple[int, int, int, int]:
    """Code of black, codes from black to white, code of no colour, codes from one end of chroma to the other."""
    unit, peak = 1 << (bits - 8), (1 << bits) - 1
    return (0, peak, 128 * unit, peak) if full else (16 * unit, 219 * unit, 128 * unit, 224 * unit)


def _codes(
    values: np.ndarray, offset: float, steps: float, dtype: type[np.unsignedinteger], peak: int | None = None
) -> np.ndarray:
    scaled = values * np.float32(steps)
    scaled += np.float32(offset)
    return np.rint(scaled, out=scaled).clip(0, np.iinfo(dtype).max if peak is None else peak).astype(dtype)


def _enlarge(plane: np.ndarray, axis: int, size: int, offset: float) -> np.ndarray:
    """A plane brought to `size` samples along an axis, by Keys' cubic; sample k lies at pixel factor * k + offset."""
    factor = _factor(size, plane.shape[axis])
    if factor == 1:
        return plane
    offset *= factor - 1
    shape = list(plane.shape)
    shape[axis] = size
    enlarged = np.empty(shape, np.float32)
    for phase in range(factor):
        place = (phase - offset) / factor
        first = floor(place) - _REACH + 1
        weights = _cubic(place - (first + np.arange(2 * _REACH)))
        count = ceil((size - phase) / factor)
        np.moveaxis(enlarged, axis, 0)[phase::factor] = _filter(np.moveaxis(plane, axis, 0), first, weights, 1, count)
    return enlarged


def _reduce(plane: np.ndarray, axis: int, size: int, offset: float) -> np.ndarray:
    """The inverse of `_enlarge`, with the cubic stretched so that nothing aliases."""
    factor = _factor(plane.shape[axis], size)
    if factor == 1:
        return plane
    offset *= factor - 1
    first, last = ceil(offset - _REACH * factor), floor(offset + _REACH * factor)
    weights = _cubic((np.arange(first, last + 1) - offset) / factor)
    filtered = _filter(np.moveaxis(plane, axis, 0), first, weights / weights.sum(), factor, size)
    return np.moveaxis(filtered, 0, axis)


def _filter(plane: np.ndarray, first: int, weights: np.ndarray, step: int, count: int) -> np.ndarray:
    """Row k of the result: the rows from `step * k + first` on, weighted; the edge rows go on beyond the edge."""
    before = max(-first, 0)
    after = max((count - 1) * step + first + len(weights) - len(plane), 0)
    padded = np.pad(plane, ((before, after), (0, 0)), mode="edge")
    result = np.zeros((count, plane.shape[1]), np.float32)
    for tap, weight in enumerate(weights):
        start = before + first + tap
        if weight:
            result += np.float32(weight) * padded[start : start + (count - 1) * step + 1 : step]
    return result


def _factor(fine: int, coarse: int) -> int:
    """1, 2 or 4: how many samples of the fine grid there are for one of the coarse."""
    return 1 << round(np.log2(fine / coarse))


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic, a = -0.5."""
    x = np.abs(distance)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))
