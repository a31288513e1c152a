"""The four parts of the network as ONNX graphs, written operator by operator, for any size of frame.

torch's own exporter was tried first: at sizes that it had not traced, flows were wrong by several pixels (a negative floor
division became one that rounds towards zero). The network is small and fixed, so that its graphs are written out here; the
tests compare every one with torch, at many sizes.

Operator set 17: `GridSample` and `Resize` as every runtime has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from skipvsr.errors import ConfigError
from skipvsr.models.any_model import AnyModel
from skipvsr.models.blocks import ResidualBlock, Trunk
from skipvsr.models.flow import PyramidFlow
from skipvsr.models.quantization import Quantization
from skipvsr.models.reconstruction import BasicVSRReconstruction
from skipvsr.models.vsr import SkipVSR
from skipvsr.terms import Direction

if TYPE_CHECKING:
    from onnx import ModelProto

PARTS = ("flow", "backward", "forward", "reconstruction")
OPERATOR_SET = 17
# The oldest version of the file format that has it.
_IR_VERSION = 8
_HALF_PIXEL: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
_ALIGNED: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}


def make_graphs(model: AnyModel, quantization: Quantization | None = None) -> dict[str, ModelProto]:
    """All of the network but its router, every block of it, as graphs by the names of `PARTS`.

    All tensors are fp32; N, H and W are free:

        flow            reference, support (N, 3, H, W)                       -> flow (N, 2, H, W), as `estimate_flow`
        backward        frame (N, 3, H, W), state (N, C, H, W), flow          -> new_state, as `propagate`
        forward         the same                                              -> new_state, as `propagate`
        reconstruction  frame, backward (N, C, H, W), forward (N, C, H, W)    -> result (N, 3, s * H, s * W), as `reconstruct`

    A recurrence starts from a state and a flow of zeros.

    Args:
        model: the network.
        quantization: convolutions to be computed in 8 bit; None: none.

    Raises:
        ConfigError: the package onnx is missing, or the model is no network.
    """
    if not isinstance(model, SkipVSR):
        raise ConfigError("this model is no network; give one that is, such as compact")
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError("the package onnx is missing; install skipvsr[onnx]") from error
    ranges = {} if quantization is None else quantization.ranges
    channels = model.config.channels
    flow = _Graph("flow", {"reference": 3, "support": 3})
    flow.finish("flow", _flow(flow, model.flow), 2)
    graphs = {"flow": flow.model()}
    directions: tuple[Direction, Direction] = ("backward", "forward")
    for direction in directions:
        step = _Graph(direction, {"frame": 3, "state": channels, "flow": 2}, ranges)
        trunk = model.backward_trunk if direction == "backward" else model.forward_trunk
        step.finish("new_state", _step(step, trunk, f"{direction}_trunk"), channels)
        graphs[direction] = step.model()
    last = _Graph("reconstruction", {"frame": 3, "backward": channels, "forward": channels}, ranges)
    last.finish("result", _reconstruction(last, model), 3, model.scale)
    return {**graphs, "reconstruction": last.model()}


class _Graph:
    """A graph that grows node by node; each method adds some and returns the name of what they compute."""

    def __init__(
        self, name: str, inputs: dict[str, int], ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        from onnx import TensorProto, helper

        self._name, self._ranges = name, ranges or {}
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs = [
            helper.make_tensor_value_info(key, TensorProto.FLOAT, ["batch", channels, "height", "width"])
            for key, channels in inputs.items()
        ]
        self._outputs: list[Any] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A tensor of the graph."""
        from onnx import numpy_helper

        name = f"constant_{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def conv(self, x: str, module: nn.Module, name: str = "") -> str:
        """A convolution with the weights of a module, in 8 bit where the range of its input is known by its name."""
        assert isinstance(module, nn.Conv2d)
        assert module.bias is not None
        weight, pad = _numpy(module.weight), module.kernel_size[0] // 2
        if name in self._ranges:
            x, kernel = self._in_8_bit(x, *self._ranges[name]), self._weights_in_8_bit(weight)
        else:
            kernel = self.constant(weight)
        return self.op(
            "Conv", x, kernel, self.constant(_numpy(module.bias)), pads=[pad] * 4, kernel_shape=weight.shape[2:]
        )

    def _in_8_bit(self, x: str, low: float, high: float) -> str:
        scale = (high - low) / 255
        zero = self.constant(round(-low / scale), np.uint8)
        quantized = self.op("QuantizeLinear", x, self.constant(scale), zero)
        return self.op("DequantizeLinear", quantized, self.constant(scale), zero)

    def _weights_in_8_bit(self, weight: np.ndarray) -> str:
        """Weights (out, in, height, width) on a symmetric scale for each output channel."""
        scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-12) / 127
        rounded = np.clip(np.rint(weight / scale[:, None, None, None]), -127, 127)
        zeros = self.constant(np.zeros(len(scale)), np.int8)
        return self.op("DequantizeLinear", self.constant(rounded, np.int8), self.constant(scale), zeros, axis=0)

    def leaky_relu(self, x: str) -> str:
        return self.op("LeakyRelu", x, alpha=0.1)

    def pixel_shuffle(self, x: str, factor: int) -> str:
        return self.op("DepthToSpace", x, blocksize=factor, mode="CRD")

    def sides(self, x: str) -> str:
        """Height and width of a tensor (N, C, H, W), int64."""
        return self.op("Shape", x, start=2, end=4)

    def resize(self, x: str, sides: str) -> str:
        """Bilinear resizing to a height and a width."""
        sizes = self.op("Concat", self.op("Shape", x, start=0, end=2), sides, axis=0)
        return self.op("Resize", x, "", "", sizes, **_HALF_PIXEL)

    def enlarge(self, x: str, factor: int, **mode: Any) -> str:
        """Bilinear enlargement by a whole factor."""
        return self.op("Resize", x, "", self.constant([1, 1, factor, factor]), **mode)

    def warp(self, source: str, flow: str, padding: str) -> str:
        """`skipvsr.models.flow.warp`."""
        axes = []
        for channel, dimension in ((0, 3), (1, 2)):
            side = self.op("Squeeze", self.op("Shape", source, start=dimension, end=dimension + 1))
            position = self.op("Range", self.constant(0, np.int64), side, self.constant(1, np.int64))
            position = self.op("Cast", position, to=1)
            if dimension == 2:
                position = self.op("Unsqueeze", position, self.constant([1], np.int64))
            moved = self.op("Add", position, self.op("Gather", flow, self.constant(channel, np.int64), axis=1))
            last = self.op("Cast", self.op("Sub", side, self.constant(1, np.int64)), to=1)
            last = self.op("Max", last, self.constant(1))  # a side of one pixel
            ratio = self.op("Div", self.op("Mul", moved, self.constant(2)), last)
            axes.append(self.op("Sub", ratio, self.constant(1)))
        axes = [self.op("Unsqueeze", axis, self.constant([3], np.int64)) for axis in axes]
        grid = self.op("Concat", *axes, axis=3)
        return self.op("GridSample", source, grid, mode="bilinear", padding_mode=padding, align_corners=1)

    def finish(self, name: str, value: str, channels: int, scale: int = 1) -> None:
        """Name an output."""
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("Identity", [value], [name]))
        sides = ["height", "width"] if scale == 1 else [f"{scale}*height", f"{scale}*width"]
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, *sides]))

    def model(self) -> ModelProto:
        """The graph as a model, checked by onnx."""
        import onnx
        from onnx import helper

        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, list(self._constants.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPERATOR_SET)],
            ir_version=_IR_VERSION,
            producer_name="skipvsr",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _flow(graph: _Graph, flow: PyramidFlow) -> str:
    """`PyramidFlow.forward`."""
    sides = graph.sides("reference")
    multiple = graph.constant(flow.multiple_px, np.int64)
    up = graph.op("Add", sides, graph.constant(flow.multiple_px - 1, np.int64))
    padded = graph.op("Mul", graph.op("Div", up, multiple), multiple)
    references, supports = (_pyramid(graph, flow, name, padded) for name in ("reference", "support"))
    found = ""
    for index, level in enumerate(flow.levels):
        assert isinstance(level, nn.Sequential)
        if index == 0:
            # No flow yet: nothing moves.
            before = graph.op("Mul", graph.op("Slice", references[0], *_first_channels(graph, 2)), graph.constant(0))
            warped = supports[0]
        else:
            before = graph.op("Mul", graph.enlarge(found, 2, **_ALIGNED), graph.constant(2))
            warped = graph.warp(supports[index], before, "border")
        x = graph.op("Concat", references[index], warped, before, axis=1)
        for layer in level:
            x = graph.conv(x, layer) if isinstance(layer, nn.Conv2d) else graph.op("Relu", x)
        found = graph.op("Add", before, x)
    # Of the size that is asked for to that at which flow was found.
    ratios = graph.op("Div", graph.op("Cast", sides, to=1), graph.op("Cast", padded, to=1))
    ratios = graph.op("Mul", ratios, graph.constant(2**flow.halvings)) if flow.halvings else ratios
    # (height, width) ratios to (x, y) channels.
    ratios = graph.op("Gather", ratios, graph.constant([1, 0], np.int64))
    ratios = graph.op("Reshape", ratios, graph.constant([1, 2, 1, 1], np.int64))
    return graph.op("Mul", graph.resize(found, sides), ratios)


def _pyramid(graph: _Graph, flow: PyramidFlow, frames: str, padded: str) -> list[str]:
    """Normalised frames at every level, coarsest first."""
    centred = graph.op("Sub", frames, graph.constant(_numpy(flow.mean)))
    pyramid = [graph.resize(graph.op("Div", centred, graph.constant(_numpy(flow.std))), padded)]
    for _ in range(len(flow.levels) - 1 + flow.halvings):
        pyramid.append(graph.op("AveragePool", pyramid[-1], kernel_shape=[2, 2], strides=[2, 2]))
    return pyramid[flow.halvings :][::-1]


def _first_channels(graph: _Graph, count: int) -> tuple[str, str, str]:
    """Start, end and axis of a `Slice`."""
    return graph.constant([0], np.int64), graph.constant([count], np.int64), graph.constant([1], np.int64)


def _step(graph: _Graph, trunk: Trunk, name: str) -> str:
    """One step of a recurrence: the state is warped, then goes through `Trunk.forward`."""
    aligned = graph.warp("state", "flow", "zeros")
    state = graph.leaky_relu(graph.conv(graph.op("Concat", "frame", aligned, axis=1), trunk.input, f"{name}.input"))
    for index, block in enumerate(trunk.blocks):
        assert isinstance(block, ResidualBlock)
        place = f"{name}.blocks.{index}"
        hidden = graph.op("Relu", graph.conv(state, block.conv1, f"{place}.conv1"))
        state = graph.op("Add", state, graph.conv(hidden, block.conv2, f"{place}.conv2"))
    return state


def _reconstruction(graph: _Graph, model: SkipVSR) -> str:
    """`SkipVSR.reconstruct`."""
    module = model.reconstruction

    def conv(x: str, name: str) -> str:
        return graph.conv(x, getattr(module, name), f"reconstruction.{name}")

    x = graph.leaky_relu(conv(graph.op("Concat", "backward", "forward", axis=1), "fusion"))
    if isinstance(module, BasicVSRReconstruction):
        for name in ("up1", "up2") if model.scale == 4 else ("up2",):
            x = graph.leaky_relu(graph.pixel_shuffle(conv(x, name), 2))
        residual = conv(graph.leaky_relu(conv(x, "hr")), "last")
    else:
        residual = graph.pixel_shuffle(conv(x, "last"), model.scale)
    return graph.op("Add", residual, graph.enlarge("frame", model.scale, **_HALF_PIXEL))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
