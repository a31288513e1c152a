"""Video super-resolution x4, with a budget for compute.

import skipvsr

model = skipvsr.load_model("compact")
skipvsr.upscale_video("in.mp4", "out.mp4", model=model, on_progress=print)
for frame in skipvsr.upscale_frames(frames, model, budget=0.5): ...
engine = skipvsr.Upscaler(model, skipvsr.ComputeOptions(budget=0.5))
for frame in engine.stream(frames): ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skipvsr.checkpoints.export import export_onnx
    from skipvsr.checkpoints.hub import push
    from skipvsr.checkpoints.load import load_model
    from skipvsr.checkpoints.pretrained import from_pretrained, save_pretrained
    from skipvsr.cluster.film_plan import FilmSettings
    from skipvsr.cluster.on_ray import upscale_on_ray
    from skipvsr.cluster.shard import Shard, upscale_shard
    from skipvsr.errors import (
        BatchError,
        CheckpointError,
        ConfigError,
        CrashError,
        DataError,
        DecodeError,
        InputError,
        ModelError,
        OutputError,
        PausedError,
        ResourceError,
        ShapeError,
        SkipVSRError,
        TrainingError,
    )
    from skipvsr.inference.options import ComputeOptions, StreamOptions
    from skipvsr.inference.upscaler import Upscaler
    from skipvsr.models.bicubic import Bicubic
    from skipvsr.models.config import VSRConfig
    from skipvsr.models.vsr import SkipVSR
    from skipvsr.routing.trace import RoutingTrace
    from skipvsr.upscale.batch import upscale_many
    from skipvsr.upscale.estimate import Estimate, estimate
    from skipvsr.upscale.frames import upscale_frames
    from skipvsr.upscale.job import upscale_video
    from skipvsr.upscale.options import OutputOptions
    from skipvsr.upscale.progress import Progress
    from skipvsr.upscale.request import UpscaleReport
    from skipvsr.upscale.size import OutputSize
    from skipvsr.video.open import probe
    from skipvsr.video.probe import VideoInfo
    from skipvsr.video.write import EncodeOptions

# Where each public name lives. They are imported when first used, so that `import skipvsr` costs nothing.
_HOMES = {
    "BatchError": "skipvsr.errors",
    "Bicubic": "skipvsr.models.bicubic",
    "CheckpointError": "skipvsr.errors",
    "ComputeOptions": "skipvsr.inference.options",
    "ConfigError": "skipvsr.errors",
    "CrashError": "skipvsr.errors",
    "DataError": "skipvsr.errors",
    "DecodeError": "skipvsr.errors",
    "EncodeOptions": "skipvsr.video.write",
    "Estimate": "skipvsr.upscale.estimate",
    "FilmSettings": "skipvsr.cluster.film_plan",
    "InputError": "skipvsr.errors",
    "ModelError": "skipvsr.errors",
    "OutputError": "skipvsr.errors",
    "PausedError": "skipvsr.errors",
    "OutputOptions": "skipvsr.upscale.options",
    "OutputSize": "skipvsr.upscale.size",
    "Progress": "skipvsr.upscale.progress",
    "ResourceError": "skipvsr.errors",
    "RoutingTrace": "skipvsr.routing.trace",
    "ShapeError": "skipvsr.errors",
    "Shard": "skipvsr.cluster.shard",
    "SkipVSR": "skipvsr.models.vsr",
    "SkipVSRError": "skipvsr.errors",
    "StreamOptions": "skipvsr.inference.options",
    "TrainingError": "skipvsr.errors",
    "UpscaleReport": "skipvsr.upscale.request",
    "Upscaler": "skipvsr.inference.upscaler",
    "VSRConfig": "skipvsr.models.vsr",
    "VideoInfo": "skipvsr.video.probe",
    "estimate": "skipvsr.upscale.estimate",
    "export_onnx": "skipvsr.checkpoints.export",
    "from_pretrained": "skipvsr.checkpoints.pretrained",
    "load_model": "skipvsr.checkpoints.load",
    "probe": "skipvsr.video.open",
    "push": "skipvsr.checkpoints.hub",
    "save_pretrained": "skipvsr.checkpoints.pretrained",
    "upscale_frames": "skipvsr.upscale.frames",
    "upscale_many": "skipvsr.upscale.batch",
    "upscale_on_ray": "skipvsr.cluster.on_ray",
    "upscale_shard": "skipvsr.cluster.shard",
    "upscale_video": "skipvsr.upscale.job",
}

__all__ = [
    "BatchError",
    "Bicubic",
    "CheckpointError",
    "ComputeOptions",
    "ConfigError",
    "CrashError",
    "DataError",
    "DecodeError",
    "EncodeOptions",
    "Estimate",
    "FilmSettings",
    "InputError",
    "ModelError",
    "OutputError",
    "OutputOptions",
    "OutputSize",
    "PausedError",
    "Progress",
    "ResourceError",
    "RoutingTrace",
    "ShapeError",
    "Shard",
    "SkipVSR",
    "SkipVSRError",
    "StreamOptions",
    "TrainingError",
    "UpscaleReport",
    "Upscaler",
    "VSRConfig",
    "VideoInfo",
    "estimate",
    "export_onnx",
    "from_pretrained",
    "load_model",
    "probe",
    "push",
    "save_pretrained",
    "upscale_frames",
    "upscale_many",
    "upscale_on_ray",
    "upscale_shard",
    "upscale_video",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from skipvsr.version import installed_version

        return installed_version()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'skipvsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
