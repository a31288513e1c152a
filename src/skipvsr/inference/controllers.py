"""Keeping to a frame rate: the budget is changed while a video runs. (Keeping to a budget: `skipvsr.inference.budget`.)"""

from __future__ import annotations

from dataclasses import dataclass, field

from skipvsr.errors import ConfigError
from skipvsr.inference.budget import BudgetAccount

MIN_BUDGET = 0.05
# Half the way to where the time would be right if all of it were blocks. Since it never is more than all, the budget comes
# nearer from one side and does not swing.
_PULL = 0.5
# Differences of the time that are left alone.
_NEAR = 0.03


@dataclass
class SpeedController:
    """Changes the budget of an account so that the stream keeps to a frame rate.

    Args:
        account: whose budget is turned; what it has is where it begins.
        target_fps: frames per second to reach.
        every: frames between two looks; a window, because the frames of one do not take the same time.

    Raises:
        ConfigError: the target is not above 0.
    """

    account: BudgetAccount
    target_fps: float
    every: int
    _frames: int = field(default=0, init=False)
    _seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not self.target_fps > 0:
            raise ConfigError(f"the target is {self.target_fps} frames per second; it must be above 0")

    def frame_done(self, seconds: float) -> None:
        """A frame took so long; after every so many of them the budget is turned."""
        self._frames += 1
        self._seconds += seconds
        if self._frames < self.every:
            return
        ratio = max(self._seconds * self.target_fps / self._frames, 1e-3)  # time taken over time allowed
        self._frames, self._seconds = 0, 0.0
        if abs(ratio - 1) > _NEAR:
            self.account.turn_to(min(max(self.account.budget * ratio**-_PULL, MIN_BUDGET), 1.0))

    def state(self) -> dict[str, float]:
        """What going on later needs, beside the account's state."""
        return {"frames": self._frames, "seconds": self._seconds}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave."""
        self._frames, self._seconds = int(state["frames"]), state["seconds"]
