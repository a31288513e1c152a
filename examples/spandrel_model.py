"""A network of skipvsr in spandrel's loader, for programs that load all their models by it.

    pip install skipvsr spandrel
    python examples/spandrel_model.py model.safetensors in.png out.png

Call `add_to(MAIN_REGISTRY)` once; from then on spandrel recognises the weights.
"""

from __future__ import annotations

import sys
from itertools import product

import torch
from spandrel import (  # pyright: ignore[reportMissingImports]
    MAIN_REGISTRY,
    Architecture,
    ArchRegistry,
    ArchSupport,
    ImageModelDescriptor,
    ModelLoader,
    SizeRequirements,
    StateDict,
)
from spandrel.util import KeyCondition  # pyright: ignore[reportMissingImports]
from torch import Tensor

from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.video.images import read_image, write_image


class SkipVSRArchitecture(Architecture[SkipVSR]):
    """What spandrel has to know: how to tell the weights, and what to make of them."""

    def __init__(self) -> None:
        trunks = ("backward_trunk.blocks.0.conv1.weight", "forward_trunk.blocks.0.conv1.weight")
        super().__init__(id="SkipVSR", detect=KeyCondition.has_all(*trunks, "reconstruction.fusion.weight"))

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[SkipVSR]:
        """A descriptor of a network; called on an image, it takes it for a video of one frame."""
        config = config_of(state_dict)
        return ImageModelDescriptor(
            SkipVSR(config),
            state_dict,
            architecture=self,
            purpose="SR",
            tags=[f"{config.channels}c", f"{config.blocks}b"],
            supports_half=False,
            supports_bfloat16=False,
            scale=config.scale,
            input_channels=3,
            output_channels=3,
            size_requirements=SizeRequirements(minimum=16),
            call_fn=as_one_frame,
        )


def as_one_frame(model: SkipVSR, image: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 3, s * H, s * W)."""
    return model(image[:, None])[:, 0]


def config_of(state_dict: StateDict) -> VSRConfig:
    """The one configuration of a network that has these weights."""
    channels = state_dict["reconstruction.fusion.weight"].shape[0]
    blocks = sum(key.startswith("forward_trunk.blocks.") and key.endswith(".conv1.weight") for key in state_dict)
    shapes = {name: value.shape for name, value in state_dict.items()}
    choices = product(("light", "spynet"), ("light", "basicvsr"), ("gain", "none", "paper"), (4, 2))
    for flow, reconstruction, router, scale in choices:
        config = VSRConfig(channels, blocks, flow, reconstruction, router, scale)
        with torch.device("meta"):
            network = SkipVSR(config)
        if {name: value.shape for name, value in network.state_dict().items()} == shapes:
            return config
    raise ValueError("these are the weights of no network of this version of skipvsr")


def add_to(registry: ArchRegistry) -> None:
    """Have a registry of spandrel recognise networks of skipvsr; once more does nothing."""
    registry.add(ArchSupport.from_architecture(SkipVSRArchitecture()), ignore_duplicates=True)


if __name__ == "__main__":
    add_to(MAIN_REGISTRY)
    descriptor = ModelLoader(device="cpu").load_from_file(sys.argv[1])
    picture = read_image(sys.argv[2])
    write_image(sys.argv[3], to_array(descriptor(to_tensor(picture)[None])[0], picture.dtype))
