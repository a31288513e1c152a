"""A filter for VapourSynth: `skipvsr.vapoursynth.upscale(clip)`. The only room that knows VapourSynth."""

from skipvsr.vapoursynth.filter import upscale

__all__ = ["upscale"]
