"""A model made ready to run: on its device, in its precision, in the memory format that convolutions like best."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

from skipvsr.errors import ConfigError
from skipvsr.inference.options import AUTO, Precision
from skipvsr.models.vsr import SkipVSR

Model = TypeVar("Model", bound=nn.Module)
# Of the runtime torch.
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare_model(
    model: Model, device: str | torch.device = AUTO, precision: Precision | None = None
) -> Model:  # fmt: skip
    """The model in eval mode on the device; in another precision a copy, so that the caller's weights stay as they are.

    Args:
        model: moved if need be.
        device: "auto" leaves it where it is.
        precision: None leaves its dtype.

    Raises:
        ConfigError: the device is not there.
    """
    # Converted in the caller's inference mode, the weights could never be trained again.
    with torch.inference_mode(mode=False):
        if precision is not None and next(model.parameters()).dtype != DTYPES[precision]:
            model = deepcopy(model).to(DTYPES[precision])
            if isinstance(model, SkipVSR) and model.router is not None:
                model.router.float()  # thresholds are closer to one another than steps of half precision
        model = _moved(model, device)
        # The weights alone decide in which memory format convolutions run; the results do not change.
        return model.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue] - the stubs forget it


def _moved(model: Model, device: str | torch.device) -> Model:
    if device == AUTO:
        return model
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"cannot use the device {str(device)!r}: {_reason(str(device), error)}") from error


def _reason(device: str, error: Exception) -> str:
    """Why a device cannot be used, and what to do."""
    if not device.startswith("cuda"):
        return f"{str(error).splitlines()[0]}; choose cpu, or cuda with a GPU and a build of torch for it"
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"this torch ({torch.__version__}) is built without CUDA; pytorch.org/get-started shows how to install one "
            "with it, and the README what to do with that; or choose cpu"
        )
    if not torch.cuda.is_available():
        return "torch finds no GPU; look whether its driver works (nvidia-smi must list the GPU), or choose cpu"
    names = ", ".join(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    return f"{str(error).splitlines()[0]}; there are {names}"
