"""What each stage minimises: modules from a batch to a loss, so that a wrapper for many processes sees one `forward`."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor, nn

from skipvsr.data.crops import Batch, FlowBatch
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.config import BackboneStage, FlowStage, SkipStage, Stage
from skipvsr.training.losses import charbonnier, end_point, photometric

Terms = dict[str, Tensor]


class FlowObjective(nn.Module):
    """Photometric loss on real pairs, end-point error on pairs in known synthetic motion."""

    def __init__(self, network: SkipVSR, stage: FlowStage) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        network.flow.requires_grad_(True)
        self.stage = stage

    def forward(self, batch: FlowBatch) -> Terms:
        """The loss under "loss", and its parts."""
        flow = self.network.flow
        stage = self.stage
        photo = photometric(flow, batch.reference, batch.support, smooth=stage.smooth, census_weight=stage.census)
        terms = {"photometric": photo}
        loss = photo
        if stage.supervised and batch.flow is not None:
            error = end_point(flow, batch.reference, batch.support, batch.flow, batch.valid)
            terms["end_point"] = error
            loss = loss + stage.supervised * error
        return {"loss": loss, **terms}


class BackboneObjective(nn.Module):
    """Charbonnier distance to the ground truth (equation 12)."""

    def __init__(self, network: SkipVSR, stage: BackboneStage) -> None:
        super().__init__()
        self.network = trainable(network, stage.flow_rate)

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss"."""
        return {"loss": charbonnier(self.network(batch.low), batch.high)}


class SkipObjective(nn.Module):
    """The dynamic network (student) against the ground truth and against the frozen backbone (teacher)."""

    def __init__(self, network: SkipVSR, stage: SkipStage) -> None:
        super().__init__()
        self.teacher = deepcopy(network).eval().requires_grad_(False)
        self.network = trainable(network, stage.flow_rate)
        self.stage = stage

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss", and its parts."""
        student = self.network(batch.low)
        reconstruction = charbonnier(student, batch.high)
        distance = charbonnier(student, self.teacher(batch.low))
        loss = reconstruction + self.stage.distil * distance
        return {"loss": loss, "reconstruction": reconstruction, "distil": distance}


def trainable(network: SkipVSR, flow_rate: float) -> SkipVSR:
    """The network with everything to be trained, but its flow where the flow's rate is 0."""
    network.requires_grad_(True)
    network.flow.requires_grad_(flow_rate > 0)
    return network


def make_objective(network: SkipVSR, stage: Stage) -> nn.Module:
    """The objective of a stage."""
    if stage.kind == "flow":
        return FlowObjective(network, stage)
    if stage.kind == "backbone":
        return BackboneObjective(network, stage)
    return SkipObjective(network, stage)
