"""The network in OpenVINO in the place of torch: whole frames, every block, compiled once for each size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skipvsr.errors import ConfigError
from skipvsr.inference.onnx_graphs import make_graphs
from skipvsr.models.any_model import AnyModel
from skipvsr.models.recurrence import RunTrunk, WrappedNetwork
from skipvsr.terms import Direction

if TYPE_CHECKING:
    from openvino import CompiledModel, Core

# Compiled graphs that are kept, the latest used ones: those of a frame, its strips and its blended tiles are a dozen.
_KEPT = 24


class OpenVINONetwork(WrappedNetwork):
    """A `Recurrence` that computes what a `SkipVSR` computes, on a CPU, a GPU or an NPU of Intel.

    Tensors come and go on the CPU, in fp32. Residual blocks are never skipped.

    Args:
        model: the network, whose weights are copied.
        device: "auto" or "cpu": the CPU; "gpu", "gpu:1", "npu".
        quantized: compute convolutions in 8 bit, as the model's table of ranges says.

    Raises:
        ConfigError: openvino or onnx is missing, the device is not there, the model is no network, or it has no such table.
    """

    network: AnyModel

    def __init__(self, model: AnyModel, device: str = "auto", *, quantized: bool = False) -> None:
        if quantized and model.quantization is None:
            raise ConfigError(
                "the model has no table for 8 bit; make it with 'skipvsr calibrate MODEL CLIPS --int8', or choose fp32"
            )
        self.network = model
        self._core, self._device = _core(device)
        self._graphs = {
            name: graph.SerializeToString()
            for name, graph in make_graphs(model, model.quantization if quantized else None).items()
        }
        self._compiled: dict[tuple[Any, ...], CompiledModel] = {}

    def estimate_flow(self, reference: Tensor, support: Tensor) -> Tensor:
        """As the network's."""
        return self._run("flow", reference, support)

    def propagate(
        self,
        direction: Direction,
        frame: Tensor,
        state: Tensor | None,
        flow: Tensor | None,
        run: RunTrunk | None = None,
        number: int = -1,
    ) -> Tensor:
        """As the network's, every block; `run` is not asked."""
        count, _, height, width = frame.shape
        if state is None or flow is None:
            state = frame.new_zeros(count, self.network.config.channels, height, width)
            flow = frame.new_zeros(count, 2, height, width)
        return self._run(direction, frame, state, flow)

    def reconstruct(self, frame: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """As the network's."""
        return self._run("reconstruction", frame, backward, forward)

    def _run(self, part: str, *tensors: Tensor) -> Tensor:
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        key = (part, shapes)
        compiled = self._compiled.pop(key, None) or self._compile(part, shapes)
        self._compiled[key] = compiled  # the latest used one is last
        if len(self._compiled) > _KEPT:
            del self._compiled[next(iter(self._compiled))]
        found = compiled([tensor.contiguous().numpy() for tensor in tensors])
        return torch.from_numpy(found[0])

    def _compile(self, part: str, shapes: tuple[tuple[int, ...], ...]) -> CompiledModel:
        model = self._core.read_model(self._graphs[part])
        # Of a fixed shape, everything that depends on the size alone is computed now.
        model.reshape({port: list(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if self._device == "CPU":
            options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
        return self._core.compile_model(model, self._device, options)


def _core(device: str) -> tuple[Core, str]:
    """OpenVINO, and its name of a device, which is there. Raises ConfigError."""
    try:
        from openvino import Core
    except ImportError as error:
        raise ConfigError("the package openvino is missing; install skipvsr[openvino]") from error
    core = Core()
    name = "CPU" if device in ("auto", "cpu") else device.upper().replace(":", ".")
    there = core.available_devices
    if name not in there and name not in {each.partition(".")[0] for each in there}:
        known = ", ".join(each.lower().replace(".", ":") for each in there)
        raise ConfigError(f"OpenVINO has no device {device!r} here; choose one of {known}")
    return core, name
