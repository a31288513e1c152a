"""What is measured of frames: PSNR, SSIM, change over time and seams, in the ways that the field compares them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from skipvsr.evaluation.metrics import crop_border, luma, psnr, quantize, seam_ratio, ssim, temporal_error
from skipvsr.inference.options import ComputeOptions, Precision, Runtime

# A clip of up to so many frames is one window, as in the field's tests; a longer one is streamed with this lookahead.
WINDOW = 128
LOOKAHEAD = 16


@dataclass(frozen=True)
class Measures:
    """How images are compared.

    Args:
        crop_border: pixels left out on each side of the large image.
        quantize: round predictions to 8 bit first, as a saved image would be.
        with_ssim: SSIM too (slow).
        middle_only: mirror the clip, T -> 2T, and measure its middle frame alone, the mean of its two results: Vimeo-90K-T's
            convention.
        frames: the first so many frames of each clip; 0: all.
        tile_size: longest side of a tile; None: as the model was calibrated.
        window, lookahead: frames, see `Windows`; clips of up to `window` frames are one.
        runtime, precision: what computes, see `ComputeOptions`.
        rest: whether tiles may rest, likewise.
    """

    crop_border: int = 0
    quantize: bool = True
    with_ssim: bool = True
    middle_only: bool = False
    frames: int = 0
    tile_size: int | None = None
    window: int = WINDOW
    lookahead: int = LOOKAHEAD
    runtime: Runtime = "torch"
    precision: Precision | None = None
    rest: bool = True

    def options(self) -> ComputeOptions:
        """Those of computing."""
        return ComputeOptions(tile_size=self.tile_size, runtime=self.runtime, precision=self.precision, rest=self.rest)


@dataclass
class FrameMeasures:
    """Measures of the frames so far."""

    measures: Measures
    psnr_rgb: list[float] = field(default_factory=list)
    psnr_y: list[float] = field(default_factory=list)
    ssim_rgb: list[float] = field(default_factory=list)
    ssim_y: list[float] = field(default_factory=list)
    temporal_error: list[float] = field(default_factory=list)
    seams: list[float] = field(default_factory=list)
    _before: tuple[Tensor, Tensor] | None = None

    def add(self, result: Tensor, gt: Tensor, borders: tuple[list[int], list[int]], scale: int) -> float:
        """Measure a frame; returns the seconds that took."""
        started = time.perf_counter()
        result = quantize(result) if self.measures.quantize else result
        seam = seam_ratio(result - gt, *borders, every=scale)
        self.seams += [] if seam is None else [seam]
        result, gt = (crop_border(image, self.measures.crop_border) for image in (result, gt))
        luma_pair = luma(result.double()), luma(gt.double())
        self.psnr_rgb.append(psnr(result, gt, 1.0).item())
        self.psnr_y.append(psnr(*luma_pair, 255.0).item())
        if self.measures.with_ssim:
            self.ssim_rgb.append(ssim(result, gt, 1.0))
            self.ssim_y.append(ssim(*luma_pair, 255.0))
        if self._before is not None:
            self.temporal_error.append(temporal_error(result, self._before[0], gt, self._before[1]))
        self._before = (result, gt)
        return time.perf_counter() - started
