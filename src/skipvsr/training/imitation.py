"""The imitation stage: a cheaper flow network learns the flow of a trained model."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass

from skipvsr.checkpoints.load import load_model
from skipvsr.data.crops import CropSampler, FlowBatch
from skipvsr.models.flow import warp
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.settings import STRICT, Optimisation, Weight
from skipvsr.training.stage import (
    CropShape,
    Draw,
    ParameterGroup,
    PlainObjective,
    Terms,
    initial_network,
)


@dataclass(frozen=True, config=STRICT)
class ImitationStage:
    """A cheaper flow network learns the flow of a trained model, whose other parts it takes as they are.

    What a model does with its flow it learnt together with it, and that flow is not quite motion: a flow network that learns
    from frames alone would not fit.

    Args:
        init: the model; its flow may be "light" where the network's is "half".
        warped: weight of the difference between frames that both flows warp, beside that of the flows in pixels.
    """

    kind: Literal["imitate"]
    optimisation: Optimisation
    init: str
    warped: Weight = 10.0
    score_unit: ClassVar[str] = "dB luma PSNR"

    def crops(self) -> CropShape:
        """Pairs of frames."""
        return CropShape(2)

    def draw(self, sampler: CropSampler) -> Draw:
        """Pairs."""
        return sampler.flow_batch

    def start(self, network: SkipVSR) -> SkipVSR:
        """The model in the network's shape. Raises ConfigError, CheckpointError."""
        return initial_network(network, self.init)

    def objective(self, network: SkipVSR) -> ImitationObjective:
        """What it minimises."""
        return ImitationObjective(network, self)

    def groups(self, network: SkipVSR) -> list[ParameterGroup]:
        """The flow network alone."""
        return [ParameterGroup(list(network.flow.parameters()))]


class ImitationObjective(PlainObjective):
    """How far a flow is from the model's: in pixels, and in what it makes of the neighbouring frame."""

    def __init__(self, network: SkipVSR, stage: ImitationStage) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        network.flow.requires_grad_(True)
        self.model_flow = load_model(stage.init, device="cpu").flow.requires_grad_(False)
        self.stage = stage

    def forward(self, batch: FlowBatch) -> Terms:
        """The loss under "loss", and its parts."""
        # Both directions of every pair.
        reference = torch.cat((batch.reference, batch.support))
        support = torch.cat((batch.support, batch.reference))
        with torch.no_grad():
            wanted = self.model_flow(reference, support)
            seen = warp(support, wanted, padding="border")
        flow = self.network.flow(reference, support)
        terms = {
            "flow": (flow - wanted).square().sum(dim=1).add(1e-4).sqrt().mean(),
            "warped": (warp(support, flow, padding="border") - seen).abs().mean(),
        }
        return {"loss": terms["flow"] + self.stage.warped * terms["warped"], **terms}
