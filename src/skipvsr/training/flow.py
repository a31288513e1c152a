"""The flow stage: optical flow from nothing, photometric on real pairs, supervised on synthetic motion."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from skipvsr.data.crops import CropSampler, FlowBatch
from skipvsr.models.flow import warp
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.losses import end_point, photometric, stays_inside
from skipvsr.training.settings import STRICT, Optimisation, Ratio, Weight
from skipvsr.training.stage import CropShape, Draw, Measured, ParameterGroup, PlainObjective, Terms, import_flow


@dataclass(frozen=True, config=STRICT)
class FlowStage:
    """Optical flow from nothing: photometric on real pairs, supervised on synthetic motion.

    Args:
        init: a SPyNet checkpoint to start from (BasicSR or mmagic layout); none where empty.
        smooth: weight of the smoothness term.
        census: weight of the census term.
        supervised: weight of the end-point error on synthetic pairs.
        synthetic_ratio: ratio of pairs that are synthetic.
    """

    kind: Literal["flow"]
    optimisation: Optimisation
    init: str = ""
    smooth: Annotated[float, Field(ge=0)] = 0.02
    census: Weight = 0.1
    supervised: Weight = 0.02
    synthetic_ratio: Ratio = 0.5
    score_unit: ClassVar[str] = "levels of warping error (negative)"

    def crops(self) -> CropShape:
        """Pairs of frames."""
        return CropShape(2, stills_ratio=self.synthetic_ratio)

    def draw(self, sampler: CropSampler) -> Draw:
        """Pairs, some of them with known flow."""
        return sampler.flow_batch

    def start(self, network: SkipVSR) -> SkipVSR:
        """The network, with the flow that `init` names. Raises ConfigError, CheckpointError."""
        if self.init:
            import_flow(network, self.init)
        return network

    def objective(self, network: SkipVSR) -> FlowObjective:
        """What it minimises."""
        return FlowObjective(network, self)

    def groups(self, network: SkipVSR) -> list[ParameterGroup]:
        """The flow network alone."""
        return [ParameterGroup(list(network.flow.parameters()))]


class FlowObjective(PlainObjective):
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
        if stage.supervised:
            error = end_point(flow, batch.reference, batch.support, batch.flow, batch.valid)
            terms["end_point"] = error
            loss = loss + stage.supervised * error
        return {"loss": loss, **terms}

    def measure(self, network: SkipVSR, lr: Tensor, gt: Tensor) -> Measured:
        """The warping error."""
        return Measured({"warping_error": warping_error(network, lr)})

    def summarise(self, means: dict[str, float]) -> tuple[float, dict[str, float]]:
        """The negative warping error."""
        return -means["warping_error"], means


def warping_error(network: SkipVSR, lr: Tensor) -> float:
    """How far warped neighbours are from each frame of (T, 3, H, W): mean absolute difference in levels of 255."""
    flow = network.estimate_flow(lr[:-1], lr[1:])
    inside = stays_inside(flow)
    difference = (warp(lr[1:], flow, padding="border") - lr[:-1]).abs().mean(dim=1, keepdim=True)
    return 255 * ((difference * inside).sum() / inside.sum().clamp(min=1)).item()
