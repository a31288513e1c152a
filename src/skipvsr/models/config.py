"""What determines the shape of a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from skipvsr.errors import ConfigError
from skipvsr.models.flow import Flow
from skipvsr.models.router import Router

Reconstruction = Literal["basicvsr", "light"]
Scale = Literal[2, 4]


@dataclass(frozen=True)
class VSRConfig:
    """Everything that determines the network's shape.

    Args:
        channels: C, width of the propagated states (the paper: 64).
        blocks: residual blocks in each of the two trunks (the paper: 30).
        flow: "spynet" (1.44 M parameters), "light" (0.06 M), or "half" (light without its finest level, 0.05 M).
        reconstruction: "basicvsr" (two x2 pixel shuffles, two convolutions at full size), or "light" (one x4 pixel shuffle).
        router: "none", "gain" (ours) or "paper" (its mask generator).
        scale: how many times larger each side becomes, 2 or 4.
        lean: backward blocks of its lean parts (`skipvsr.models.lean`), which run where little may be spent; 0: it has none.

    Raises:
        ConfigError: a size is not positive, or a name is not one of those above.
    """

    channels: int = 64
    blocks: int = 30
    flow: Flow = "spynet"
    reconstruction: Reconstruction = "basicvsr"
    router: Router = "none"
    scale: Scale = 4
    lean: int = 0

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("blocks", 1), ("lean", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from {least} up")
        if self.lean > self.blocks:
            raise ConfigError(f"lean is {self.lean}, more than the {self.blocks} blocks")
        for name, allowed in (
            ("flow", get_args(Flow)),
            ("reconstruction", get_args(Reconstruction)),
            ("router", get_args(Router)),
            ("scale", get_args(Scale)),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(map(str, allowed))}")

    @property
    def reconstruction_values(self) -> int:
        """Numbers for each low-resolution pixel in the largest features of the reconstruction, input and output."""
        # 64 channels at full size twice, or 48 channels at low resolution.
        return 2 * 64 * self.scale**2 if self.reconstruction == "basicvsr" else 4 * 48

    def leaner(self) -> VSRConfig:
        """That of the network with its lean parts in the place of its own."""
        return replace(self, flow="half", lean=0)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VSRConfig:
        """The inverse of `to_dict`. Raises ConfigError on a key that is not a field."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(
                f"unknown model setting {unknown[0]!r}; this model was made by another version of skipvsr"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored in `config.json`; older versions read those of a network that has nothing newer."""
        values = asdict(self)
        if self.scale == 4:
            del values["scale"]
        if not self.lean:
            del values["lean"]
        return values
