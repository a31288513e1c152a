"""`Upscaler`: a model with its options, which makes streams of larger frames from streams of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.inference.device import DTYPES, prepare_model
from skipvsr.inference.execution import choose_execution, kernel_network
from skipvsr.inference.frame_stream import AtPosition, FrameStream, Instrument, StreamState
from skipvsr.inference.graphs import GraphedNetwork, StepGraphs, make_graphs
from skipvsr.inference.openvino_network import OpenVINONetwork
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.inference.patched import PatchGrid
from skipvsr.inference.policies import make_policy
from skipvsr.inference.precision import settled
from skipvsr.inference.routed import RunBlocks
from skipvsr.inference.streaming import OnStep
from skipvsr.inference.windows import Windows
from skipvsr.models.any_model import AnyModel
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.recurrence import Recurrence
from skipvsr.models.vsr import SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import Policy
from skipvsr.routing.trace import Trace

DEFAULT_TILE_PX = 24


class Upscaler:
    """A model with its options; makes a stream of larger frames from each stream of frames that it is given.

    It alone knows routing, patches, controllers, precision, runtimes and devices: files, evaluation and all other uses feed it
    and take from it.

    Args:
        model: moved and converted as the options say (`prepare_model`).
        compute: how much of it runs, and where; None: every block, where the model is.
        stream: how streams are cut; None: by default.
        policy: makes a policy for each stream, in the place of the one that asks the model's router; for experiments.
        tuned: on a GPU, run steps of small frames through CUDA graphs, warp through a kernel of our own, and run blocks that
            are active everywhere through such kernels where `skipvsr benchmark` found these faster; False: as torch does it.

    Raises:
        ConfigError: the device is not there, or the model cannot follow the options.
    """

    def __init__(
        self,
        model: AnyModel,
        compute: ComputeOptions | None = None,
        stream: StreamOptions | None = None,
        *,
        policy: Callable[[], Policy] | None = None,
        tuned: bool = True,
    ) -> None:
        self.compute = compute or ComputeOptions()
        self.stream_options = stream or StreamOptions()
        if isinstance(model, Bicubic):
            _check_bicubic(self.compute, policy)
        # What streams run: the model itself, or what another runtime makes of it; and where little may be spent.
        self.network: Recurrence
        self.lean_network: Recurrence | None = None
        if self.compute.runtime == "openvino":
            if policy is not None:
                raise ConfigError(
                    "the OpenVINO runtime runs every block; leave the policy out, or use the torch runtime"
                )
            self.compute = settled(self.compute, model)
            model = prepare_model(model, "cpu", "fp32")
            quantized = self.compute.precision == "int8"
            self.network = OpenVINONetwork(model, str(self.compute.device), quantized=quantized)
        else:
            model = prepare_model(model, self.compute.device)
            self.compute = settled(self.compute, model)
            model = prepare_model(model, precision=self.compute.precision)
            self.network = model
        self.model = model
        self.graphs: StepGraphs | None = None
        # Whether our kernels run the blocks also where every block runs everywhere.
        self.blocks_by_kernels = False
        if isinstance(model, SkipVSR) and self.compute.runtime == "torch":
            lean = model.lean_network() if model.lean is not None and self.compute.skips and policy is None else None
            if tuned:
                self.graphs = make_graphs(self.device)
                self.network = self._tuned(model, "")
            self.lean_network = lean and (self._tuned(lean, "lean") if tuned else lean)
        self.routes = policy is not None or self.compute.skips
        self.make_policy = policy or partial(make_policy, self.model, self.compute)
        if policy is None:
            self.make_policy()  # what is wrong with the options is said now

    def _tuned(self, network: SkipVSR, name: str) -> Recurrence:
        """The network as it is fastest on its device."""
        tuned: Recurrence = network
        by_kernels = kernel_network(network)
        if by_kernels is not None:
            tuned, self.blocks_by_kernels = by_kernels, by_kernels.run_blocks is not None
        return tuned if self.graphs is None else GraphedNetwork(tuned, self.graphs, name)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def precision(self) -> str:
        """In which the network runs: "fp32", "bf16", "fp16" or "int8"."""
        if self.compute.precision == "int8":
            return "int8"
        dtype = next(self.model.parameters()).dtype
        return next((name for name, known in DTYPES.items() if known == dtype), str(dtype))

    @property
    def tile_size(self) -> int:
        """Longest side of a tile of whole frames, in low-resolution pixels."""
        calibration = self.model.calibration
        return self.compute.tile_size or (calibration.tile_px if calibration else DEFAULT_TILE_PX)

    @property
    def has_blocks(self) -> bool:
        """Whether the model has blocks at all; bicubic interpolation has none."""
        return not isinstance(self.model, Bicubic)

    def check_traceable(self) -> None:
        """Raise ConfigError where a trace would have nothing to tell: no blocks, or a runtime that runs all of them."""
        if not self.has_blocks:
            raise ConfigError(
                "a trace or an overlay tells which blocks ran, and bicubic has none; leave it out, or take a model"
            )
        if self.compute.runtime != "torch":
            raise ConfigError("a trace or an overlay needs the torch runtime; every block runs in OpenVINO")

    def execution(self, patch_batch_size: int | None = None) -> RunBlocks:
        """How the residual blocks run on the model's device; see `choose_execution`."""
        assert isinstance(self.model, SkipVSR)
        weights = next(self.model.parameters())
        return choose_execution(
            weights.device, weights.dtype, self.model.config.channels, patch_batch_size, self.graphs
        )  # fmt: skip

    def windows(self, height: int, width: int) -> Windows:
        """How a stream of frames of this size is cut."""
        return self.stream_options.windows(self.model.config, height, width)

    def patch_grid(self, height: int, width: int) -> PatchGrid | None:
        """The isolated patches of frames of this size; None where whole frames are computed."""
        return PatchGrid(height, width) if self.compute.tiling == "patch" else None

    def tile_grid(self, height: int, width: int) -> TileGrid:
        """The tiles of whole frames of this size."""
        return TileGrid.of(height, width, self.tile_size)

    def stream(
        self,
        frames: Iterable[Tensor],
        trace: Trace | None = None,
        start: StreamState | None = None,
        *,
        at_position: AtPosition | None = None,
        instrument: Instrument | None = None,
        on_step: OnStep | None = None,
    ) -> FrameStream:
        """Super-resolve a stream of frames, of any length, in fixed memory.

        Args:
            frames: (3, H, W), RGB in [0, 1], all of one size, each side at least 16 pixels; taken as they are needed.
            trace: what ran is added to it.
            start: go on from here; all frames are given again, the results before it are not repeated.
            at_position: called wherever the stream could go on later, when all frames before it were taken from the iterator.
            instrument: looks on.
            on_step: called after each step that gives no result yet (`upscale_stream`), for showing progress.

        Returns:
            An iterator of frames (3, s * H, s * W) with the model's scale s, one for one and in order, not clamped; the same
            tensor again for a frame that repeats the one before.

        Raises:
            ConfigError: a trace is asked for of a runtime that has none.
            ShapeError: while iterating: a frame of another shape or size.
            ResourceError: while iterating: memory ran out, and nothing was left that would save any.
        """
        if trace is not None:
            self.check_traceable()
        return FrameStream(self, frames, trace, start, at_position, instrument, on_step)


def _check_bicubic(compute: ComputeOptions, policy: Callable[[], Policy] | None) -> None:
    """Raise ConfigError where something is asked of bicubic interpolation that only a network can do."""
    if compute.skips or policy is not None:
        raise ConfigError(
            "bicubic has no blocks to skip; leave budget, threshold and target frame rate out, or take a model"
        )
    if compute.tiling == "patch":
        raise ConfigError("bicubic has no tiles; leave the patches out, or take a model")
