"""Makes the policy for a model's router. All that depends on the kind of router at inference is decided here."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

from skipvsr.errors import ConfigError
from skipvsr.inference.options import ComputeOptions
from skipvsr.models.any_model import AnyModel
from skipvsr.models.flow import Warp
from skipvsr.models.router import GainRouter, MaskGenerator
from skipvsr.routing.learned import DifferenceThreshold, GainBudget, Gains, GainThreshold, ask
from skipvsr.routing.policies import Policy, all_blocks

ThresholdPolicy: TypeAlias = GainThreshold | DifferenceThreshold


def threshold_policy(model: AnyModel, threshold: float) -> ThresholdPolicy:
    """The policy that runs a block where the score of the model's router exceeds the threshold.

    Raises:
        ConfigError: the model has no router.
    """
    router = model.router
    if router is None:
        raise ConfigError(
            "this model has no router: every block runs, or none; leave budget and threshold out, or use a model that has one "
            "(skipvsr models)"
        )
    if isinstance(router, MaskGenerator):
        return DifferenceThreshold(router, threshold, int(router.cell_px), Warp if router.warped else None)
    return GainThreshold(partial(ask, router), threshold)


def predicted_gains(model: AnyModel) -> Gains | None:
    """The gains of all blocks as the model's router predicts them before a trunk runs.

    None where it has no such router: the paper's is asked before every block, and its scores depend on what ran before.
    """
    return partial(ask, model.router) if isinstance(model.router, GainRouter) else None


def budget_policy(model: AnyModel, ratio: float, least_backward: int = 0) -> GainBudget:
    """The policy that runs the blocks and tiles of highest predicted gain, exactly the ratio in each frame and direction.

    With `least_backward` the backward trunk gives its blocks first (`GainBudget`).

    Raises:
        ConfigError: the model has no router that predicts gains.
    """
    gains = predicted_gains(model)
    if gains is None:
        raise ConfigError("budget-frame needs a model with our router ('gain'); this one has none")
    return GainBudget(gains, ratio, least_backward)


def make_policy(model: AnyModel, compute: ComputeOptions) -> Policy:
    """The policy that the options ask for, new, so that it remembers nothing.

    Raises:
        ConfigError: the model has no router, or a budget is asked of a model that was never calibrated.
    """
    if not compute.skips:
        return all_blocks
    threshold = compute.threshold or 0.0
    if compute.threshold is None and model.router is not None:
        if model.calibration is None:
            raise ConfigError("this model is not calibrated; run 'skipvsr calibrate', or give --threshold")
        threshold = model.calibration.threshold_for(compute.budget or 1.0)
    return threshold_policy(model, threshold)
