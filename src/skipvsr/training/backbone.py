"""The backbone stage: BasicVSR with the Charbonnier loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from skipvsr.data.crops import Batch, CropSampler
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.losses import charbonnier
from skipvsr.training.memory import super_resolve
from skipvsr.training.settings import STRICT, Natural, Optimisation, Ratio
from skipvsr.training.stage import (
    CropShape,
    Draw,
    ParameterGroup,
    PlainObjective,
    Terms,
    import_flow,
    initial_network,
    network_groups,
    train_all,
)


@dataclass(frozen=True, config=STRICT)
class BackboneStage:
    """BasicVSR with the Charbonnier loss.

    Args:
        frames: frames of a training clip.
        mirror: append the frames in reverse, T -> 2T: BasicVSR's recipe for the 7 frames of Vimeo-90K.
        init: a model to start from (what `load_model` takes); where empty, what the stage before left. Of one with more
            blocks than the network, the first are taken; one with fewer blocks or channels gets more, which add nothing at
            first.
        flow_init: a SPyNet checkpoint (BasicSR or mmagic layout) whose weights the flow network starts from, in the place of a
            flow stage; none where empty.
        flow_learning_rate_scale: the flow network's learning rate as a ratio of the rest's; 0 freezes it.
        flow_frozen_steps: steps before the flow network starts to learn.
    """

    kind: Literal["backbone"]
    optimisation: Optimisation
    frames: Annotated[int, Field(ge=2)]
    mirror: bool = False
    init: str = ""
    flow_init: str = ""
    flow_learning_rate_scale: Ratio = 1.0
    flow_frozen_steps: Natural = 0
    score_unit: ClassVar[str] = "dB luma PSNR"

    def crops(self) -> CropShape:
        """Clips."""
        return CropShape(self.frames, self.mirror)

    def draw(self, sampler: CropSampler) -> Draw:
        """Clips with their ground truth."""
        return sampler.batch

    def start(self, network: SkipVSR) -> SkipVSR:
        """The network so far, or that of `init`; with the flow of `flow_init`. Raises ConfigError, CheckpointError."""
        network = initial_network(network, self.init)
        if self.flow_init:
            import_flow(network, self.flow_init)
        return network

    def objective(self, network: SkipVSR) -> BackboneObjective:
        """What it minimises."""
        return BackboneObjective(network, self)

    def groups(self, network: SkipVSR) -> list[ParameterGroup]:
        """Flow at its own learning rate."""
        flow = ParameterGroup(list(network.flow.parameters()), self.flow_learning_rate_scale, self.flow_frozen_steps)
        return network_groups(network, flow)


class BackboneObjective(PlainObjective):
    """Charbonnier distance to the ground truth (equation 12)."""

    def __init__(self, network: SkipVSR, stage: BackboneStage) -> None:
        super().__init__()
        self.network = train_all(network, stage.flow_learning_rate_scale)
        self.stage = stage

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss"."""
        saving = self.stage.optimisation.activation_checkpointing
        return {"loss": charbonnier(super_resolve(self.network, batch.lr, saving=saving), batch.gt)}
