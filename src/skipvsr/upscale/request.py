"""What a job was asked for, and what it reports when it is done."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from importlib.metadata import version
from pathlib import Path

from skipvsr.checkpoints.native import fingerprint
from skipvsr.errors import ConfigError
from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.inference.upscaler import Upscaler
from skipvsr.inference.windows import Windows
from skipvsr.models.any_model import AnyConfig
from skipvsr.routing.trace import Trace
from skipvsr.upscale.checkpoint import identity
from skipvsr.upscale.options import OutputOptions
from skipvsr.video.errors import PIPE
from skipvsr.video.image_folder import ImageFolderReader
from skipvsr.video.open import Reader, open_reader

_SEGMENT_MACS = 20_000_000_000_000
# What a low-resolution pixel takes beside the network, counted in the same way: reading it and encoding the large ones.
_MIN_MACS_PER_PIXEL = 34_000


@dataclass(frozen=True)
class UpscaleRequest:
    """A job: what goes in, what runs, and what comes out. See `upscale_video`."""

    source: Path
    destination: Path
    upscaler: Upscaler
    output: OutputOptions
    start: float | None
    end: float | None
    deinterlace: bool
    trace: Trace | Path | None
    overlay: Path | None
    model: str = ""
    model_reason: str = ""
    snapshot: Path | None = None

    def open(self) -> Reader:
        """A reader for the part of the source that was asked for."""
        return open_reader(self.source, self.start, self.end, deinterlace=self.deinterlace)

    @property
    def resumable(self) -> bool:
        """Whether the job can go on later: a trace or an overlay has to be there from the first frame, and a pipe is gone."""
        return self.trace is None and self.overlay is None and PIPE not in (self.source, self.destination)

    def segment_length(self, height: int, width: int) -> int:
        """Frames that are finished at a time, for frames of this size."""
        return self.output.segment_length or default_segment_length(self.upscaler.model.config, height, width)

    def identity(self, reader: Reader, windows: Windows, segment_length: int) -> dict[str, object]:
        """All that determines the result, by names that a message can use."""
        parameter = next(self.upscaler.model.parameters())
        encoding = asdict(self.output.encoding)
        # Sound and subtitles come when the parts are joined.
        del encoding["audio"], encoding["subtitles"]
        return {
            "source": self._source_identity(reader),
            "part": [self.start, self.end],
            "deinterlacing": self.deinterlace,
            "model": fingerprint(self.upscaler.model),
            "window": windows.window,
            "lookahead": windows.lookahead,
            "scene detection": self.upscaler.stream_options.scene_detection,
            "repeat detection": self.upscaler.stream_options.repeat_detection,
            "segment length": segment_length,
            "size": astuple(self.output.size),
            "trace and overlay": [self.trace is not None, self.overlay is not None],
            **asdict(self.upscaler.compute),
            "device": f"{parameter.device.type}, {parameter.dtype}",
            **encoding,
            "version": [version(name) for name in self._packages()],
        }

    def _packages(self) -> tuple[str, ...]:
        """Those that the result may depend on."""
        runtime = ("openvino",) if self.upscaler.compute.runtime == "openvino" else ()
        return ("skipvsr", "torch", "av", *runtime)

    def _source_identity(self, reader: Reader) -> str:
        if self.source == PIPE:
            return "standard input"
        return identity(self.source, reader.files if isinstance(reader, ImageFolderReader) else None)

    def check_distinct(self) -> None:
        """Raise ConfigError where two of the files have one name."""
        trace = self.trace if isinstance(self.trace, Path) else None
        for places in ((self.source, trace, self.snapshot), (self.destination, trace, self.overlay, self.snapshot)):
            resolved = [place.resolve() for place in places if place is not None and place != PIPE]
            if len(set(resolved)) < len(resolved):
                raise ConfigError(
                    "two of input, output, trace, overlay and snapshot have the same name; give each its own"
                )


def default_segment_length(config: AnyConfig, height: int, width: int) -> int:
    """Frames that are finished at a time, from 16 to 256: a minute or two of work on two cores."""
    work = max(cost_per_frame(config, height, width).total, _MIN_MACS_PER_PIXEL * height * width)
    return max(16, min(256, _SEGMENT_MACS // work))


@dataclass(frozen=True)
class UpscaleReport:
    """What a finished job did.

    Args:
        destination: what was written.
        frames: read and written, one for one.
        resumed_at: frames of these that another run had finished.
        scenes: found, or 1 where scene cuts were not looked for.
        input_size, output_size: (width, height).
        window, lookahead: frames.
        seconds: of this run, from the first frame read to the finished file.
        frames_per_second: of this run.
        peak_bytes: largest resident memory of this process seen.
        active_ratio: of the residual blocks' work that ran, lookahead included.
        macs_per_frame: multiply-accumulates of a frame with that ratio (without those of the lookahead).
        full_macs_per_frame: the same with every block.
        model: its name; empty where the model itself was given.
        model_reason: why it was chosen, where the choice was left open.
        precision: in which the network ran; empty where machines took each their own.
    """

    destination: Path
    frames: int
    resumed_at: int
    scenes: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    window: int
    lookahead: int
    seconds: float
    frames_per_second: float
    peak_bytes: int
    active_ratio: float
    macs_per_frame: int
    full_macs_per_frame: int
    model: str = ""
    model_reason: str = ""
    precision: str = ""
