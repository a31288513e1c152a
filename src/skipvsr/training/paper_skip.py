"""The skip stage as the paper has it: a dynamic network with its mask generator, beside the frozen backbone."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import field
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from skipvsr.data.crops import Batch, CropSampler
from skipvsr.models.vsr import SkipVSR
from skipvsr.training.losses import charbonnier
from skipvsr.training.paper import error_loss, mask_loss, target_layers
from skipvsr.training.paper_generator import (
    draw_thresholds,
    fit_generator,
    follow_temperature,
    score_targets,
    scores_of,
)
from skipvsr.training.paper_method import PaperMethod
from skipvsr.training.paper_pass import follow, mask_generator, run_full, target_distances, target_features
from skipvsr.training.paper_validate import measure_generator, moments, with_r_squared
from skipvsr.training.settings import STRICT, Natural, Optimisation, Positive, Ratio
from skipvsr.training.stage import (
    CropShape,
    Draw,
    Measured,
    ParameterGroup,
    Terms,
    initial_network,
    measure_full,
    network_groups,
    train_all,
)


@dataclass(frozen=True, config=STRICT)
class PaperSkipStage:
    """The dynamic network with the paper's mask generator (section 3).

    Args:
        router: "paper".
        frames, mirror, init, flow_learning_rate_scale, flow_frozen_steps: as for the backbone stage.
        tile_px: most pixels a side of a tile of the crops, and of the patches that are validated; the paper tests patches of
            48, and a crop of 48 is one tile.
        paper: the method.
    """

    kind: Literal["skip"]
    router: Literal["paper"]
    optimisation: Optimisation
    frames: Annotated[int, Field(ge=2)]
    mirror: bool = False
    init: str = ""
    flow_learning_rate_scale: Ratio = 0.0
    flow_frozen_steps: Natural = 0
    tile_px: Annotated[Positive, Field(ge=16)] = 48
    paper: PaperMethod = field(default_factory=PaperMethod)
    score_unit: ClassVar[str] = "dB luma PSNR"

    def crops(self) -> CropShape:
        """Clips."""
        return CropShape(self.frames, self.mirror)

    def draw(self, sampler: CropSampler) -> Draw:
        """Clips with their ground truth."""
        return sampler.batch

    def start(self, network: SkipVSR) -> SkipVSR:
        """The network so far, or that of `init`, with a mask generator. Raises ConfigError, CheckpointError."""
        return initial_network(network, self.init, router="paper")

    def objective(self, network: SkipVSR) -> PaperObjective:
        """What it minimises."""
        return PaperObjective(network, self)

    def groups(self, network: SkipVSR) -> list[ParameterGroup]:
        """Flow and mask generator at their own learning rates."""
        flow = ParameterGroup(list(network.flow.parameters()), self.flow_learning_rate_scale, self.flow_frozen_steps)
        return network_groups(network, flow, self.paper.learning_rate / self.optimisation.learning_rate)


class PaperObjective(nn.Module):
    """The paper's losses (equation 13): reconstruction, mask, error; the backbone it starts from stays as the teacher."""

    def __init__(self, network: SkipVSR, stage: PaperSkipStage) -> None:
        super().__init__()
        self.teacher = deepcopy(network).eval().requires_grad_(False)
        self.network = train_all(network, stage.flow_learning_rate_scale)
        self.stage = stage

    def fit(self, batch: Batch) -> None:
        """Fit the scale of the differences and the temperature on the teacher's features."""
        taught = run_full(self.teacher, batch.lr, self.stage.paper, self.stage.tile_px)
        fit_generator(self.network, taught, self.stage.paper, self.stage.tile_px)

    def forward(self, batch: Batch) -> Terms:
        """The loss under "loss", its parts, the ratio of blocks that ran, and the moments of `r_squared`."""
        network, method, tile_px = self.network, self.stage.paper, self.stage.tile_px
        generator = mask_generator(network)
        taught = run_full(self.teacher, batch.lr, method, tile_px, kept=target_features(network, method))
        flows = None if next(network.flow.parameters()).requires_grad else taught.flows
        own = run_full(network, batch.lr, method, tile_px, kept=frozenset(), flows=flows)
        thresholds = draw_thresholds(scores_of(generator, own), batch.seeds, method)
        saving = self.stage.optimisation.activation_checkpointing
        made = follow(network, taught, thresholds, method, tile_px, saving=saving)
        distances = target_distances(network, made, taught, batch.gt, method, tile_px)
        if method.supervision in ("feature", "feature-interval"):
            follow_temperature(generator, distances, method.temperature_momentum)
        targets = score_targets(distances, generator, method)
        layers = target_layers(network.config.blocks, method.every)
        terms = {
            "reconstruction": charbonnier(made.result, batch.gt),
            # All blocks, frames and tiles that were scored; on the first frame of a clip none is.
            "mask": torch.stack([mask_loss(score, targets[place]) for place, score in made.scores.items()]).mean(),
            "error": error_loss(
                list(made.features.values()),
                [taught.features[place] for place in made.features],
                layers,
                method.mapping,
            ),
        }
        loss = terms["reconstruction"] + method.mask_weight * terms["mask"] + method.error_weight * terms["error"]
        ran = loss.new_tensor(made.ran)
        return {"loss": loss, **terms, "active_ratio": ran, **moments(made.scores, targets)}

    def log_terms(self, means: dict[str, float]) -> dict[str, float]:
        """R-squared of the scores by direction in the place of its moments, over the batches since the last line."""
        return with_r_squared(means)

    def measure(self, network: SkipVSR, lr: Tensor, gt: Tensor) -> Measured:
        """PSNR of the full network and with half of the blocks, and how well scores predict their targets."""
        full = measure_full(network, lr, gt)
        numbers = measure_generator(network, self.teacher, lr, gt, self.stage.paper, self.stage.tile_px)
        return Measured(full.numbers | numbers, full.image)

    def summarise(self, means: dict[str, float]) -> tuple[float, dict[str, float]]:
        """Luma PSNR of the full network and with half of the blocks; R-squared of the scores by direction."""
        return (means["psnr_y"] + means["psnr_y_half"]) / 2, with_r_squared(means)
