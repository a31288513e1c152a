"""What an output is to be: its size and encoding, and what happens to what is there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skipvsr.errors import ConfigError
from skipvsr.inference.options import (
    ComputeOptions,
    StreamOptions,
    StreamShorthands,
    check_keywords,
    with_shorthands,
)
from skipvsr.inference.precision import or_auto
from skipvsr.upscale.size import OutputSize, output_size
from skipvsr.video.probe import VideoInfo
from skipvsr.video.write import EncodeOptions


@dataclass(frozen=True)
class OutputOptions:
    """How an output is written.

    Args:
        size: resize the network's result to this; by default it is left as it is.
        encoding: codec, constant rate factor and pixel format; by default H.264, visually lossless.
        overwrite: replace an existing output.
        resume: go on with what an interrupted run has finished of this output; False: throw it away and start over.
        segment_length: frames that are finished at a time, or up to a window more; None: by `default_segment_length`.

    Raises:
        ConfigError: a segment of less than one frame.
    """

    size: OutputSize = field(default_factory=OutputSize)
    encoding: EncodeOptions = field(default_factory=EncodeOptions)
    overwrite: bool = False
    resume: bool = True
    segment_length: int | None = None

    def __post_init__(self) -> None:
        if self.segment_length is not None and self.segment_length < 1:
            raise ConfigError(f"a segment is {self.segment_length} frames; it must be at least 1")

    def size_of(self, info: VideoInfo, scale: int) -> tuple[int, int]:
        """(height, width) of the frames to be written for a source and a network of this scale; see `output_size`."""
        return output_size(self.size, info, scale, even=not info.path.is_dir() and self.encoding.pixel_format is None)


@dataclass(frozen=True)
class JobOptions:
    """All options of a job but its files and its model, in one; see `upscale_video`, which takes each of them."""

    compute: ComputeOptions
    stream: StreamOptions
    output: OutputOptions
    start: float | None = None
    end: float | None = None
    deinterlace: bool = True

    @classmethod
    def of(
        cls,
        function: str,
        compute: ComputeOptions | None,
        stream: StreamOptions | None,
        output: OutputOptions | None,
        shorthands: Mapping[str, Any],
        **part: Any,
    ) -> JobOptions:
        """What a public function was given.

        Args:
            function: its name, for errors.
            compute, stream, output: None: their defaults.
            shorthands: single fields of them, which go before those of the objects.
            part: `start`, `end` and `deinterlace`.

        Raises:
            TypeError: a shorthand is a field of none of them.
            ConfigError: a value is out of its range.
        """
        compute, stream, output = compute or ComputeOptions(), stream or StreamOptions(), output or OutputOptions()
        check_keywords(function, shorthands, compute, stream, output)
        compute, stream = or_auto(with_shorthands(compute, shorthands)), with_shorthands(stream, shorthands)
        return cls(compute, stream, with_shorthands(output, shorthands), **part)

    def to_keywords(self) -> dict[str, Any]:
        """As `upscale_video` takes them."""
        return dict(vars(self))


class VideoShorthands(StreamShorthands, total=False):
    """The fields of `ComputeOptions`, `StreamOptions` and `OutputOptions` as keywords of a function."""

    size: OutputSize
    encoding: EncodeOptions
    overwrite: bool
    resume: bool
    segment_length: int | None
