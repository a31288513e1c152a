"""What is chosen where the paper's text leaves a choice (section 3 and its ablations)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from skipvsr.training.settings import STRICT, LearningRate, Positive, Ratio, Weight


@dataclass(frozen=True, config=STRICT)
class PaperMethod:
    """How the paper's router is taught (section 3), and its alternatives; docs/paper.md says why each default is what it is.

    Args:
        literal: the score is equation 7 as printed, near 1 where the feature has reached its target; otherwise what is
            still to gain, 1 minus that.
        warped: compare with the previous frame's feature after warping it by the flow; otherwise as it lies.
        cell_px: side of the cells in which the previous frame's feature is kept (equation 5); 1 keeps every pixel.
        supervision: of the score (Table 5): "feature-interval" (equation 7), "feature" (16), "psnr-interval" (15),
            "psnr" (14).
        every: blocks between target layers (Table 6).
        mapping: of features to a plane (equation 10).
        mask_weight, error_weight: lambda 1 and 2 of equation 13.
        joint: the gradient of the mask loss goes through the differences into the backbone, as equation 13 has it; otherwise it
            ends at the mask generator.
        learning_rate: of the mask generator, at the start of the cosine. It has one weight a channel and sees standardised
            differences, so that it can, and must, learn much faster than the backbone.
        temperature_momentum: how much of the temperature of equation 7 is renewed each step by the mean distance of the batch;
            0: it stays what it was on the teacher's own features.
        full_ratio: ratio of clips that run every block; the others have a threshold.
        max_skipped: that threshold is a quantile of the clip's own scores with every block running, drawn evenly from 0 to
            this.
    """

    literal: bool = False
    warped: bool = True
    cell_px: Positive = 1
    supervision: Literal["feature-interval", "feature", "psnr-interval", "psnr"] = "feature-interval"
    every: Positive = 6
    mapping: Literal["sum", "square-sum", "square-max"] = "square-sum"
    mask_weight: Weight = 0.1
    error_weight: Weight = 0.1
    joint: bool = True
    learning_rate: LearningRate = 1e-2
    temperature_momentum: Ratio = 0.02
    full_ratio: Ratio = 0.4
    max_skipped: Annotated[float, Field(ge=0, lt=1)] = 0.9
