"""`upscale_video`: a video file or a folder of images in, the same four times larger out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.errors import ConfigError, DecodeError
from skipvsr.evaluation.cost import Cost, cost_per_frame
from skipvsr.evaluation.trace_file import TraceWriter
from skipvsr.execute.dial import Dial, Tiling
from skipvsr.execute.patched import PARALLEL, Patched
from skipvsr.execute.routed import RoutedTrunks
from skipvsr.execute.stream import DEFAULT_LOOKAHEAD, Windows, default_window, upscale_stream
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.vsr import Recurrence, SkipVSR
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.policies import all_blocks
from skipvsr.routing.trace import Tally, Trace, Traces
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.upscale.overlay import LatestDepths, draw_depth
from skipvsr.upscale.progress import Progress, ProgressMeter
from skipvsr.upscale.scenes import SceneCuts
from skipvsr.upscale.size import OutputSize, pixel_aspect, resize
from skipvsr.video.ahead import WriteBehind, read_ahead
from skipvsr.video.frame import Frame
from skipvsr.video.open import Writer, open_reader, open_writer
from skipvsr.video.probe import VideoInfo
from skipvsr.video.write import EncodeOptions

OnProgress: TypeAlias = Callable[[Progress], object]
OnNotice: TypeAlias = Callable[[str], object]


@dataclass(frozen=True)
class UpscaleReport:
    """What a finished job did.

    Args:
        destination: what was written.
        frames: read and written, one for one.
        scenes: found, or 1 where scene cuts were not looked for.
        input_size, output_size: (width, height).
        window, lookahead: frames.
        seconds: from the first frame read to the finished file.
        frames_per_second: frames / seconds.
        peak_bytes: largest resident memory of this process seen.
        share: of the residual blocks' work that ran, lookahead included.
        macs_per_frame: multiply-accumulates of a frame with that share (without those of the lookahead).
        full_macs_per_frame: the same with every block.
    """

    destination: Path
    frames: int
    scenes: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    window: int
    lookahead: int
    seconds: float
    frames_per_second: float
    peak_bytes: int
    share: float
    macs_per_frame: int
    full_macs_per_frame: int


def upscale_video(
    source: str | Path,
    destination: str | Path,
    model: SkipVSR | str | Path = "compact",
    *,
    start: float | None = None,
    end: float | None = None,
    deinterlace: bool = True,
    window: int | None = None,
    lookahead: int = DEFAULT_LOOKAHEAD,
    scene_cuts: bool = True,
    threshold: float | None = None,
    budget: float | None = None,
    target_fps: float | None = None,
    tiling: Tiling = "frame",
    parallel: int = PARALLEL,
    trace: str | Path | None = None,
    overlay: str | Path | None = None,
    size: OutputSize | None = None,
    encode: EncodeOptions | None = None,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    on_progress: OnProgress | None = None,
    on_notice: OnNotice | None = None,
) -> UpscaleReport:
    """Super-resolve a video file or a folder of images x4, in fixed memory whatever its length.

    A video keeps its timestamps, sound, subtitles, colour description, rotation and pixel aspect; a folder keeps its file
    names. The destination appears whole or not at all.

    Args:
        source: a video file, or a folder of images in the order of their names.
        destination: a video file (its ending chooses the container), or a folder for images.
        model: a model, or what `load_model` takes.
        start, end: seconds of the file's own clock; frames at `start` or later and before `end` are upscaled, and the
            output begins at 0. None: from the first, to the last.
        deinterlace: make whole frames of those that are flagged as interlaced.
        window: frames per window; None: by `default_window`.
        lookahead: frames beyond a window from which the backward recurrence starts.
        scene_cuts: find scene cuts, and let nothing cross them.
        threshold: blocks run where the model's router expects more than this of them; 0 runs everything.
        budget: share of the residual blocks' work that may run, in (0, 1].
        target_fps: frames per second to keep to, by turning the budget; give one of these three, or none.
        tiling: "frame", or "patch": the paper's isolated patches of 48 pixels, for comparison.
        parallel: patches at once.
        trace: a file for what ran (`skipvsr.evaluation.trace_file`).
        overlay: a second output, of the same kind as the destination: the picture in grey with each tile's depth over it.
        size: resize the x4 result to this; None: leave it.
        encode: codec, quality and pixel format; None: H.264, visually lossless.
        overwrite: replace an existing destination.
        device: where to run; None: a GPU if there is one, or where the given model is.
        on_progress: called after each frame, in the calling thread.
        on_notice: called with what the user should know about the source, in the thread that reads it.

    Raises:
        InputError: the source cannot be read.
        DecodeError: the source was damaged, cut off or changed meanwhile; the destination holds all that could be read.
        OutputError: the destination exists, or cannot be written.
        ModelError, ConfigError: the model or a setting is wrong.
    """
    network = place(model, device)
    tally, depths = Tally(), LatestDepths()
    dial = Dial(threshold, budget, target_fps, tiling=tiling, parallel=parallel)
    dial.turn(network)  # what is wrong with it is said before anything is read
    with ExitStack() as stack:
        reader = stack.enter_context(open_reader(source, start, end, deinterlace=deinterlace, on_notice=on_notice))
        info = reader.info
        height, width = _output_size(size or OutputSize(), info)
        if window is None:
            window = default_window(network.config, info.height, info.width)
        windows = Windows(window, lookahead)
        cuts = _CountedCuts(SceneCuts()) if scene_cuts else None
        recurrence = dial.around(network, info.height, info.width)
        _check_distinct(source, trace)
        _check_distinct(destination, trace, overlay)
        aspect = pixel_aspect(info.sample_aspect_ratio, info.height, info.width, height, width)
        open_output = partial(
            open_writer, width=width, height=height, source=reader, options=encode, sample_aspect_ratio=aspect,
            overwrite=overwrite,
        )  # fmt: skip
        traces: list[Trace] = [tally]
        drawn = None
        if trace is not None:
            traces.append(stack.enter_context(TraceWriter(trace, overwrite=overwrite)))
        if overlay is not None:
            drawn = stack.enter_context(open_output(overlay))
            depths.expand = recurrence.grid.expand if isinstance(recurrence, Patched) else None
            traces.append(depths)
        # Last in, first out: what goes wrong at the end with the others finds this one in its place.
        writer = stack.enter_context(open_output(destination))

        routed = dial.turn(network, Traces(tuple(traces)), trace_all=len(traces) > 1)
        controller = dial.controller(network, routed, window, tally)
        meter, seconds = ProgressMeter(info.frame_count), 0.0
        run = _Run(reader, writer, (height, width), drawn, depths)
        for _ in run.results(recurrence, windows, cuts, routed):
            progress = meter.step()
            if controller is not None:
                controller.frame_done(progress.seconds - seconds)
                seconds = progress.seconds
            if on_progress is not None:
                on_progress(progress)
    cost = _cost(network, recurrence, info, routed)
    report = UpscaleReport(
        destination=Path(destination),
        frames=meter.frames_done,
        scenes=1 if cuts is None else cuts.scenes,
        input_size=(info.width, info.height),
        output_size=(width, height),
        window=windows.window,
        lookahead=windows.lookahead,
        seconds=meter.seconds,
        frames_per_second=meter.frames_done / meter.seconds,
        peak_bytes=meter.peak_bytes,
        share=tally.share,
        macs_per_frame=cost.with_share(tally.share),
        full_macs_per_frame=cost.total - cost.router,
    )
    if run.stopped is not None:
        raise DecodeError(
            f"{run.stopped}; the {report.frames} frames that could be read are in {destination}"
        ) from run.stopped
    return report


def place(model: SkipVSR | str | Path, device: str | torch.device | None) -> SkipVSR:
    """The model, loaded where it is a name or path, on `device` and in the memory layout that convolutions like best."""
    if device is None and not isinstance(model, SkipVSR):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network = model if isinstance(model, SkipVSR) else load_model(model)
    try:
        network = network.to(device) if device is not None else network
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"cannot use the device {str(device)!r} ({reason}); choose cpu, or cuda with a GPU"
        ) from error
    # Weights alone decide the layout that convolutions choose; the results do not change.
    return network.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue] - the stubs forget it


class _Run:
    """One pass from a reader to a writer."""

    def __init__(
        self,
        reader: Iterable[Frame],
        writer: Writer,
        size: tuple[int, int],
        overlay: Writer | None,
        depths: LatestDepths,
    ) -> None:
        self.stopped: DecodeError | None = None
        self._reader, self._writer, self._size = reader, writer, size
        self._overlay, self._depths = overlay, depths
        self._waiting: deque[Frame] = deque()

    def results(
        self,
        network: Recurrence,
        windows: Windows,
        cuts: Callable[[Tensor], bool] | None,
        routed: RoutedTrunks | None,
    ) -> Iterator[None]:
        """Yield once for each frame that was handed to the encoder."""
        with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(1, "encode") as encoder:
            behind = WriteBehind(self._write, encoder)
            frames = self._frames(decoder)
            stream = upscale_stream(frames, network, windows, starts_scene=cuts, routed=routed)
            for number, result in enumerate(stream):
                depth = None if self._overlay is None else self._depths.take(number)
                behind.put((result, self._waiting.popleft(), depth))
                yield
            behind.finish()

    def _frames(self, decoder: Executor) -> Iterator[Tensor]:
        try:
            for frame in read_ahead(self._reader, decoder):
                # Only its times are needed from here on; what it showed would pile up over a window.
                self._waiting.append(replace(frame, pixels=np.empty((0, 0, 3), frame.pixels.dtype)))
                yield to_tensor(frame.pixels)
        except DecodeError as error:
            self.stopped = error

    def _write(self, item: tuple[Tensor, Frame, Tensor | None]) -> None:
        result, frame, depth = item
        dtype = frame.pixels.dtype
        self._writer.write(replace(frame, pixels=to_array(resize(result, *self._size), dtype)))
        if self._overlay is not None and depth is not None:
            drawn = resize(draw_depth(result, depth), *self._size)
            self._overlay.write(replace(frame, pixels=to_array(drawn, dtype)))


class _CountedCuts:
    """A scene-cut detector that remembers how many scenes it saw."""

    def __init__(self, detector: SceneCuts) -> None:
        self.scenes = 1
        self._detector = detector

    def __call__(self, frame: Tensor) -> bool:
        cut = self._detector(frame)
        self.scenes += cut
        return cut


def _cost(network: SkipVSR, recurrence: Recurrence, info: VideoInfo, routed: RoutedTrunks | None) -> Cost:
    """Of a frame with everything running; patches are counted with what they have in common."""
    if isinstance(network, Bicubic):
        return Cost(0, 0, 0, 0)
    asked = routed is not None and routed.policy is not all_blocks
    if isinstance(recurrence, Patched):
        grid = recurrence.grid
        tiles = 1 if asked else 0
        return cost_per_frame(network.config, grid.patch_height, grid.patch_width, tiles=tiles).times(grid.patches)
    tiles = TileGrid.of(info.height, info.width, routed.tile_px).tiles if routed is not None and asked else 0
    return cost_per_frame(network.config, info.height, info.width, tiles=tiles)


def _check_distinct(*places: str | Path | None) -> None:
    """Raise ConfigError where two of the files have one name."""
    resolved = [Path(place).resolve() for place in places if place is not None]
    if len(set(resolved)) < len(resolved):
        raise ConfigError("two of input, output, trace and overlay have the same name; give each its own")


def _output_size(size: OutputSize, info: VideoInfo) -> tuple[int, int]:
    """(height, width) of the frames to be written; what was asked for counts for the picture as it is shown."""
    if info.rotation_degrees % 180 == 90:
        width, height = size.resolve(info.width, info.height)
        return height, width
    return size.resolve(info.height, info.width)
