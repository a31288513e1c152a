"""Which convolutions of a network can be computed in 8 bit, and the ranges of their inputs, as measured on clips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from skipvsr.errors import ConfigError


@dataclass(frozen=True)
class Quantization:
    """Ranges of the inputs of convolutions.

    A value x in [low, high] becomes round((x - low) / (high - low) * 255), one beyond becomes the nearer end. The range
    holds 0, so that padding is exact. Weights need no table: each output channel is scaled by its own largest weight.

    Args:
        ranges: (low, high) by the name of the convolution in the network, as in "backward_trunk.blocks.0.conv1".

    Raises:
        ConfigError: a range is empty, does not hold 0, or is not finite.
    """

    ranges: dict[str, tuple[float, float]]

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high and low < high):
                raise ConfigError(f"the range of {name} is {low} to {high}; it must hold 0 and be finite")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Quantization:
        """The inverse of `to_dict`. Raises ConfigError."""
        try:
            return cls({name: (float(low), float(high)) for name, (low, high) in values["ranges"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"the table of 8-bit ranges is damaged ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored in `config.json`."""
        return {"ranges": {name: list(bounds) for name, bounds in self.ranges.items()}}
