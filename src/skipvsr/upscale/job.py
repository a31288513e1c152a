"""`upscale_video`: a video file or a folder of images in, the same larger out."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

from skipvsr.errors import DecodeError, ResourceError
from skipvsr.evaluation.cost import stream_cost
from skipvsr.evaluation.trace_file import TraceWriter
from skipvsr.inference.options import AUTO, ComputeOptions, StreamOptions
from skipvsr.inference.streaming import is_out_of_memory
from skipvsr.inference.upscaler import StreamState, Upscaler
from skipvsr.models.any_model import AnyModel
from skipvsr.routing.trace import Trace, Traces
from skipvsr.upscale.checkpoint import UnfinishedJob, forget_finished, unfinished_precision
from skipvsr.upscale.choose import AUTO_MODEL, resolve_model
from skipvsr.upscale.measure import remembered_steps
from skipvsr.upscale.options import JobOptions, OutputOptions, VideoShorthands
from skipvsr.upscale.overlay import LatestDepths
from skipvsr.upscale.pipeline import CheckpointKeeper, Overlay, Pipeline
from skipvsr.upscale.plan import disk_bytes, memory_bytes, warn_of_shortage
from skipvsr.upscale.progress import OnProgress, ProgressMeter
from skipvsr.upscale.request import UpscaleReport, UpscaleRequest
from skipvsr.upscale.size import pixel_aspect
from skipvsr.upscale.snapshot import Snapshot
from skipvsr.upscale.speed import counted_steps
from skipvsr.video.errors import PIPE
from skipvsr.video.open import Reader, Writer, check_output, open_writer
from skipvsr.video.write import VideoWriter


def upscale_video(
    source: str | Path,
    destination: str | Path,
    model: AnyModel | str | Path = AUTO_MODEL,
    *,
    compute: ComputeOptions | None = None,
    stream: StreamOptions | None = None,
    output: OutputOptions | None = None,
    scale: int | None = None,
    start: float | None = None,
    end: float | None = None,
    deinterlace: bool = True,
    trace: Trace | str | Path | None = None,
    overlay: str | Path | None = None,
    snapshot: str | Path | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[VideoShorthands],
) -> UpscaleReport:
    """Super-resolve a video file or a folder of images, in fixed memory whatever its length.

    A video keeps its timestamps, sound, subtitles, colour description, rotation and pixel aspect; a folder keeps its file
    names. The destination appears whole or not at all. What is finished of it is kept in a hidden folder beside it: after
    an interruption or a crash the same call goes on from there, and the result is the same. (Not with a trace or an overlay.)

    Args:
        source: a video file, or a folder of images in the order of their names; "-" is y4m on standard input.
        destination: a video file (its ending chooses the container), or a folder for images; "-" is y4m on standard output.
        model: a model, what `load_model` takes, or "auto": the packaged one that fits the file (`skipvsr.upscale.choose`).
        scale: 2 or 4, for "auto"; None: 4, or what is nearer to the size that is asked for.
        compute, stream, output: the options; None: their defaults.
        start, end: seconds of the file's own clock; frames at `start` or later and before `end` are upscaled, and the
            output begins at 0. None: from the first, to the last.
        deinterlace: make whole frames of those that are flagged as interlaced.
        trace: what ran is added to it; or a file for that (`skipvsr.evaluation.trace_file`).
        overlay: a second output, of the same kind as the destination: the frames in grey with each tile's depth over them.
        snapshot: a JPEG file that shows the newest frame, small, every few seconds while the job runs.
        on_progress: called at the start, after each step of the work and at the end (`Progress`), in the calling thread.
        options: single fields of the three options, such as `budget=0.5`, which go before those of the objects.

    Raises:
        InputError: the source cannot be read.
        DecodeError: the source was damaged, cut off or changed meanwhile; the destination holds all that could be read.
        OutputError: the destination exists or cannot be written, is being written by another job, or has unfinished work
            with other options beside it.
        ResourceError: memory ran out; what is finished is kept.
        ModelError, ConfigError: the model or an option is wrong.
    """
    job = JobOptions.of("upscale_video", compute, stream, output, options)
    compute, output = job.compute, job.output
    if compute.precision == AUTO and output.resume:
        compute = replace(compute, precision=unfinished_precision(Path(destination)) or AUTO)
    network, choice = resolve_model(model, Path(source), scale=scale, size=output.size, device=compute.torch_device)
    request = UpscaleRequest(
        source=Path(source),
        destination=Path(destination),
        upscaler=Upscaler(network, compute, job.stream),
        output=output,
        start=start,
        end=end,
        deinterlace=deinterlace,
        trace=Path(trace) if isinstance(trace, str) else trace,
        overlay=None if overlay is None else Path(overlay),
        model=choice.name if choice is not None else str(model) if isinstance(model, str | Path) else "",
        model_reason="" if choice is None else choice.reason,
        snapshot=None if snapshot is None else Path(snapshot),
    )
    if request.trace is not None or request.overlay is not None:
        request.upscaler.check_traceable()
    try:
        return run_job(request, on_progress)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            "memory ran out while decoding or encoding; close other programs and start again"
        ) from error


def run_job(request: UpscaleRequest, on_progress: OnProgress | None = None) -> UpscaleReport:
    """Do what is asked; errors as for `upscale_video`."""
    with ExitStack() as stack:
        reader = stack.enter_context(request.open())
        info = reader.info
        size = request.output.size_of(info, request.upscaler.model.scale)
        windows = request.upscaler.windows(info.height, info.width)
        segment_length = request.segment_length(info.height, info.width)
        _warn_of_shortage(request, reader, size)
        request.check_distinct()
        if request.destination != PIPE:
            trace = request.trace if isinstance(request.trace, Path) else None
            forget_finished(request.destination, request.overlay, trace)
        check_output(request.destination, reader, overwrite=request.output.overwrite)
        work = None
        if request.destination != PIPE:
            identity = request.identity(reader, windows, segment_length)
            work = stack.enter_context(UnfinishedJob(request.destination, identity, resume=request.output.resume))
        check_output(
            request.destination, reader, overwrite=request.output.overwrite
        )  # another job may just have finished it
        done = 0 if work is None or work.checkpoint is None else work.checkpoint.frames
        what = (request.upscaler, info.height, info.width, size[0] * size[1])
        meter = ProgressMeter(
            info.frame_count, windows, remembered_steps(*what) or counted_steps(*what),
            done=done, segment_length=segment_length, on_progress=on_progress,
        )  # fmt: skip
        pipeline, writer = _open_pipeline(request, stack, reader, size, work, segment_length, meter)
        if isinstance(writer, VideoWriter):
            writer.on_join = meter.joining
        pipeline.run()
    meter.end()
    report = _report(request, reader, pipeline, meter, done, size)
    _raise_where_cut_short(request, report, pipeline, writer)
    return report


def _open_pipeline(
    request: UpscaleRequest,
    stack: ExitStack,
    reader: Reader,
    size: tuple[int, int],
    work: UnfinishedJob | None,
    segment_length: int,
    meter: ProgressMeter,
) -> tuple[Pipeline, Writer]:
    """All outputs opened, in an order in which what goes wrong at the end with one finds the others in their places."""
    info, output, (height, width) = reader.info, request.output, size
    open_output = partial(
        open_writer,
        width=width,
        height=height,
        source=reader,
        options=output.encoding,
        sample_aspect_ratio=pixel_aspect(info.sample_aspect_ratio, info.height, info.width, height, width),
        overwrite=output.overwrite,
    )
    snapshot = None if request.snapshot is None else Snapshot(request.snapshot, info.rotation_degrees // 90)
    traces: list[Trace] = []
    # Trace and overlay have folders of their own, which the next job empties where this one is killed.
    if isinstance(request.trace, Path):
        work_place = stack.enter_context(UnfinishedJob(request.trace, {}, resume=False)).folder / "trace"
        traces.append(stack.enter_context(TraceWriter(request.trace, overwrite=output.overwrite, work=work_place)))
    elif request.trace is not None:
        traces.append(request.trace)
    overlay = None
    if request.overlay is not None:
        patches = request.upscaler.patch_grid(info.height, info.width)
        depths = LatestDepths(None if patches is None else patches.expand)
        side = stack.enter_context(UnfinishedJob(request.overlay, {}, resume=False))
        overlay = Overlay(stack.enter_context(open_output(request.overlay, work=side.folder)), depths)
        traces.append(depths)
    before = None if work is None else work.checkpoint
    state = None if before is None else StreamState(before.frames, before.numbers, before.tensors)
    done = meter.frames_done
    if work is None:
        writer = stack.enter_context(open_output(request.destination))
    else:
        # Last in, first out: closed before the others.
        writer = stack.enter_context(
            open_output(request.destination, work=work.folder, segments=work.segments(), done=done)
        )
    keeper = None
    if work is not None and request.resumable:
        keeper = CheckpointKeeper(work, writer, segment_length, done)
    pipeline = Pipeline(
        reader, request.upscaler, writer, size,
        overlay=overlay, trace=Traces(tuple(traces)) if traces else None, start=state, keeper=keeper, meter=meter,
        snapshot=snapshot,
    )  # fmt: skip
    return pipeline, writer


def _warn_of_shortage(request: UpscaleRequest, reader: Reader, size: tuple[int, int]) -> None:
    info, (height, width) = reader.info, size
    windows = request.upscaler.windows(info.height, info.width)
    needed = memory_bytes(request.upscaler.model.config, info.height, info.width, windows, height * width)
    frames, disk = info.frame_count, None
    if frames is not None and request.destination != PIPE:
        disk = disk_bytes(frames, height, width, request.destination, request.output.encoding)
    warn_of_shortage(needed, disk, request.destination.absolute().parent)


def _report(
    request: UpscaleRequest, reader: Reader, pipeline: Pipeline, meter: ProgressMeter, done: int, size: tuple[int, int]
) -> UpscaleReport:
    info, (height, width) = reader.info, size
    windows = request.upscaler.windows(info.height, info.width)
    ratio = pipeline.stream.tally.active_ratio
    cost = stream_cost(request.upscaler, info.height, info.width)
    return UpscaleReport(
        destination=request.destination,
        frames=meter.frames_done,
        resumed_at=done,
        scenes=pipeline.stream.scenes,
        input_size=(info.width, info.height),
        output_size=(width, height),
        window=windows.window,
        lookahead=windows.lookahead,
        seconds=meter.seconds,
        frames_per_second=(meter.frames_done - done) / meter.seconds,
        peak_bytes=meter.peak_bytes,
        active_ratio=ratio,
        macs_per_frame=cost.at_ratio(ratio),
        full_macs_per_frame=stream_cost(request.upscaler, info.height, info.width, budgeted=False).total,
        model=request.model,
        model_reason=request.model_reason,
        precision=request.upscaler.precision,
    )


def _raise_where_cut_short(request: UpscaleRequest, report: UpscaleReport, pipeline: Pipeline, writer: Writer) -> None:
    """Raise DecodeError where not all of the source could be read; the output is whole nevertheless."""
    if pipeline.stopped is not None:
        raise DecodeError(
            f"{pipeline.stopped}; the {report.frames} frames that could be read are in {request.destination}"
        ) from pipeline.stopped
    if isinstance(writer, VideoWriter) and writer.stopped is not None:
        raise DecodeError(
            f"{request.source} was upscaled whole, but {writer.stopped}; what could be read is in {request.destination}"
        )
