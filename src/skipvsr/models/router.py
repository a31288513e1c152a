"""The two routers: small networks that say what a residual block would bring to each tile of a frame.

`GainRouter`, ours, looks once, before the trunk runs, at cheap features of the frame and of what enters the trunk, and
predicts for every block of the trunk the marginal gain of running it. `MaskGenerator`, the paper's, is asked before every
block and looks at how much the feature differs from that of the previous frame (equations 5 and 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipvsr.errors import ConfigError
from skipvsr.terms import LUMA_WEIGHTS

_TEXTURES = 4
Router = Literal["none", "gain", "paper"]
LOOK_CHANNELS, LOOK_PX = 24, 4
_LOG_FLOOR = 1e-3


@dataclass(frozen=True)
class Calibration:
    """Which threshold spends which ratio of the residual blocks' work, as measured on clips.

    Args:
        tile_px: most pixels a side of the tiles it was measured with.
        budgets: ratios in (0, 1), rising.
        thresholds: the threshold of each, above 0, falling.
        backward, forward: the ratio that ran in either direction at each threshold, in [0, 1], not falling; empty where they
            were not measured.
        least_backward: a budget takes blocks from the backward trunk first, everywhere alike, until no more than so many of
            them run, and only then from the forward trunk, by the threshold; 0: by one threshold from both.
        lean_budget: budgets up to this one run with the model's lean parts, in [0, 1]; 0: none does.

    Raises:
        ConfigError: anything else.
    """

    tile_px: int
    budgets: tuple[float, ...]
    thresholds: tuple[float, ...]
    backward: tuple[float, ...] = ()
    forward: tuple[float, ...] = ()
    least_backward: int = 0
    lean_budget: float = 0.0

    def __post_init__(self) -> None:
        if self.least_backward < 0:
            raise ConfigError(
                f"the calibration table leaves {self.least_backward} backward blocks; it must be 0 or more"
            )
        if not 0 <= self.lean_budget <= 1:
            raise ConfigError(f"the calibration table's lean budget is {self.lean_budget}; it must be from 0 to 1")
        rising = all(one < two for one, two in pairwise((0.0, *self.budgets, 1.0)))
        falling = all(one > two for one, two in pairwise((math.inf, *self.thresholds, 0.0)))
        if not (self.budgets and rising and falling and len(self.budgets) == len(self.thresholds) and self.tile_px > 0):
            raise ConfigError("the calibration table is not one of rising budgets and falling thresholds")
        for name, ratios in (("backward", self.backward), ("forward", self.forward)):
            rising = all(one <= two for one, two in pairwise((0.0, *ratios, 1.0)))
            if ratios and not (rising and len(ratios) == len(self.budgets)):
                raise ConfigError(f"the calibration table's {name} ratios are not one for each threshold, rising")

    def threshold_for(self, budget: float) -> float:
        """The threshold for a budget in (0, 1]: 0 for 1, else by the logarithm between (and beyond) the measured ones."""
        if not 0 < budget <= 1:
            raise ConfigError(f"the budget is {budget}; it must be above 0 and at most 1")
        if budget == 1:
            return 0.0
        if len(self.budgets) == 1:
            return self.thresholds[0]
        after = next((i for i, known in enumerate(self.budgets) if known >= budget), len(self.budgets) - 1)
        low = max(after - 1, 0)
        (b0, b1), (t0, t1) = self.budgets[low : low + 2], self.thresholds[low : low + 2]
        return math.exp(math.log(t0) + (budget - b0) / (b1 - b0) * (math.log(t1) - math.log(t0)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The inverse of `to_dict`. Raises ConfigError."""
        try:
            directions = (tuple(values.get(name, ())) for name in ("backward", "forward"))
            return cls(
                int(values["tile_px"]), tuple(values["budgets"]), tuple(values["thresholds"]), *directions,
                least_backward=int(values.get("least_backward", 0)), lean_budget=float(values.get("lean_budget", 0)),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the calibration table is damaged ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored in `config.json`."""
        directions = {"backward": list(self.backward), "forward": list(self.forward)}
        return {
            "tile_px": self.tile_px,
            "budgets": list(self.budgets),
            "thresholds": list(self.thresholds),
            **{name: ratios for name, ratios in directions.items() if ratios},
            **({"least_backward": self.least_backward} if self.least_backward else {}),
            **({"lean_budget": self.lean_budget} if self.lean_budget else {}),
        }


def make_router(kind: Router, channels: int, blocks: int) -> GainRouter | MaskGenerator | None:
    """An untrained router of a kind, for trunks of so many blocks and channels; None for "none"."""
    match kind:
        case "gain":
            return GainRouter(channels, blocks)
        case "paper":
            return MaskGenerator(channels)
        case "none":
            return None


class Tiles(Protocol):
    """The tiles of a frame: `skipvsr.routing.grid.TileGrid`."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    def pool(self, values: Tensor, cell_px: int = 1) -> Tensor:
        """Mean over each tile of values at every pixel, or of every cell: (N, C, H, W) -> (N, C, rows, columns)."""
        ...


class GainRouter(nn.Module):
    """Predicted gain of each block on each tile.

    The gain is in units of 1e-4 of mean squared error (RGB in [0, 1], over the tile's HR pixels): how much larger the error
    would be without the block. It never rises from block to block, so that a threshold on it is a depth per tile.

    Args:
        channels: of the state.
        blocks: of each trunk.
    """

    def __init__(self, channels: int, blocks: int, width: int = 32) -> None:
        super().__init__()
        self.backward_look = _Look(channels)
        self.forward_look = _Look(channels)
        self.backward_head = _head(_TEXTURES + 2 + channels + LOOK_CHANNELS, blocks, width)
        self.forward_head = _head(_TEXTURES + 2 + channels + LOOK_CHANNELS, blocks, width)

    def forward(self, direction: str, frame: Tensor, state: Tensor, flow: Tensor | None, tiles: Tiles) -> Tensor:
        """Gains (N, blocks, rows, columns), at least 0, falling along the blocks.

        Args:
            direction: "backward" or "forward".
            frame: (N, 3, H, W), RGB in [0, 1].
            state: (N, C, H, W), what enters the first block.
            flow: (N, 2, H, W) in pixels, or None on the first frame of a scene.
            tiles: of the frame; everything that the router looks at is averaged over exactly these.
        """
        look, head = (
            (self.backward_look, self.backward_head)
            if direction == "backward"
            else (self.forward_look, self.forward_head)
        )
        weights = next(head.parameters()).dtype
        frame, state = frame.to(weights), state.to(weights)
        seen = tiles.pool(look(frame, state), LOOK_PX)
        steps = F.softplus(head(torch.cat((self.features(frame, state, flow, tiles), seen), dim=1)))
        return steps.flip(1).cumsum(dim=1).flip(1)

    def macs(self, height: int, width: int, tiles: int, blocks: int) -> int:
        """Multiply-accumulates of the decisions for a frame of this size in one direction."""
        cells = (height // LOOK_PX) * (width // LOOK_PX)
        return cells * conv_weights(self.forward_look) + tiles * conv_weights(self.forward_head)

    @staticmethod
    def features(frame: Tensor, state: Tensor, flow: Tensor | None, tiles: Tiles) -> Tensor:
        """What the router is told, besides what it has learnt to look at: (N, 6 + C, rows, columns).

        Per tile: mean and root mean square of the luma's slope, mean curvature, luma; mean length of the flow, and whether
        there is one; mean magnitude of each channel of the state, sampled at every other pixel.
        """
        red, green, blue = (frame * _luma_weights(frame.device, frame.dtype)).split(1, dim=1)
        luma = red + green + blue
        padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
        centre = padded[..., 1:-1, 1:-1]
        right, below = padded[..., 1:-1, 2:] - centre, padded[..., 2:, 1:-1] - centre
        slope = right.abs() + below.abs()
        curvature = (right + below - (centre - padded[..., 1:-1, :-2]) - (centre - padded[..., :-2, 1:-1])).abs()
        texture = tiles.pool(torch.cat((slope, slope.square(), curvature, luma), dim=1))
        texture = torch.cat(
            (
                torch.log(texture[:, :1] + _LOG_FLOOR),
                0.5 * torch.log(texture[:, 1:2] + _LOG_FLOOR**2),
                torch.log(texture[:, 2:3] + _LOG_FLOOR),
                texture[:, 3:],
            ),
            dim=1,
        )
        if flow is None:
            motion = frame.new_zeros(frame.shape[0], 2, tiles.rows, tiles.columns)
        else:
            length = torch.log1p((flow[:, :1].square() + flow[:, 1:].square()).sqrt())
            motion = tiles.pool(torch.cat((length, torch.ones_like(length)), dim=1)).to(frame.dtype)
        activity = tiles.pool(state[..., ::2, ::2].abs(), cell_px=2)
        return torch.cat((texture, motion, activity), dim=1)


class MaskGenerator(nn.Module):
    """The paper's router: sigmoid(W * GAP(difference) + b), C -> 1; one per direction, shared by its blocks (equation 6).

    The pooled differences are small (about 0.01) and differ much between channels, so W and b are those of standardised
    differences: (difference - mean) / scale, for each channel. The function is that of equation 6 with other W and b; without
    it training moves the scores hardly at all. It starts with W = b = 0: every score is 0.5.

    What a generator was trained with belongs to its weights, as buffers, because it works with no others:
    `difference_mean` and `difference_scale` (2, C), backward and forward; `temperature`, by which distances are divided before
    the hyperbolic tangent of equation 7, 0 until training has fitted it; `warped`, 1 where the difference is taken after
    warping; `cell_px`, the side of the cells in which the previous frame's feature is kept, 1 for every pixel (equation 5 as
    printed).
    """

    temperature: Tensor
    warped: Tensor
    cell_px: Tensor
    difference_mean: Tensor
    difference_scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.zeros(()))
        self.register_buffer("warped", torch.zeros(()))
        self.register_buffer("cell_px", torch.ones(()))
        self.register_buffer("difference_mean", torch.zeros(2, channels))
        self.register_buffer("difference_scale", torch.ones(2, channels))
        self.backward_head = nn.Linear(channels, 1)
        self.forward_head = nn.Linear(channels, 1)
        for head in (self.backward_head, self.forward_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def macs(self, height: int, width: int, tiles: int, blocks: int) -> int:
        """Multiply-accumulates of the decisions for a frame of this size in one direction, of all blocks."""
        return tiles * self.forward_head.in_features * blocks

    def forward(self, direction: str, difference: Tensor) -> Tensor:
        """Pooled difference (N, C, rows, columns) -> score (N, rows, columns) in (0, 1), always in float32."""
        head, at = (self.backward_head, 0) if direction == "backward" else (self.forward_head, 1)
        standard = (difference.permute(0, 2, 3, 1).float() - self.difference_mean[at]) / self.difference_scale[at]
        # Not a linear layer, which autocast would run in half precision: thresholds are closer to one another than its steps.
        return torch.sigmoid((standard * head.weight[0]).sum(dim=-1) + head.bias)


def conv_weights(network: nn.Module) -> int:
    """The weights of its convolutions: multiply-accumulates at each place."""
    return sum(weight.numel() for weight in network.parameters() if weight.ndim == 4)


class _Look(nn.Sequential):
    """Learnt features of every 4x4 pixels and what is around them: frame and state -> (N, 24, H // 4, W // 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(3 + channels, LOOK_CHANNELS, LOOK_PX, stride=LOOK_PX),
            nn.LeakyReLU(0.1),
            nn.Conv2d(LOOK_CHANNELS, LOOK_CHANNELS, 3, padding=1, padding_mode="replicate"),
            nn.LeakyReLU(0.1),
        )

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:
        first, *rest = self
        assert isinstance(first, nn.Conv2d)
        # The sum of two convolutions, because putting both into one tensor takes longer than convolving it.
        seen = F.conv2d(state, first.weight[:, 3:], first.bias, stride=LOOK_PX)
        seen = seen + F.conv2d(frame, first.weight[:, :3], stride=LOOK_PX)
        for layer in rest:
            seen = layer(seen)
        return seen


@lru_cache(maxsize=16)
def _luma_weights(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1, 3, 1, 1), kept: bringing it to a GPU for every frame would wait for all that the GPU is doing."""
    with torch.inference_mode(mode=False):  # training may be next
        return torch.tensor(LUMA_WEIGHTS, device=device, dtype=dtype).view(1, 3, 1, 1)


def _head(channels: int, blocks: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
        nn.LeakyReLU(0.1),
        nn.Conv2d(width, blocks, 1),
    )
