"""What can enlarge a video: a network, or bicubic interpolation in its place."""

from __future__ import annotations

from typing import TypeAlias

from skipvsr.models.bicubic import Bicubic, BicubicConfig
from skipvsr.models.config import VSRConfig
from skipvsr.models.vsr import SkipVSR

AnyModel: TypeAlias = SkipVSR | Bicubic
AnyConfig: TypeAlias = VSRConfig | BicubicConfig
