"""Reconstruction of large frames, a few rows at a time."""

from __future__ import annotations

from torch import Tensor

from skipvsr.models.recurrence import Recurrence

# The reconstruction's largest features of so many pixels take 1 GiB at 64 channels.
STRIP_PIXELS = 1 << 18
# Low-resolution pixels beyond which nothing changes a pixel of the reconstruction's result (its convolutions reach 2 of them).
RECONSTRUCTION_HALO_PX = 4


def reconstruct_in_strips(
    model: Recurrence, frame: Tensor, backward: Tensor, forward: Tensor, *, most_pixels: int = STRIP_PIXELS
) -> Tensor:
    """`model.reconstruct`, for a large frame a few rows at a time: at full size its features would fill 8 GB.

    The rows of a strip see those around it, so that the result is the same.

    Args:
        model: the network; the states of patches are small already and go as they are.
        frame, backward, forward: as for `SkipVSR.reconstruct`.
        most_pixels: low-resolution pixels of a strip.
    """
    (height, width), scale = frame.shape[-2:], model.scale
    if height * width <= most_pixels or backward.shape[-2:] != frame.shape[-2:]:
        return model.reconstruct(frame, backward, forward)
    rows = max(1, most_pixels // width)
    result = None
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        above, below = max(0, top - RECONSTRUCTION_HALO_PX), min(height, bottom + RECONSTRUCTION_HALO_PX)
        strip = model.reconstruct(*(part[..., above:below, :] for part in (frame, backward, forward)))
        inner = strip[..., scale * (top - above) : scale * (bottom - above), :]
        if result is None:
            result = inner.new_empty(*inner.shape[:2], scale * height, scale * width)
        result[..., scale * top : scale * bottom, :] = inner
    assert result is not None
    return result
