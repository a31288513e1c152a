"""Terms that rooms share which do not know of each other."""

from __future__ import annotations

from typing import Literal

# Of a recurrence: "backward" goes from the last frame to the first.
Direction = Literal["backward", "forward"]
# Weights of red, green and blue in luma (ITU-R BT.601).
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
