"""`upscale_video`: a video file or a folder of images in, the same four times larger out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from skipvsr.checkpoints.load import load_model
from skipvsr.checkpoints.native import fingerprint
from skipvsr.errors import ConfigError, DecodeError, ResourceError
from skipvsr.evaluation.cost import Cost, cost_per_frame
from skipvsr.evaluation.trace_file import TraceWriter
from skipvsr.inference.controllers import BudgetController, SpeedController
from skipvsr.inference.options import Dial, Tiling
from skipvsr.inference.patched import PATCH_BATCH_SIZE, Patched, PatchGrid
from skipvsr.inference.routed import RoutedTrunks
from skipvsr.inference.streaming import DEFAULT_LOOKAHEAD, Position, Windows, default_window, upscale_stream
from skipvsr.models.bicubic import Bicubic
from skipvsr.models.resize import bicubic_upsample
from skipvsr.models.router import MaskGenerator
from skipvsr.models.vsr import Recurrence, SkipVSR, VSRConfig
from skipvsr.routing.grid import TileGrid
from skipvsr.routing.learned import DifferenceThreshold
from skipvsr.routing.policies import Policy, all_blocks
from skipvsr.routing.trace import Tally, Trace, Traces
from skipvsr.upscale.checkpoint import Checkpoint, UnfinishedJob, identity
from skipvsr.upscale.frames import to_array, to_tensor
from skipvsr.upscale.overlay import LatestDepths, draw_depth
from skipvsr.upscale.plan import disk_bytes, memory_bytes, warn_of_shortage
from skipvsr.upscale.progress import Progress, ProgressMeter
from skipvsr.upscale.scenes import SceneCuts
from skipvsr.upscale.size import OutputSize, output_size, pixel_aspect, resize
from skipvsr.video.errors import PIPE
from skipvsr.video.frame import Frame
from skipvsr.video.images import ImageFolderReader
from skipvsr.video.open import Reader, Writer, check_output, open_reader, open_writer
from skipvsr.video.prefetch import WriteBehind, read_ahead
from skipvsr.video.probe import VideoInfo
from skipvsr.video.write import EncodeOptions, VideoWriter

OnProgress: TypeAlias = Callable[[Progress], object]

_LOG = logging.getLogger("skipvsr")
# Low-resolution pixels.
_TILES_PX = (256, 128)
_TILE_OVERLAP_PX = 32
_SEGMENT_MACS = 20_000_000_000_000


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
    patch_batch_size: int = PATCH_BATCH_SIZE,
    trace: str | Path | None = None,
    overlay: str | Path | None = None,
    size: OutputSize | None = None,
    encode: EncodeOptions | None = None,
    overwrite: bool = False,
    resume: bool = True,
    segment: int | None = None,
    device: str | torch.device | None = None,
    on_progress: OnProgress | None = None,
) -> UpscaleReport:
    """Super-resolve a video file or a folder of images x4, in fixed memory whatever its length.

    A video keeps its timestamps, sound, subtitles, colour description, rotation and pixel aspect; a folder keeps its file
    names. The destination appears whole or not at all. What is finished of it is kept in a hidden folder beside it: after
    an interruption or a crash the same call goes on from there, and the result is the same. (Not with a trace or an overlay.)

    Args:
        source: a video file, or a folder of images in the order of their names; "-" is y4m on standard input.
        destination: a video file (its ending chooses the container), or a folder for images; "-" is y4m on standard output.
        model: a model, or what `load_model` takes.
        start, end: seconds of the file's own clock; frames at `start` or later and before `end` are upscaled, and the
            output begins at 0. None: from the first, to the last.
        deinterlace: make whole frames of those that are flagged as interlaced.
        window: frames per window; None: by `default_window`.
        lookahead: frames beyond a window from which the backward recurrence starts.
        scene_cuts: find scene cuts, and let nothing cross them.
        threshold: blocks run where the model's router expects more than this of them; 0 runs everything.
        budget: ratio of the residual blocks' work that may run, in (0, 1].
        target_fps: frames per second to keep to, by turning the budget; give one of these three, or none.
        tiling: "frame", or "patch": the paper's isolated patches of 48 pixels, for comparison.
        patch_batch_size: patches at once.
        trace: a file for what ran (`skipvsr.evaluation.trace_file`).
        overlay: a second output, of the same kind as the destination: the picture in grey with each tile's depth over it.
        size: resize the x4 result to this; None: leave it.
        encode: codec, quality and pixel format; None: H.264, visually lossless.
        overwrite: replace an existing destination.
        resume: False: throw away what another run has finished of this destination, and start over.
        segment: frames that are finished at a time, or up to a window more; None: by `default_segment`.
        device: where to run; None: a GPU if there is one, or where the given model is.
        on_progress: called at the start and after each frame, in the calling thread.

    Raises:
        InputError: the source cannot be read.
        DecodeError: the source was damaged, cut off or changed meanwhile; the destination holds all that could be read.
        OutputError: the destination exists or cannot be written, is being written by another job, or has unfinished work
            with other settings beside it.
        ModelError, ConfigError: the model or a setting is wrong.
    """
    network = place(model, device)
    dial = Dial(threshold, budget, target_fps, tiling=tiling, patch_batch_size=patch_batch_size)
    dial.turn(network)  # what is wrong with it is said before anything is read
    settings = _Settings(
        source=Path(source),
        destination=Path(destination),
        start=start,
        end=end,
        deinterlace=deinterlace,
        network=network,
        dial=dial,
        window=window,
        lookahead=lookahead,
        scene_cuts=scene_cuts,
        segment=segment,
        size=size or OutputSize(),
        encode=encode or EncodeOptions(),
        overwrite=overwrite,
        resume=resume,
        trace=None if trace is None else Path(trace),
        overlay=None if overlay is None else Path(overlay),
    )
    return _upscale(settings, on_progress)


@dataclass(frozen=True)
class _Settings:
    """What `upscale_video` was asked for, the model in its place."""

    source: Path
    destination: Path
    start: float | None
    end: float | None
    deinterlace: bool
    network: SkipVSR
    dial: Dial
    window: int | None
    lookahead: int
    scene_cuts: bool
    segment: int | None
    size: OutputSize
    encode: EncodeOptions
    overwrite: bool
    resume: bool
    trace: Path | None
    overlay: Path | None

    def open(self) -> Reader:
        """A reader for what is asked for of the source."""
        return open_reader(self.source, self.start, self.end, deinterlace=self.deinterlace)

    @property
    def resumable(self) -> bool:
        """A trace or an overlay would have to be there from the first frame, and a pipe is gone."""
        return self.trace is None and self.overlay is None and PIPE not in (self.source, self.destination)

    def job(self, reader: Reader, windows: Windows, segment: int) -> dict[str, object]:
        """All that determines the result, by names that a message can use."""
        parameter = next(self.network.parameters())
        return {
            "source": self._source_identity(reader),
            "part": [self.start, self.end],
            "deinterlacing": self.deinterlace,
            "model": fingerprint(self.network),
            "device": f"{parameter.device.type}, {parameter.dtype}",
            "window": windows.window,
            "lookahead": windows.lookahead,
            "scene cuts": self.scene_cuts,
            "segment": segment,
            "size": astuple(self.size),
            "trace and overlay": [self.trace is not None, self.overlay is not None],
            **asdict(self.dial),
            **asdict(self.encode),
            "version": [version(name) for name in ("skipvsr", "torch", "av")],
        }

    @property
    def tiles(self) -> bool:
        """Whether blended tiles can stand in for the whole frame: not where a router compares frames, or is looked at."""
        compares = isinstance(self.network.router, MaskGenerator) and self.dial != Dial()
        return self.dial.tiling == "frame" and not compares and self.trace is None and self.overlay is None

    def around(self, info: VideoInfo, tile_px: int) -> Recurrence:
        """What streams the frames: in blended tiles where `tile_px` is not 0."""
        if not tile_px:
            return self.dial.around(self.network, info.height, info.width)
        grid = PatchGrid(info.height, info.width, tile_px, tile_px - _TILE_OVERLAP_PX)
        return Patched(self.network, grid, patch_batch_size=1, all_at_once=False)

    def _source_identity(self, reader: Reader) -> str:
        if self.source == PIPE:
            return "standard input"
        return identity(self.source, reader.files if isinstance(reader, ImageFolderReader) else None)


def default_segment(config: VSRConfig, height: int, width: int) -> int:
    """Frames that are finished at a time, from 16 to 256: a minute or two of work on two cores."""
    return max(16, min(256, _SEGMENT_MACS // cost_per_frame(config, height, width).total))


@dataclass(frozen=True)
class _MemoryFallback:
    """How a job saves memory, more at every step: shorter windows, then tiles of the frame that are blended.

    Args:
        halvings: of the window.
        tile_px: side of the tiles; None: the whole frame.
    """

    halvings: int = 0
    tile_px: int | None = None

    def window(self, window: int) -> int:
        """Frames per window, of so many that were asked for."""
        return max(1, window >> self.halvings)

    def more(self, window: int, *, tiles: bool) -> _MemoryFallback | None:
        """The next step; None where nothing is left to save."""
        if self.window(window) > 1:
            return replace(self, halvings=self.halvings + 1)
        if not tiles or self.tile_px == _TILES_PX[-1]:
            return None
        return replace(self, tile_px=_TILES_PX[0] if self.tile_px is None else _TILES_PX[-1])

    def __str__(self) -> str:
        return "shorter windows" if self.tile_px is None else f"blended tiles of {self.tile_px} pixels"


def _upscale(settings: _Settings, on_progress: OnProgress | None) -> UpscaleReport:
    """The job, again from its last checkpoint with less memory wherever memory runs out."""
    fallback = _MemoryFallback()
    while True:
        try:
            return _attempt(settings, fallback, on_progress)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error) or PIPE in (settings.source, settings.destination):
                raise
            with settings.open() as reader:
                window = settings.window or default_window(
                    settings.network.config, reader.info.height, reader.info.width
                )
            more = fallback.more(window, tiles=settings.tiles)
            if more is None:
                raise ResourceError(
                    "memory ran out, even with windows of one frame; close other programs, or take a smaller model"
                ) from error
        # Outside of the handler nothing holds on to what the attempt had in memory.
        fallback, settings = more, replace(settings, resume=True)
        _LOG.warning("memory ran out; going on with %s", fallback)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def _attempt(settings: _Settings, fallback: _MemoryFallback, on_progress: OnProgress | None) -> UpscaleReport:
    network, dial, destination = settings.network, settings.dial, settings.destination
    with ExitStack() as stack:
        reader = stack.enter_context(settings.open())
        info = reader.info
        height, width = output_size(settings.size, info)
        window = settings.window or default_window(network.config, info.height, info.width)
        asked = Windows(window if settings.window is None else settings.window, settings.lookahead)
        windows = replace(asked, window=fallback.window(asked.window))
        segment = settings.segment or default_segment(network.config, info.height, info.width)
        if segment < 1:
            raise ConfigError(f"a segment is {segment} frames; it must be at least 1")
        needed = memory_bytes(network.config, info.height, info.width, windows, height * width)
        frames = info.frame_count
        disk = None if frames is None else disk_bytes(frames, height, width, destination, settings.encode)
        warn_of_shortage(needed, None if destination == PIPE else disk, destination.absolute().parent)
        _check_distinct(settings.source, settings.trace)
        _check_distinct(destination, settings.trace, settings.overlay)
        check_output(destination, reader, overwrite=settings.overwrite)
        work = None
        if destination != PIPE:
            job = settings.job(reader, asked, segment)
            work = stack.enter_context(UnfinishedJob(destination, job, resume=settings.resume))
        check_output(destination, reader, overwrite=settings.overwrite)  # another job may just have finished it
        aspect = pixel_aspect(info.sample_aspect_ratio, info.height, info.width, height, width)
        open_output = partial(
            open_writer, width=width, height=height, source=reader, options=settings.encode, sample_aspect_ratio=aspect,
            overwrite=settings.overwrite,
        )  # fmt: skip
        tally, depths = Tally(), LatestDepths()
        traces: list[Trace] = [tally]
        drawn = None
        if settings.trace is not None:
            traces.append(stack.enter_context(TraceWriter(settings.trace, overwrite=settings.overwrite)))
        if settings.overlay is not None:
            drawn = stack.enter_context(open_output(settings.overlay))
            traces.append(depths)
        before = None if work is None else work.checkpoint
        # Last in, first out: what goes wrong at the end with the others finds this one in its place.
        tile_px = fallback.tile_px or (int(before.numbers.get("tile_px", 0)) if before is not None else 0)
        recurrence = settings.around(info, tile_px)
        depths.expand = recurrence.grid.expand if isinstance(recurrence, Patched) else None
        if work is None:
            writer = stack.enter_context(open_output(destination))
        else:
            done = before.frames if before is not None else 0
            writer = stack.enter_context(
                open_output(destination, work=work.folder, segments=work.segments(), done=done)
            )

        routed = dial.turn(network, Traces(tuple(traces)), trace_all=len(traces) > 1)
        controller = dial.controller(network, routed, window, tally)
        progress = _Progressing(tally, routed, controller, tile_px)
        start = progress.restore(before, next(network.parameters()).device) if before is not None else Position(0, None)
        if isinstance(recurrence, Patched) and start.state is not None and start.state.shape[0] == 1:
            # It was kept before memory ran out.
            start = replace(start, state=recurrence.grid.cut(start.state))
        cuts = _CountedCuts(SceneCuts()) if settings.scene_cuts else None
        meter, seconds = ProgressMeter(info.frame_count, done=start.number), 0.0
        run = _Run(reader, writer, (height, width), drawn, depths, start)
        if work is not None and settings.resumable:
            run.keep = _Keeper(work, writer, progress, segment, start.number)
        if on_progress is not None:
            on_progress(meter.now())
        for _ in run.results(recurrence, windows, cuts, routed):
            step = meter.step()
            if controller is not None:
                controller.frame_done(step.seconds - seconds)
                seconds = step.seconds
            if on_progress is not None:
                on_progress(step)
    cost = _cost(network, recurrence, info, routed)
    report = UpscaleReport(
        destination=destination,
        frames=meter.frames_done,
        resumed_at=start.number,
        scenes=1 if cuts is None else cuts.scenes,
        input_size=(info.width, info.height),
        output_size=(width, height),
        window=windows.window,
        lookahead=windows.lookahead,
        seconds=meter.seconds,
        frames_per_second=(meter.frames_done - start.number) / meter.seconds,
        peak_bytes=meter.peak_bytes,
        active_ratio=tally.active_ratio,
        macs_per_frame=cost.at_ratio(tally.active_ratio),
        full_macs_per_frame=cost.total - cost.router,
    )
    if run.stopped is None and isinstance(writer, VideoWriter) and writer.stopped is not None:
        raise DecodeError(
            f"{settings.source} was upscaled whole, but {writer.stopped}; what could be read is in {destination}"
        )
    if run.stopped is not None:
        raise DecodeError(
            f"{run.stopped}; the {report.frames} frames that could be read are in {destination}"
        ) from run.stopped
    return report


@dataclass
class _Progressing:
    """What changes as a job goes on, beside the forward state."""

    tally: Tally
    routed: RoutedTrunks | None
    controller: SpeedController | BudgetController | None
    tile_px: int

    def checkpoint(self, position: Position) -> Checkpoint:
        """As it is now, with copies of all tensors."""
        numbers = {"passes": float(self.tally.passes), "ratios": self.tally.ratios, "tile_px": float(self.tile_px)}
        if self.controller is not None:
            numbers |= {f"controller.{name}": value for name, value in self.controller.state().items()}
        tensors = {} if position.state is None else {"state": position.state}
        if position.state is not None and isinstance(self._policy, DifferenceThreshold):
            tensors |= {f"memory.{name}": value for name, value in self._policy.memory().items()}
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        return Checkpoint(position.number, numbers=numbers, tensors=copies)

    def restore(self, checkpoint: Checkpoint, device: torch.device) -> Position:
        """Go on from a checkpoint."""
        numbers = checkpoint.numbers
        self.tally.passes, self.tally.ratios = int(numbers["passes"]), numbers["ratios"]
        if self.controller is not None:
            self.controller.restore(_under("controller.", numbers))
        tensors = {name: tensor.to(device) for name, tensor in checkpoint.tensors.items()}
        if isinstance(self._policy, DifferenceThreshold):
            self._policy.recall(_under("memory.", tensors))
        return Position(checkpoint.frames, tensors.get("state"))

    @property
    def _policy(self) -> Policy | None:
        return None if self.routed is None else self.routed.policy


@dataclass
class _Keeper:
    """Finishes a part and keeps a checkpoint, whenever so many frames are done."""

    work: UnfinishedJob
    writer: Writer
    progress: _Progressing
    every: int
    kept: int

    def due(self, position: Position) -> Checkpoint | None:
        """The checkpoint of this position, if it is time for one; called as the network stands there."""
        if position.number - self.kept < self.every:
            return None
        self.kept = position.number
        return self.progress.checkpoint(position)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Called when all frames before the checkpoint are written."""
        self.writer.end_segment()
        segments = self.writer.segments if isinstance(self.writer, VideoWriter) else []
        self.work.save(replace(checkpoint, segments=[part.path.name for part in segments]))


Value = TypeVar("Value")


def _under(prefix: str, values: dict[str, Value]) -> dict[str, Value]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


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
        start: Position,
    ) -> None:
        self.stopped: DecodeError | None = None
        self.keep: _Keeper | None = None
        self._reader, self._writer, self._size = reader, writer, size
        self._overlay, self._depths = overlay, depths
        self._start = start
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
            behind = WriteBehind(self._take, encoder)

            def at_position(position: Position) -> None:
                checkpoint = None if self.keep is None else self.keep.due(position)
                if checkpoint is not None:
                    behind.put(checkpoint)

            frames = self._frames(decoder)
            stream = upscale_stream(
                frames, network, windows, starts_scene=cuts, routed=routed, start=self._start, at_position=at_position
            )
            for number, result in enumerate(stream, self._start.number):
                depth = None if self._overlay is None else self._depths.take(number)
                behind.put((result, self._waiting.popleft(), depth))
                yield
            behind.finish()

    def _frames(self, decoder: Executor) -> Iterator[Tensor]:
        try:
            for number, frame in enumerate(read_ahead(self._reader, decoder)):
                if number >= self._start.number:
                    # Only its times are needed from here on; what it showed would pile up over a window.
                    self._waiting.append(replace(frame, pixels=np.empty((0, 0, 3), frame.pixels.dtype)))
                yield to_tensor(frame.pixels)
        except DecodeError as error:
            self.stopped = error

    def _take(self, item: Checkpoint | tuple[Tensor, Frame, Tensor | None]) -> None:
        if isinstance(item, Checkpoint):
            assert self.keep is not None
            self.keep.keep(item)
            return
        result, frame, depth = item
        dtype = frame.pixels.dtype
        alpha = None if frame.alpha is None else _enlarged(frame.alpha, *self._size)
        self._writer.write(replace(frame, pixels=to_array(resize(result, *self._size), dtype), alpha=alpha))
        if self._overlay is not None and depth is not None:
            drawn = resize(draw_depth(result, depth), *self._size)
            self._overlay.write(replace(frame, pixels=to_array(drawn, dtype), alpha=None))


def _enlarged(alpha: np.ndarray, height: int, width: int) -> np.ndarray:
    """Opacity (H, W) x4, bicubic, resized like the picture."""
    plane = torch.from_numpy(alpha.astype(np.float32) / np.iinfo(alpha.dtype).max)[None]
    return to_array(resize(bicubic_upsample(plane), height, width), alpha.dtype)[..., 0]


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
    resolved = [Path(place).resolve() for place in places if place is not None and Path(place) != PIPE]
    if len(set(resolved)) < len(resolved):
        raise ConfigError("two of input, output, trace and overlay have the same name; give each its own")
