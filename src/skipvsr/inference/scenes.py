"""Scene cuts, found while a stream passes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CUT_THRESHOLD = 0.06
_THUMBNAIL = (18, 32)
# Repeats in a row from which the video stands still: drawings are shown two to four times.
_STILL = 4


class SceneCuts:
    """Says of each frame of a stream whether a new scene starts with it.

    The measure is that of FFmpeg's `scdet` filter, taken on a small colour thumbnail instead of full-size luma: with d(t)
    the mean absolute difference of frames t and t-1, a cut is where min(d(t), |d(t) - d(t-1)|) exceeds the threshold.
    The second term asks for a jump: a fast pan differs as much from frame to frame, but it does so steadily. Where d(t-1)
    says nothing, in the second frame of the stream and right after a cut, there is no cut.

    A few frames that repeat the one before are passed over, because with every drawing shown twice each change would be a
    jump; from more of them on, the video stands still.

    Args:
        threshold: in [0, 1]; docs/streaming.md says how the default was chosen.
    """

    def __init__(self, threshold: float = CUT_THRESHOLD) -> None:
        self.threshold = threshold
        self._thumbnail: Tensor | None = None
        self._difference: float | None = None
        self._repeats = 0

    def __call__(self, frame: Tensor) -> bool:
        """Take the next frame, (3, H, W), RGB in [0, 1]."""
        with torch.inference_mode():
            thumbnail = F.adaptive_avg_pool2d(frame.float(), _THUMBNAIL)
            before, self._thumbnail = self._thumbnail, thumbnail
            if before is None:
                return False
            difference = (thumbnail - before).abs().mean().item()
        self._repeats = self._repeats + 1 if difference == 0 else 0
        if 0 < self._repeats < _STILL:
            return False
        steady, self._difference = self._difference, difference
        cut = steady is not None and min(difference, abs(difference - steady)) > self.threshold
        if cut:
            self._difference = None
        return cut
