"""The dial: how much of the network runs, and on what: whole frames, or the paper's patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from skipvsr.errors import ConfigError
from skipvsr.inference import tiled
from skipvsr.inference.controllers import BudgetController, SpeedController
from skipvsr.inference.patched import PATCH_BATCH_SIZE, PATCH_PX, Patched, PatchGrid
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.models.flow import warp
from skipvsr.models.router import MaskGenerator
from skipvsr.models.vsr import Recurrence, SkipVSR
from skipvsr.routing.learned import DifferenceThreshold, GainThreshold
from skipvsr.routing.policies import Policy, all_blocks
from skipvsr.routing.trace import Tally, Trace

DEFAULT_TILE_PX = 24
Tiling = Literal["frame", "patch"]


@dataclass(frozen=True)
class Dial:
    """How much of the network is to run; with nothing set, all of it.

    Args:
        threshold: blocks run where the router expects more than this of them; 0 runs everything.
        budget: ratio of the residual blocks' work, in (0, 1]; needs a calibrated model.
        target_fps: frames per second to keep to, by turning the budget as the video runs; needs a calibrated model.
        tile_px: most pixels a side of a tile; None: as the model was calibrated.
        tiling: "frame", tiles of a frame that see their neighbours; or "patch", the paper's isolated patches, one decision
            each.
        patch_batch_size: patches at once.

    Raises:
        ConfigError: more than one of the first three is set, or one is out of its range.
    """

    threshold: float | None = None
    budget: float | None = None
    target_fps: float | None = None
    tile_px: int | None = None
    tiling: Tiling = "frame"
    patch_batch_size: int = PATCH_BATCH_SIZE

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.threshold, self.budget, self.target_fps)) > 1:
            raise ConfigError("more than one of threshold, budget and target frame rate was given; give one of them")
        if self.threshold is not None and not self.threshold >= 0:
            raise ConfigError(f"the threshold is {self.threshold}; it must be 0 (run everything) or more")
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ConfigError(f"the budget is {self.budget}; it must be above 0 and at most 1")
        if self.target_fps is not None and not self.target_fps > 0:
            raise ConfigError(f"the target is {self.target_fps} frames per second; it must be above 0")
        if self.tile_px is not None and self.tile_px < 4:
            raise ConfigError(f"tiles are {self.tile_px} pixels; they must be at least 4")
        if self.tiling not in get_args(Tiling):
            raise ConfigError(f"the tiling is {self.tiling!r}; choose one of {', '.join(get_args(Tiling))}")
        if self.patch_batch_size < 1:
            raise ConfigError(f"{self.patch_batch_size} patches in a batch; it must be at least 1")

    def around(self, model: SkipVSR, height: int, width: int) -> Recurrence:
        """What streams frames of this size: the model itself, or its patches."""
        if self.tiling == "frame":
            return model
        return Patched(model, PatchGrid(height, width), self.patch_batch_size)

    def tile_of(self, model: SkipVSR) -> int:
        """Most pixels a side of the tiles of whole frames."""
        return self.tile_px or (model.calibration.tile_px if model.calibration else DEFAULT_TILE_PX)

    def turn(self, model: SkipVSR, trace: Trace | None = None, *, trace_all: bool = False) -> RoutedTrunks | None:
        """How the model's trunks are to run; None where everything does.

        Args:
            model: whose.
            trace: what ran is added to it.
            trace_all: also where everything runs.

        Raises:
            ConfigError: the model has no router, or a budget is asked of one that was never calibrated.
        """
        calibration = model.calibration
        tile_px = self.tile_of(model)
        execute = tiled.run_blocks
        if self.tiling == "patch":
            tile_px, execute = PATCH_PX, partial(tiled.run_blocks, patch_batch_size=self.patch_batch_size)
        if self.target_fps is None and not self.threshold and (self.budget is None or self.budget == 1):
            return RoutedTrunks(all_blocks, tile_px, execute, trace) if trace_all else None
        if model.router is None:
            raise ConfigError(
                "this model has no router: it runs whole, or not at all; leave the budget and threshold out, or use "
                "a model that has one (skipvsr models)"
            )
        threshold = self.threshold or 0.0
        if self.budget is not None or self.target_fps is not None:
            if calibration is None:
                raise ConfigError("this model is not calibrated; run 'skipvsr calibrate', or give --threshold")
            threshold = calibration.threshold_for(self.budget or 1.0)
        if isinstance(model.router, MaskGenerator):
            align = warp if model.router.warped else None
            policy: Policy = DifferenceThreshold(model.router, threshold, align=align)
        else:
            policy = GainThreshold(model.router, threshold)
        return RoutedTrunks(policy, tile_px, execute, trace)

    def controller(
        self, model: SkipVSR, routed: RoutedTrunks | None, every: int, tally: Tally
    ) -> SpeedController | BudgetController | None:
        """What turns the threshold as the video runs, where a frame rate or a budget was asked for.

        Args:
            model: whose table is followed.
            routed: what `turn` gave.
            every: frames between two looks.
            tally: counts what runs.
        """
        if (
            routed is None
            or model.calibration is None
            or not isinstance(routed.policy, GainThreshold | DifferenceThreshold)
        ):
            return None
        if self.target_fps is not None:
            return SpeedController(routed.policy, model.calibration, self.target_fps, every)
        if self.budget is not None:
            return BudgetController(routed.policy, model.calibration, self.budget, tally, every)
        return None
