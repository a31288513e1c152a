"""Ranges of the inputs of convolutions, measured on clips: what 8 bit needs to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from skipvsr.models.quantization import Quantization
from skipvsr.models.vsr import SkipVSR

# Flow stays in fp32: an error there moves things.
_QUANTIZED = ("backward_trunk.", "forward_trunk.", "reconstruction.")


@torch.inference_mode()
def measure_ranges(
    model: SkipVSR, clips: Sequence[Tensor], on_clip: Callable[[int, int], object] | None = None
) -> Quantization:
    """The smallest and largest input of each convolution of trunks and reconstruction, with every block running.

    Cutting outliers off was tried (the range with the least mean squared error in each convolution): it loses more, because
    they are what fine texture is made of (docs/integrations.md has the numbers).

    Args:
        model: in eval mode, fp32.
        clips: low-resolution ones, (T, 3, H, W), RGB in [0, 1].
        on_clip: called after each clip with how many are done, and how many there are.
    """
    ranges: dict[str, tuple[float, float]] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        bounds = [value.item() for values in inputs for value in values.aminmax()]
        known = ranges.get(name, (0.0, 0.0))
        ranges[name] = (min(known[0], *bounds), max(known[1], *bounds))

    convolutions = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith(_QUANTIZED)
    ]
    hooks = [module.register_forward_pre_hook(partial(note, name)) for name, module in convolutions]
    like = next(model.parameters())
    try:
        for index, clip in enumerate(clips):
            model(clip[None].to(like))
            if on_clip is not None:
                on_clip(index + 1, len(clips))
    finally:
        for hook in hooks:
            hook.remove()
    return Quantization({name: bounds for name, bounds in ranges.items() if bounds[0] < bounds[1]})
