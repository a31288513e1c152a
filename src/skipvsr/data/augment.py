"""Augmentation: crops changed at random, LR and ground truth alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from skipvsr.data.cache import LRSource

Augmentation = Literal["flip", "transpose", "reverse", "channels", "brightness"]
# Those of BasicVSR's recipe, but for time.
USUAL: tuple[Augmentation, ...] = ("flip", "transpose", "reverse")
# The darkest that a crop becomes, as a ratio of what it was.
DARKEST = 0.5


def augment(
    lr: Tensor, gt: Tensor, names: Collection[Augmentation], source: LRSource, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Change a crop, each in half the cases, as far as its LR frames have the symmetry.

    What is drawn for one augmentation does not depend on which others there are.

    Args:
        lr, gt: (T, 3, c, c) and (T, 3, s * c, s * c) uint8, RGB.
        names: "flip": mirror rows, and mirror columns; "transpose": swap rows and columns; "reverse": the frames in reverse;
            "channels": red, green and blue in another order; "brightness": darker, by a factor from `DARKEST` to 1.
        source: where the LR frames come from. Those of "bd-duf" are not mirrored: its pixels do not lie in the middle of those
            of HR. Those of "video" are not reversed: what an encoder leaves has a direction; and they keep their colours
            and brightness, to which an encoder's loss is not indifferent.
        random: what is drawn comes from here.
    """
    flips = [dim for dim in (0, 2, 3) if random.random() < 0.5]
    transposed, reordered, darker = (random.random() < 0.5 for _ in range(3))
    order, factor = random.permutation(3), random.uniform(DARKEST, 1)
    names = set(names) - _without_symmetry(source)
    flips = [dim for dim in flips if ("reverse" if dim == 0 else "flip") in names]

    def changed(frames: Tensor) -> Tensor:
        frames = frames.flip(flips)
        if transposed and "transpose" in names:
            frames = frames.transpose(2, 3)
        if reordered and "channels" in names:
            frames = frames[:, torch.from_numpy(order).to(frames.device)]
        if darker and "brightness" in names:
            frames = (frames.float() * factor).round().byte()
        return frames

    return changed(lr), changed(gt)


def _without_symmetry(source: LRSource) -> set[Augmentation]:
    if source == "bd-duf":
        return {"flip"}
    return {"reverse", "channels", "brightness"} if source == "video" else set()
