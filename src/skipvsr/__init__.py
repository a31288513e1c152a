"""Video super-resolution x4 with a dial for compute.

import skipvsr

model = skipvsr.load_model("compact")
skipvsr.upscale_video("in.mp4", "out.mp4", model=model, on_progress=print)
for frame in skipvsr.upscale_frames(frames, model): ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skipvsr.checkpoints.load import load_model
    from skipvsr.errors import SkipVSRError
    from skipvsr.models.vsr import SkipVSR, VSRConfig
    from skipvsr.upscale.frames import upscale_frames
    from skipvsr.upscale.job import upscale_video
    from skipvsr.upscale.progress import Progress
    from skipvsr.upscale.request import UpscaleReport
    from skipvsr.upscale.size import OutputSize
    from skipvsr.video.write import EncodeOptions

# Where each public name lives. They are imported when first used, so that `import skipvsr` costs nothing.
_HOMES = {
    "EncodeOptions": "skipvsr.video.write",
    "OutputSize": "skipvsr.upscale.size",
    "Progress": "skipvsr.upscale.progress",
    "SkipVSR": "skipvsr.models.vsr",
    "SkipVSRError": "skipvsr.errors",
    "UpscaleReport": "skipvsr.upscale.request",
    "VSRConfig": "skipvsr.models.vsr",
    "load_model": "skipvsr.checkpoints.load",
    "upscale_frames": "skipvsr.upscale.frames",
    "upscale_video": "skipvsr.upscale.job",
}

__all__ = [
    "EncodeOptions",
    "OutputSize",
    "Progress",
    "SkipVSR",
    "SkipVSRError",
    "UpscaleReport",
    "VSRConfig",
    "load_model",
    "upscale_frames",
    "upscale_video",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("skipvsr")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'skipvsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
