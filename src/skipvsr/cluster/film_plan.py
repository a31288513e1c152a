"""What is to be done with a film: from where to where, with which options, and cut into which chunks."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from skipvsr.cluster.chunks import DEFAULT_WARMUP, ChunkOptions
from skipvsr.cluster.store import as_text
from skipvsr.errors import ConfigError
from skipvsr.inference.options import ComputeOptions, StreamOptions
from skipvsr.models.any_model import AnyConfig
from skipvsr.upscale.options import OutputOptions
from skipvsr.upscale.size import pixel_aspect
from skipvsr.video.image_segments import ImageSegmentEncoder
from skipvsr.video.probe import VideoInfo
from skipvsr.video.segment_encoder import SegmentEncoder
from skipvsr.video.write import EncodeOptions


@dataclass(frozen=True)
class FilmTask:
    """A film to upscale.

    Args:
        source, destination: each a path of this machine, or a URL that every machine can reach.
    """

    source: str
    destination: str


@dataclass(frozen=True)
class FilmSettings:
    """What is done with each film of a job.

    Args:
        compute, stream, output: the options. The precision is one for all machines.
        start, end, deinterlace: as for `upscale_video`.
        exact: split films at scene cuts only, so that the frames are those of one machine.
        warmup: frames before a chunk that begins within a scene.
        mixed_precision: each machine takes the precision that it is fastest with.

    Raises:
        ConfigError: options with which frames would depend on who computed them.
    """

    compute: ComputeOptions
    stream: StreamOptions
    output: OutputOptions
    start: float | None = None
    end: float | None = None
    deinterlace: bool = True
    exact: bool = False
    warmup: int = DEFAULT_WARMUP
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        ChunkOptions(1, self.warmup)
        if self.compute.target_fps is not None:
            raise ConfigError(
                "a target frame rate turns the quality by the speed of each machine, and frames would change their look; "
                "give a budget or a threshold"
            )
        if self.exact and self.compute.budget not in (None, 1):
            raise ConfigError(
                "a budget is kept over a whole film on one machine, and by each task on many, so that frames differ; "
                "give a threshold with exact, or leave exact out"
            )
        if self.mixed_precision and (self.exact or self.compute.precision is not None):
            raise ConfigError("mixed precision goes neither with exact nor with a precision; leave one of them out")


@dataclass(frozen=True)
class FilmPlan:
    """What a worker has to know of a film to upscale its chunks.

    Args:
        info: of the source.
        size: (height, width) of the frames that are written.
        container: ending of the output; of a folder of images empty.
        encoding: how segments are encoded.
        chunks: how it is cut.
        endings: of the files that the images of a folder become; of a video empty.
    """

    info: VideoInfo
    size: tuple[int, int]
    container: str
    encoding: EncodeOptions
    chunks: ChunkOptions
    endings: tuple[str, ...] = ()

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """Of the output's pixels."""
        info, (height, width) = self.info, self.size
        return pixel_aspect(info.sample_aspect_ratio, info.height, info.width, height, width)

    def encoder(self) -> SegmentEncoder | ImageSegmentEncoder:
        """What encodes its segments."""
        height, width = self.size
        if self.endings:
            return ImageSegmentEncoder(width, height, self.endings)
        return SegmentEncoder(
            width, height, container=self.container, source=self.info, options=self.encoding,
            sample_aspect_ratio=self.sample_aspect_ratio,
        )  # fmt: skip


@dataclass(frozen=True)
class NetworkId:
    """What a film has to know of the network.

    Args:
        config: its configuration.
        fingerprint: what tells its weights from others.
        running: the configuration of what runs of it (`skipvsr.inference.lean.running_config`).
    """

    config: AnyConfig
    fingerprint: str
    running: AnyConfig


def film_task(source: str | Path, destination: str | Path) -> FilmTask:
    """A task whose paths are absolute; URLs stay as they are."""
    return FilmTask(as_text(source), as_text(destination))
