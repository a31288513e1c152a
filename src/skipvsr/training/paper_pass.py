"""One step of the paper's training: the teacher's pass over a batch, the student's, and what the student's scores should be.

Both passes note the features of every trunk by direction and number of the frame, as `propagate` hands them on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from skipvsr.inference import masked
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.models.flow import Warp
from skipvsr.models.router import MaskGenerator
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import DifferenceThreshold
from skipvsr.routing.policies import Decide, Policy
from skipvsr.terms import Direction
from skipvsr.training.memory import Flows, Saving, super_resolve
from skipvsr.training.paper import feature_distance, target_layers, target_of, tile_psnr
from skipvsr.training.paper_method import PaperMethod

# A trunk on a frame (its number), and a block of it.
Place = tuple[Direction, int]
BlockPlace = tuple[Direction, int, int]
# Each (N, rows, columns); and each (N, C, rows, columns).
Scores = dict[BlockPlace, Tensor]
Differences = dict[BlockPlace, Tensor]


@dataclass
class FeatureRecorder:
    """A `RunTrunk` that notes features.

    Args:
        policy: decides what runs.
        tile_px: most pixels a side of a tile.
        kept: numbers of the features that are kept; None: all.
        saving: save memory (`Saving`).
    """

    policy: Policy
    tile_px: int
    kept: frozenset[int] | None = None
    saving: bool = False
    features: dict[Place, dict[int, Tensor]] = field(default_factory=dict, init=False)
    place: BlockPlace = field(default=("backward", -1, -1), init=False)

    def __call__(
        self, trunk: Trunk, direction: Direction, frame: Tensor, state: Tensor, flow: Tensor | None, number: int
    ) -> Tensor:
        """The new state; see `RunTrunk`."""
        found = self.features.setdefault((direction, number), {})

        def keep(index: int, feature: Tensor) -> None:
            if self.kept is None or index in self.kept:
                found[index] = feature

        def execute(
            blocks: Sequence[ResidualBlock], entering: Tensor, decide: Decide, grid: TileGrid
        ) -> tuple[Tensor, Tensor]:
            def noted(block: int, feature: Tensor) -> Tensor:
                self.place = (direction, number, block)
                keep(block, feature)
                return decide(block, feature)

            parts = [Saving(block) for block in blocks] if self.saving else blocks
            # In full precision also under autocast: differences between frames are smaller than the steps of half precision.
            leaving, masks = masked.run_blocks(parts, entering.float(), noted, grid)  # pyright: ignore[reportArgumentType]
            keep(len(blocks), leaving)
            return leaving, masks

        return RoutedTrunks(self.policy, self.tile_px, execute)(trunk, direction, frame, state, flow, number)


@dataclass(frozen=True)
class FullPass:
    """What a network makes of a batch with every block running.

    Args:
        network: ran.
        lr: the clips, (B, T, 3, H, W).
        flows: of the clips.
        result: (B, T, 3, 4H, 4W).
        features: by place and number, as many as were to be kept.
        differences: to the frame before, of what enters each block (equation 5, pooled).
    """

    network: SkipVSR
    lr: Tensor
    flows: Flows
    result: Tensor
    features: dict[Place, dict[int, Tensor]]
    differences: Differences


@dataclass(frozen=True)
class StudentPass:
    """What the dynamic network makes of a batch; scores and features have their gradients.

    Args:
        result: (B, T, 3, 4H, 4W).
        features: by place and number.
        scores: of every block that was asked about; on the first frame of a clip none is.
        ran: ratio of the blocks that ran.
    """

    result: Tensor
    features: dict[Place, dict[int, Tensor]]
    scores: Scores
    ran: float


@torch.no_grad()
def run_full(
    network: SkipVSR, lr: Tensor, method: PaperMethod, tile_px: int, *,
    kept: frozenset[int] | None = None, flows: Flows | None = None,
) -> FullPass:  # fmt: skip
    """Run every block, without gradients: the teacher's pass.

    Args:
        network: teacher or student.
        lr: clips (B, T, 3, H, W) in [0, 1].
        method: how the equations are read.
        tile_px: most pixels a side of a tile.
        kept: numbers of the features to keep; None: all. `target_features` are what supervision needs.
        flows: of the clips, where they are known.
    """
    differences: Differences = {}

    def note(direction: str, difference: Tensor) -> Tensor:
        differences[recorder.place] = difference
        return torch.ones_like(difference[:, 0])

    recorder = FeatureRecorder(_difference_policy(note, method), tile_px, kept)
    flows = flows or network.clip_flows(lr)
    result = network(lr, recorder, flows)
    return FullPass(network, lr, flows, result, recorder.features, differences)


def target_features(network: SkipVSR, method: PaperMethod) -> frozenset[int]:
    """Numbers of a teacher's features that supervision and alignment need: the target layers."""
    return frozenset(target_layers(network.config.blocks, method.every))


def follow(
    student: SkipVSR,
    taught: FullPass,
    thresholds: Tensor,
    method: PaperMethod,
    tile_px: int,
    *,
    saving: bool = False,
) -> StudentPass:
    """The student's pass over the teacher's clips.

    Args:
        student: with its mask generator.
        taught: by the teacher.
        thresholds: of each clip, (B, 1, 1); a block runs where the score exceeds it, below 0 everywhere.
        method: how the equations are read.
        tile_px: most pixels a side of a tile.
        saving: save memory (`Saving`).
    """
    generator, scores = mask_generator(student), {}
    ran: list[Tensor] = []

    def ask(direction: str, difference: Tensor) -> Tensor:
        score = generator(direction, difference if method.joint else difference.detach())
        scores[recorder.place] = score
        runs = (score > thresholds).to(score.dtype)
        ran.append(runs.mean())
        return runs

    recorder = FeatureRecorder(_difference_policy(ask, method), tile_px, saving=saving)
    flow_learns = next(student.flow.parameters()).requires_grad
    flows = student.clip_flows(taught.lr) if flow_learns else taught.flows
    result = super_resolve(student, taught.lr, recorder, flows, saving=saving)
    first_frames = 2 * student.config.blocks  # of both trunks, where every block runs
    ratio = (torch.stack(ran).sum().item() + first_frames) / (len(ran) + first_frames)
    return StudentPass(result, recorder.features, scores, ratio)


@torch.no_grad()
def target_distances(
    student: SkipVSR, made: StudentPass, taught: FullPass, gt: Tensor, method: PaperMethod, tile_px: int
) -> Scores:
    """How far the student is from the teacher wherever it gave a score: what equations 7, 14, 15 and 16 take the tanh of.

    Args:
        student: made `made`.
        made: by the student.
        taught: by the teacher, with the `target_features`.
        gt: the ground truth, (B, T, 3, 4H, 4W).
        method: how the equations are read.
        tile_px: most pixels a side of a tile.

    Returns:
        Root mean squares of features, or squared decibels, as `method.supervision` says.
    """
    grid = TileGrid.of(taught.lr.shape[-2], taught.lr.shape[-1], tile_px)
    blocks = student.config.blocks

    def quality(result: Tensor, frame: int) -> Tensor:
        return tile_psnr(result, gt[:, frame], grid)

    @cache
    def taught_quality(place: Place, layer: int) -> Tensor:
        return quality(interim_result(taught.network, taught, place, taught.features[place][layer]), place[1])

    @cache
    def whole_distance(frame: int) -> Tensor:
        return (quality(made.result[:, frame], frame) - quality(taught.result[:, frame], frame)).square()

    def distance(direction: Direction, frame: int, block: int) -> Tensor:
        place: Place = (direction, frame)
        mine, theirs, layer = made.features[place], taught.features[place], target_of(block, blocks, method.every)
        match method.supervision:
            case "feature-interval":
                return feature_distance(mine[block], theirs[layer], grid)
            case "feature":
                return feature_distance(mine[blocks], theirs[blocks], grid)
            case "psnr-interval":
                own = quality(interim_result(student, taught, place, mine[block]), frame)
                return (own - taught_quality(place, layer)).square()
            case "psnr":
                return whole_distance(frame)

    return {place: distance(*place) for place in made.scores}


def interim_result(network: SkipVSR, taught: FullPass, place: Place, feature: Tensor) -> Tensor:
    """What a network reconstructs from a feature of one trunk, with the teacher's last feature of the other: (B, 3, 4H, 4W)."""
    direction, frame = place
    other: Direction = "forward" if direction == "backward" else "backward"
    state = taught.features[other, frame][network.config.blocks]
    backward, forward = (feature, state) if direction == "backward" else (state, feature)
    return network.reconstruct(taught.lr[:, frame], backward, forward)


def mask_generator(network: SkipVSR) -> MaskGenerator:
    """The network's router, which is the paper's."""
    assert isinstance(network.router, MaskGenerator)
    return network.router


def _difference_policy(ask: Callable[[str, Tensor], Tensor], method: PaperMethod) -> DifferenceThreshold:
    """Blocks run where `ask` says 1, and not where it says 0."""
    return DifferenceThreshold(ask, 0.5, method.cell_px, Warp if method.warped else None)
