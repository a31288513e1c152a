"""The skip stage with our router: the network in full and at random budgets."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from skipvsr.data.crops import Batch, CropSampler
from skipvsr.evaluation.metrics import psnr_y
from skipvsr.inference import masked
from skipvsr.inference.policies import budget_policy
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.router import GainRouter
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.training.losses import charbonnier
from skipvsr.training.routing import ExploringPolicy, gain_loss
from skipvsr.training.settings import STRICT, Natural, Optimisation, Positive, Ratio, Weight
from skipvsr.training.stage import (
    CropShape,
    Draw,
    Measured,
    ParameterGroup,
    PlainObjective,
    Terms,
    initial_network,
    measure_full,
    network_groups,
    train_all,
)

BUDGETS = (0.5, 0.25)


@dataclass(frozen=True, config=STRICT)
class SkipStage:
    """The dynamic network with our router: every step trains it in full and at a random budget.

    Args:
        frames, mirror, init, flow_learning_rate_scale, flow_frozen_steps: as for the backbone stage.
        router: "gain", which need not be said; with "paper" the stage is a `PaperSkipStage`.
        tile_px: tiles of the crops; they divide the crop.
        min_budget: budgets are drawn evenly from here to 1.
        least_backward: budgets take from the backward trunk first, until so many of its blocks are left, as those of a model
            calibrated with it do (`Calibration.least_backward`); 0: each trunk spends the budget.
        small: weight of the small network's losses beside the full one's.
        distillation: weight, within them, of the Charbonnier distance to the full network's result.
        router_weight: weight of the router's loss.
    """

    kind: Literal["skip"]
    optimisation: Optimisation
    frames: Annotated[int, Field(ge=2)]
    mirror: bool = False
    init: str = ""
    flow_learning_rate_scale: Ratio = 0.0
    flow_frozen_steps: Natural = 0
    router: Literal["gain"] = "gain"
    tile_px: Positive = 12
    min_budget: Annotated[float, Field(gt=0, le=1)] = 0.1
    least_backward: Natural = 0
    small: Weight = 1.0
    distillation: Weight = 0.5
    router_weight: Weight = 0.001
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

    def objective(self, network: SkipVSR) -> GainObjective:
        """What it minimises."""
        return GainObjective(network, self)

    def groups(self, network: SkipVSR) -> list[ParameterGroup]:
        """Flow at its own learning rate."""
        flow = ParameterGroup(list(network.flow.parameters()), self.flow_learning_rate_scale, self.flow_frozen_steps)
        return network_groups(network, flow)


class GainObjective(PlainObjective):
    """Every step trains the full network and one at a random budget, which learns from the full one's result too.

    The router learns from the difference of the two what the skipped blocks would have brought.
    """

    def __init__(self, network: SkipVSR, stage: SkipStage) -> None:
        super().__init__()
        self.network = train_all(network, stage.flow_learning_rate_scale)
        self.stage = stage

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss", and its parts."""
        network, stage = self.network, self.stage
        flows = network.clip_flows(batch.lr)
        policy = ExploringPolicy(gain_router(network), batch.seeds, stage.min_budget, stage.least_backward)
        full = network(batch.lr, flows=flows)
        small = network(batch.lr, RoutedTrunks(policy, stage.tile_px, masked.run_blocks), flows)
        grid = TileGrid.of(batch.lr.shape[-2], batch.lr.shape[-1], stage.tile_px)
        terms = {
            "full": charbonnier(full, batch.gt),
            "small": charbonnier(small, batch.gt),
            "distillation": charbonnier(small, full.detach()),
            "router": gain_loss(policy, full, small, batch.gt, grid),
        }
        loss = terms["full"] + stage.small * (terms["small"] + stage.distillation * terms["distillation"])
        return {"loss": loss + stage.router_weight * terms["router"], **terms}

    def measure(self, network: SkipVSR, lr: Tensor, gt: Tensor) -> Measured:
        """PSNR of the full network and at two budgets."""
        return measure_budgets(network, lr, gt, self.stage.tile_px, self.stage.least_backward)


def gain_router(network: SkipVSR) -> GainRouter:
    """The network's router, which is ours."""
    assert isinstance(network.router, GainRouter)
    return network.router


def measure_budgets(network: SkipVSR, lr: Tensor, gt: Tensor, tile_px: int, least_backward: int = 0) -> Measured:
    """PSNR of the full network, and of luma where exactly half and a quarter of the blocks run in each frame.

    Each trunk runs so many, or the backward trunk gives its blocks first (`GainBudget`).
    """
    full = measure_full(network, lr, gt)
    return Measured({**full.numbers, **luma_at_budgets(network, lr, gt, tile_px, least_backward)}, full.image)


def luma_at_budgets(network: SkipVSR, lr: Tensor, gt: Tensor, tile_px: int, least_backward: int) -> dict[str, float]:
    """The luma PSNR of `measure_budgets`, by its name in the log."""
    numbers = {}
    for budget in BUDGETS:
        policy = budget_policy(network, budget, least_backward)
        routed = network(lr[None], RoutedTrunks(policy, tile_px))[0]
        numbers[f"psnr_y_{budget}"] = psnr_y(routed, gt).mean().item()
    return numbers
