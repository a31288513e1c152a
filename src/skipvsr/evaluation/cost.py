"""What the network costs, in multiply-accumulates (MACs), by its closed form."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

from skipvsr.inference.lean import running_config
from skipvsr.inference.upscaler import Upscaler
from skipvsr.models.any_model import AnyConfig
from skipvsr.models.bicubic import BicubicConfig
from skipvsr.models.config import VSRConfig
from skipvsr.models.flow import PyramidFlow, make_flow
from skipvsr.models.router import conv_weights, make_router


@dataclass(frozen=True)
class Cost:
    """MACs per frame, by part. One multiply-accumulate counts as 1; the literature often calls it a FLOP.

    Args:
        flow: both flow networks' passes, at the padded size they really work at.
        trunk_inputs: the first convolution of both trunks.
        blocks: the residual blocks of both trunks.
        reconstruction: fusion and reconstruction.
        router: both directions' decisions; 0 where everything runs without asking.
    """

    flow: int
    trunk_inputs: int
    blocks: int
    reconstruction: int
    router: int = 0

    @property
    def without_flow(self) -> int:
        """What most papers report."""
        return self.trunk_inputs + self.blocks + self.reconstruction

    @property
    def total(self) -> int:
        """Everything. Warping, resizing, pooling and activations have no multiply-accumulates worth counting."""
        return self.flow + self.without_flow + self.router

    def at_ratio(self, ratio: float) -> int:
        """Everything, with this ratio of the residual blocks' work."""
        return sum(self.by_part(ratio).values())

    def by_part(self, ratio: float) -> dict[str, int]:
        """Each part, with this ratio of the residual blocks' work."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "blocks": round(ratio * self.blocks)
        }

    def times(self, count: int) -> Cost:
        """Of so many frames, or patches of one."""
        return Cost(*(count * part for part in astuple(self)))


def cost_per_frame(config: AnyConfig, height: int, width: int, *, tiles: int = 0) -> Cost:
    """Cost of one frame of a long clip of the given low-resolution size (every pair of frames has two flows).

    Args:
        config: of the network; bicubic interpolation has no multiply-accumulates worth counting.
        height, width: of the low-resolution frames.
        tiles: for which the network's router decides; 0: it is not asked.
    """
    if isinstance(config, BicubicConfig):
        return Cost(0, 0, 0, 0)
    pixels = height * width
    c = config.channels
    flow = make_flow(config.flow)
    fusion = 2 * c * c
    if config.reconstruction == "basicvsr":
        # At 1, 2, 4 times the size: c -> 4c, c -> 256, then 64 -> 64 and 64 -> 3; x2 has none of the first.
        first = 9 * (c * 4 * c) if config.scale == 4 else 0
        area = config.scale**2
        reconstruction = fusion + first + area // 4 * 9 * (c * 256) + area * 9 * (64 * 64 + 64 * 3)
    else:
        reconstruction = fusion + 9 * (c * 3 * config.scale**2)
    return Cost(
        flow=2 * _flow_macs(flow, height, width),
        trunk_inputs=pixels * 2 * 9 * (c + 3) * c,
        blocks=pixels * 2 * config.blocks * 2 * 9 * c * c,
        reconstruction=pixels * reconstruction,
        router=2 * _router_macs(config, height, width, tiles) if tiles else 0,
    )


def stream_cost(upscaler: Upscaler, height: int, width: int, *, budgeted: bool = True) -> Cost:
    """Cost of a frame of a stream with every block; where patches overlap, the overlap counts for each of them.

    Args:
        upscaler: the model and what it was asked for; the router's decisions count where it is asked, and the lean parts where
            the budget is theirs (with a target frame rate, which may turn to them, the network's own).
        height, width: of the low-resolution frames.
        budgeted: False: what it would cost if nothing were skipped: with the network's own parts, and no decisions.
    """
    config = running_config(upscaler.model, upscaler.compute) if budgeted else upscaler.model.config
    routes = budgeted and upscaler.routes
    patches = upscaler.patch_grid(height, width)
    if patches is not None:
        one = cost_per_frame(config, patches.patch_height, patches.patch_width, tiles=int(routes))
        return one.times(patches.patches)
    return cost_per_frame(config, height, width, tiles=upscaler.tile_grid(height, width).tiles if routes else 0)


def _router_macs(config: VSRConfig, height: int, width: int, tiles: int) -> int:
    """One direction's decisions for one frame."""
    router = make_router(config.router, config.channels, config.blocks)
    return 0 if router is None else router.macs(height, width, tiles, config.blocks)


def _flow_macs(flow: PyramidFlow, height: int, width: int) -> int:
    """One pass of the pyramid over one pair of frames."""
    multiple = flow.multiple_px
    pixels = (-(-height // multiple) * multiple) * (-(-width // multiple) * multiple)
    macs = 0
    for level, network in enumerate(flow.levels):
        macs += conv_weights(network) * pixels // 4 ** (len(flow.levels) - 1 - level + flow.halvings)
    return macs
