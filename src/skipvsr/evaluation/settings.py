"""What is evaluated: a policy, how much it may spend, and on which tiling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from skipvsr.errors import ConfigError
from skipvsr.evaluation.oracle import OracleBlocks, OracleGains
from skipvsr.inference.options import ComputeOptions, StreamOptions, Tiling
from skipvsr.inference.policies import budget_policy
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.routing.learned import GainBudget
from skipvsr.routing.policies import FixedBlocks, GradientRank, Policy, RandomBlocks

PolicyName = Literal[
    "full", "threshold", "budget", "budget-frame", "gradient", "random", "uniform", "shallow", "deep", "oracle", "oracle-blocks"
]  # fmt: skip
POLICIES: tuple[str, ...] = get_args(PolicyName)
# Those that know the ground truth.
ORACLES = ("oracle", "oracle-blocks")


@dataclass(frozen=True)
class Setting:
    """A policy at one value and on one tiling: a row of an evaluation.

    Args:
        policy: "full": everything; "threshold": the model's router; "budget": the same at the threshold that the model's
            table gives; "budget-frame": our router's highest gains, exactly the ratio in each frame; "gradient": depth by
            rank of the luma gradient; "random", "uniform", "shallow", "deep": as in the paper; "oracle": depths by gains
            measured against the ground truth; "oracle-blocks": any block of any tile, likewise.
        value: the threshold, or the ratio of blocks; of "full" nothing.
        tiling: "frame" or "patch".

    Raises:
        ConfigError: an unknown policy, or a value out of its range.
    """

    policy: PolicyName
    value: float = 1.0
    tiling: Tiling = "frame"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"the policy is {self.policy!r}; choose one of {', '.join(POLICIES)}")
        self.compute()
        if self.policy not in ("full", "threshold") and not 0 < self.value <= 1:
            raise ConfigError(f"{self.policy}: the ratio is {self.value}; it must be above 0 and at most 1")
        if self.policy in ORACLES and self.tiling == "patch":
            raise ConfigError("the oracle works on whole frames only; leave the patch tiling out")

    @property
    def label(self) -> str:
        """How tables call it."""
        name = self.policy if self.policy == "full" else f"{self.policy} {self.value:g}"
        return name if self.tiling == "frame" else f"{name}, patches"

    def compute(self, options: ComputeOptions | None = None) -> ComputeOptions:
        """The options with the policy, as far as options know it (every block for the others), and the tiling."""
        threshold = self.value if self.policy == "threshold" else None
        budget = self.value if self.policy == "budget" else None
        return replace(options or ComputeOptions(), budget=budget, threshold=threshold, tiling=self.tiling)

    def upscaler(
        self,
        model: AnyModel,
        stream: StreamOptions,
        oracle: Callable[[], OracleGains | None],
        options: ComputeOptions | None = None,
    ) -> Upscaler:
        """The model at this setting.

        Args:
            model: as it is to run.
            stream: how clips are cut.
            oracle: of the clip, with its ground truth; only policies that are one ask for it.
            options: what is the same for all settings.

        Raises:
            ConfigError: the model has no router, or not the one or the table that the policy needs.
        """
        make = None if self.policy in ("full", "threshold", "budget") else lambda: self._policy(model, oracle)
        return Upscaler(model, self.compute(options), stream, policy=make)

    def _policy(self, model: AnyModel, oracle: Callable[[], OracleGains | None]) -> Policy:
        match self.policy:
            case "budget-frame":
                return budget_policy(model, self.value)
            case "gradient":
                return GradientRank(self.value)
            case "random":
                return RandomBlocks(self.value, torch.Generator().manual_seed(0))
            case "uniform" | "shallow" | "deep":
                return FixedBlocks(self.policy, self.value)
            case "oracle":
                return GainBudget(_known(oracle()), self.value)
            case "oracle-blocks":
                return OracleBlocks(_known(oracle()), self.value)
        raise AssertionError(self.policy)


def _known(oracle: OracleGains | None) -> OracleGains:
    assert oracle is not None
    return oracle


def parse_setting(text: str, tiling: Tiling = "frame") -> Setting:
    """ "full", or "POLICY:VALUE", such as "gradient:0.5". Raises ConfigError."""
    name, separator, value = text.partition(":")
    try:
        number = float(value) if separator else 1.0
    except ValueError:
        number = float("nan")
    if number != number or (name != "full" and not separator):
        raise ConfigError(f"the policy {text!r} is not NAME:VALUE, as in gradient:0.5")
    return Setting(name, number, tiling)  # pyright: ignore[reportArgumentType] - it checks the name
