"""The router stage: our router alone, on the finished network."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from skipvsr.data.crops import Batch, CropSampler
from skipvsr.evaluation.oracle import OracleGains
from skipvsr.inference import masked
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.routing import ExploringPolicy, TaughtPolicy
from skipvsr.training.settings import STRICT, Natural, Optimisation, Positive
from skipvsr.training.skip import gain_router, measure_budgets
from skipvsr.training.stage import (
    CropShape,
    Draw,
    Measured,
    ParameterGroup,
    PlainObjective,
    Terms,
    initial_network,
)


@dataclass(frozen=True, config=STRICT)
class RouterStage:
    """Our router alone, on the finished network: it learns the gains that the oracle measures against the ground truth.

    Args:
        frames, mirror, init: as for the backbone stage.
        tile_px, min_budget, least_backward: as for the skip stage.
    """

    kind: Literal["router"]
    optimisation: Optimisation
    frames: Annotated[int, Field(ge=2)]
    mirror: bool = False
    init: str = ""
    tile_px: Positive = 12
    min_budget: Annotated[float, Field(gt=0, le=1)] = 0.1
    least_backward: Natural = 0
    score_unit: ClassVar[str] = "dB luma PSNR"

    def crops(self) -> CropShape:
        """Clips."""
        return CropShape(self.frames, self.mirror)

    def draw(self, sampler: CropSampler) -> Draw:
        """Clips with their ground truth."""
        return sampler.batch

    def start(self, network: SkipVSR) -> SkipVSR:
        """The network so far, or that of `init`, with our router. Raises ConfigError, CheckpointError."""
        return initial_network(network, self.init, router="gain")

    def objective(self, network: SkipVSR) -> RouterObjective:
        """What it minimises."""
        return RouterObjective(network, self)

    def groups(self, network: SkipVSR) -> list[ParameterGroup]:
        """The router alone."""
        return [ParameterGroup(list(gain_router(network).parameters()))]


class RouterObjective(PlainObjective):
    """The router's gains against those that the oracle measures, on states that skipping led to; the network stays as it is."""

    def __init__(self, network: SkipVSR, stage: RouterStage) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        gain_router(network).requires_grad_(True)
        self.stage = stage

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss"."""
        network, stage = self.network, self.stage
        with torch.no_grad():
            flows = network.clip_flows(batch.lr)
            oracle = OracleGains(network, batch.lr, batch.gt, flows)
        exploring = ExploringPolicy(gain_router(network), batch.seeds, stage.min_budget, stage.least_backward)
        policy = TaughtPolicy(exploring, oracle)
        with torch.no_grad():
            network(batch.lr, RoutedTrunks(policy, stage.tile_px, masked.run_blocks), flows)
        return {"loss": policy.loss()}

    def measure(self, network: SkipVSR, lr: Tensor, gt: Tensor) -> Measured:
        """PSNR of the full network and at two budgets."""
        return measure_budgets(network, lr, gt, self.stage.tile_px, self.stage.least_backward)
