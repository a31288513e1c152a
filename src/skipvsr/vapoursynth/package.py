"""VapourSynth itself, or a clear error."""

from __future__ import annotations

from skipvsr.errors import ConfigError

try:
    import vapoursynth as vs  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ConfigError(
        f"VapourSynth cannot be used from this Python ({error}); pip install 'skipvsr[vapoursynth]' needs Python 3.12 or later"
    ) from error

__all__ = ["vs"]
