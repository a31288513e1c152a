"""The dial: how much of the network runs."""

from __future__ import annotations

from dataclasses import dataclass

from skipvsr.errors import ConfigError
from skipvsr.execute.routed import RoutedTrunks, Trace
from skipvsr.models.flow import warp
from skipvsr.models.router import MaskGenerator
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.learned import DifferenceThreshold, GainThreshold

DEFAULT_TILE_PX = 24


@dataclass(frozen=True)
class Dial:
    """How much of the network is to run; with nothing set, all of it.

    Args:
        threshold: blocks run where the router expects more than this of them; 0 runs everything.
        budget: share of the residual blocks' work, in (0, 1]; needs a calibrated model.
        tile_px: most pixels a side of a tile; None: as the model was calibrated.

    Raises:
        ConfigError: both are set, or one is out of its range.
    """

    threshold: float | None = None
    budget: float | None = None
    tile_px: int | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.budget is not None:
            raise ConfigError("both a threshold and a budget were given; give one of them")
        if self.threshold is not None and not self.threshold >= 0:
            raise ConfigError(f"the threshold is {self.threshold}; it must be 0 (run everything) or more")
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ConfigError(f"the budget is {self.budget}; it must be above 0 and at most 1")
        if self.tile_px is not None and self.tile_px < 4:
            raise ConfigError(f"tiles are {self.tile_px} pixels; they must be at least 4")

    def turn(self, model: SkipVSR, trace: Trace | None = None) -> RoutedTrunks | None:
        """How the model's trunks are to run; None where everything does.

        Raises:
            ConfigError: the model has no router, or a budget is asked of one that was never calibrated.
        """
        if not self.threshold and (self.budget is None or self.budget == 1):
            return None
        if model.router is None:
            raise ConfigError(
                "this model has no router: it runs whole, or not at all; leave the budget and threshold out, or use "
                "a model that has one (skipvsr models)"
            )
        calibration = model.calibration
        threshold = self.threshold
        if self.budget is not None:
            if calibration is None:
                raise ConfigError("this model is not calibrated; run 'skipvsr calibrate', or give --threshold")
            threshold = calibration.threshold_for(self.budget)
        assert threshold is not None
        tile_px = self.tile_px or (calibration.tile_px if calibration else DEFAULT_TILE_PX)
        if isinstance(model.router, MaskGenerator):
            align = warp if model.router.warped else None
            return RoutedTrunks(DifferenceThreshold(model.router, threshold, align=align), tile_px, trace=trace)
        return RoutedTrunks(GainThreshold(model.router, threshold), tile_px, trace=trace)
