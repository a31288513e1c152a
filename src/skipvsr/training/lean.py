"""The lean stage: the parts that a network runs where little may be spent, trained for the rest of it as it is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from skipvsr.data.crops import Batch, CropSampler
from skipvsr.errors import ConfigError
from skipvsr.inference import masked
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.lean import LeanParts
from skipvsr.models.router import GainRouter
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.losses import charbonnier
from skipvsr.training.routing import ExploringPolicy
from skipvsr.training.settings import STRICT, Optimisation, Positive, Weight
from skipvsr.training.skip import gain_router, luma_at_budgets
from skipvsr.training.stage import (
    CropShape,
    Draw,
    Measured,
    ParameterGroup,
    PlainObjective,
    Terms,
    measure_full,
    named_network,
)


@dataclass(frozen=True, config=STRICT)
class LeanStage:
    """Lean parts (`skipvsr.models.lean`) for a network with our router; all else stays as it is.

    Args:
        frames, mirror, init: as for the backbone stage; lean parts that `init` has are trained on.
        blocks: of the lean backward trunk.
        tile_px: as for the skip stage.
        min_budget, max_budget: budgets are drawn evenly between them. They take from the backward trunk first, so that it is
            left with the lean blocks; the largest should not leave it more.
        flow: weight of the distance, in pixels, to the network's own flow.
    """

    kind: Literal["lean"]
    optimisation: Optimisation
    frames: Annotated[int, Field(ge=2)]
    mirror: bool = False
    init: str = ""
    blocks: Positive = 1
    tile_px: Positive = 12
    min_budget: Annotated[float, Field(gt=0, le=1)] = 0.15
    max_budget: Annotated[float, Field(gt=0, le=1)] = 0.55
    flow: Weight = 0.01
    score_unit: ClassVar[str] = "dB luma PSNR"

    def crops(self) -> CropShape:
        """Clips."""
        return CropShape(self.frames, self.mirror)

    def draw(self, sampler: CropSampler) -> Draw:
        """Clips with their ground truth."""
        return sampler.batch

    def start(self, network: SkipVSR) -> SkipVSR:
        """The network so far, or that of `init`, with lean parts. Raises ConfigError, CheckpointError."""
        network = named_network(network, self.init) if self.init else network
        if not isinstance(network.router, GainRouter):
            raise ConfigError(
                "lean parts are for a network with our router; let a skip stage go before, or give an init"
            )
        return network.with_lean(self.blocks)

    def objective(self, network: SkipVSR) -> LeanObjective:
        """What it minimises."""
        return LeanObjective(network, self)

    def groups(self, network: SkipVSR) -> list[ParameterGroup]:
        """The lean parts alone."""
        return [ParameterGroup(list(_parts(network).parameters()))]


class LeanObjective(PlainObjective):
    """The network with its lean parts at random budgets, against the ground truth; their flow against the network's own."""

    def __init__(self, network: SkipVSR, stage: LeanStage) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        _parts(network).requires_grad_(True)
        self.stage = stage

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss", and its parts."""
        stage, lean = self.stage, self.network.lean_network()
        flows = lean.clip_flows(batch.lr)
        policy = ExploringPolicy(
            gain_router(lean), batch.seeds, stage.min_budget, stage.blocks, max_budget=stage.max_budget
        )
        result = lean(batch.lr, RoutedTrunks(policy, stage.tile_px, masked.run_blocks), flows)
        with torch.no_grad():
            wanted = self.network.clip_flows(batch.lr)
        terms = {"small": charbonnier(result, batch.gt), "flow": _distance(flows, wanted)}
        return {"loss": terms["small"] + stage.flow * terms["flow"], **terms}

    def measure(self, network: SkipVSR, lr: Tensor, gt: Tensor) -> Measured:
        """PSNR of the network as it is, and of luma with the lean parts at two budgets."""
        full, stage = measure_full(network, lr, gt), self.stage
        small = luma_at_budgets(network.lean_network(), lr, gt, stage.tile_px, stage.blocks)
        return Measured({**full.numbers, **small}, full.image)


def _parts(network: SkipVSR) -> LeanParts:
    assert network.lean is not None
    return network.lean


def _distance(flows: tuple[list[Tensor], list[Tensor]], wanted: tuple[list[Tensor], list[Tensor]]) -> Tensor:
    """Mean length of the difference, in pixels, of the flows of a clip in both directions."""
    pairs = zip((*flows[0], *flows[1]), (*wanted[0], *wanted[1]), strict=True)
    return torch.stack([(one - two).square().sum(dim=1).add(1e-4).sqrt().mean() for one, two in pairs]).mean()
