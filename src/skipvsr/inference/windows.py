"""How a stream is cut into windows."""

from __future__ import annotations

from dataclasses import dataclass

from skipvsr.errors import ConfigError
from skipvsr.models.any_model import AnyConfig

DEFAULT_LOOKAHEAD = 4
MAX_WINDOW = 32
MIN_WINDOW = 4
STATE_BYTES = 1 << 30


@dataclass(frozen=True)
class Windows:
    """How a stream is cut.

    Args:
        window: frames per window; the backward states of one window are in memory at a time.
        lookahead: frames beyond a window's end from which the backward recurrence starts.

    Raises:
        ConfigError: window under 1 or lookahead under 0.
    """

    window: int
    lookahead: int = DEFAULT_LOOKAHEAD

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"the window is {self.window} frames; it must be at least 1")
        if self.lookahead < 0:
            raise ConfigError(f"the lookahead is {self.lookahead} frames; it must be 0 or more")


def default_window(config: AnyConfig, height: int, width: int) -> int:
    """Frames per window, from 4 to 32: as many as keep the stored backward states (fp32) within 1 GiB.

    A longer window wastes less of the backward recurrence on lookahead, a shorter one takes less memory; the result
    depends on the lookahead alone, but for rounding (docs/streaming.md has the measurement).
    """
    per_frame = 4 * max(1, config.channels) * height * width
    return max(MIN_WINDOW, min(MAX_WINDOW, STATE_BYTES // per_frame))
