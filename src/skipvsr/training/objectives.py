"""What each stage minimises: modules from a batch to a loss, so that a wrapper for many processes sees one `forward`."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from skipvsr.data.crops import Batch, FlowBatch
from skipvsr.evaluation.oracle import OracleGains
from skipvsr.inference import masked
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.router import GainRouter, MaskGenerator
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.training.config import BackboneStage, FlowStage, RouterStage, SkipStage, Stage
from skipvsr.training.losses import charbonnier, end_point, photometric
from skipvsr.training.paper import TeacherTargets
from skipvsr.training.routing import ExploringPolicy, TaughtPolicy, gain_loss

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
        self.network = trainable(network, stage.flow_learning_rate_scale)

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss"."""
        return {"loss": charbonnier(self.network(batch.lr), batch.gt)}


class GainObjective(nn.Module):
    """Every step trains the full network and one at a random budget, which learns from the full one's picture too.

    The router learns from the difference of the two what the skipped blocks would have brought.
    """

    def __init__(self, network: SkipVSR, stage: SkipStage) -> None:
        super().__init__()
        self.network = trainable(network, stage.flow_learning_rate_scale)
        self.stage = stage

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss", and its parts."""
        network, stage = self.network, self.stage
        router = network.router
        assert isinstance(router, GainRouter)
        flows = network.clip_flows(batch.lr)
        policy = ExploringPolicy(router, batch.seeds, stage.min_budget)
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


class RouterObjective(nn.Module):
    """The router's gains against those that the oracle measures, on states that skipping led to; the network stays as it is."""

    def __init__(self, network: SkipVSR, stage: RouterStage) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        assert isinstance(network.router, GainRouter)
        network.router.requires_grad_(True)
        self.stage = stage

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss", and its parts."""
        network, stage = self.network, self.stage
        assert isinstance(network.router, GainRouter)
        with torch.no_grad():
            flows = network.clip_flows(batch.lr)
            oracle = OracleGains(network, batch.lr, batch.gt, flows)
        policy = TaughtPolicy(ExploringPolicy(network.router, batch.seeds, stage.min_budget), oracle)
        with torch.no_grad():
            network(batch.lr, RoutedTrunks(policy, stage.tile_px, masked.run_blocks), flows)
        return {"loss": policy.loss()}


class PaperObjective(nn.Module):
    """The paper's losses (equation 13): reconstruction, mask, error; the backbone it starts from stays as the teacher."""

    def __init__(self, network: SkipVSR, stage: SkipStage) -> None:
        super().__init__()
        assert isinstance(network.router, MaskGenerator)
        network.router.warped.fill_(float(stage.paper.warped))
        self.teacher = deepcopy(network).eval().requires_grad_(False)
        self.network = trainable(network, stage.flow_learning_rate_scale)
        self.stage = stage

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss", and its parts."""
        network, method = self.network, self.stage.paper
        assert isinstance(network.router, MaskGenerator)
        targets = TeacherTargets(self.teacher, batch, method, self.stage.tile_px)
        if network.router.temperature == 0:
            network.router.temperature.copy_(targets.teacher_distance())
        student = targets.run(network)
        terms = {
            "reconstruction": charbonnier(student, batch.gt),
            "mask": targets.mask_loss(network, student),
            "error": targets.error_loss(),
        }
        loss = terms["reconstruction"] + method.mask_weight * terms["mask"] + method.error_weight * terms["error"]
        return {"loss": loss, **terms}


def trainable(network: SkipVSR, flow_learning_rate_scale: float) -> SkipVSR:
    """The network with everything to be trained, but its flow where the flow's learning_rate is 0."""
    network.requires_grad_(True)
    network.flow.requires_grad_(flow_learning_rate_scale > 0)
    return network


def make_objective(network: SkipVSR, stage: Stage) -> nn.Module:
    """The objective of a stage."""
    if stage.kind == "flow":
        return FlowObjective(network, stage)
    if stage.kind == "backbone":
        return BackboneObjective(network, stage)
    if stage.kind == "router":
        return RouterObjective(network, stage)
    return GainObjective(network, stage) if stage.router == "gain" else PaperObjective(network, stage)
