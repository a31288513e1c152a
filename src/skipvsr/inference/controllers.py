"""Keeping to a frame rate: the threshold is changed while a video runs. (Keeping to a budget: `skipvsr.inference.budget`.)"""

from __future__ import annotations

from dataclasses import dataclass, field

from skipvsr.errors import ConfigError
from skipvsr.models.router import Calibration
from skipvsr.routing.learned import DifferenceThreshold, GainThreshold

MIN_BUDGET = 0.05
# Half the way to where the time would be right if all of it were blocks. Since it never is more than all, the budget comes
# nearer from one side and does not swing.
_PULL = 0.5
# Differences of the time that are left alone.
_NEAR = 0.03


@dataclass
class SpeedController:
    """Changes the threshold of a policy so that the stream keeps to a frame rate.

    Args:
        policy: whose threshold is turned.
        calibration: of the model: budgets to thresholds.
        target_fps: frames per second to reach.
        every: frames between two looks; a window, because the frames of one do not take the same time.

    Raises:
        ConfigError: the target is not above 0.
    """

    policy: GainThreshold | DifferenceThreshold
    calibration: Calibration
    target_fps: float
    every: int
    budget: float = 1.0
    _frames: int = field(default=0, init=False)
    _seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not self.target_fps > 0:
            raise ConfigError(f"the target is {self.target_fps} frames per second; it must be above 0")
        self._turn_to(self.budget)

    def frame_done(self, seconds: float) -> None:
        """A frame took so long; after every so many of them the budget is turned."""
        self._frames += 1
        self._seconds += seconds
        if self._frames < self.every:
            return
        ratio = max(self._seconds * self.target_fps / self._frames, 1e-3)  # time taken over time allowed
        self._frames, self._seconds = 0, 0.0
        if abs(ratio - 1) > _NEAR:
            self._turn_to(self.budget * ratio**-_PULL)

    def state(self) -> dict[str, float]:
        """What going on later needs."""
        return {"budget": self.budget, "frames": self._frames, "seconds": self._seconds}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave."""
        self._turn_to(state["budget"])
        self._frames, self._seconds = int(state["frames"]), state["seconds"]

    def _turn_to(self, budget: float) -> None:
        self.budget = min(max(budget, MIN_BUDGET), 1.0)
        self.policy.threshold = self.calibration.threshold_for(self.budget)
