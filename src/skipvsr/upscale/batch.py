"""Many files: several inputs, or a tree of them, into one folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

import torch

from skipvsr.errors import ConfigError, InputError, OutputError, SkipVSRError
from skipvsr.inference.options import AUTO, ComputeOptions, StreamOptions
from skipvsr.models.any_model import AnyModel
from skipvsr.upscale.checkpoint import forget_finished
from skipvsr.upscale.choose import AUTO_MODEL, ModelChoice, resolve_model
from skipvsr.upscale.isolated import STALL_SECONDS, IsolatedJob, JobProcess, OptionsRefused, packed_model
from skipvsr.upscale.job import OnProgress
from skipvsr.upscale.options import JobOptions, OutputOptions, VideoShorthands
from skipvsr.upscale.request import UpscaleReport
from skipvsr.video.containers import CONTAINERS
from skipvsr.video.encode import choose_encoder
from skipvsr.video.files import is_image, is_video

_LOG = logging.getLogger("skipvsr")
_OTHERWISE = ".mkv"


@dataclass(frozen=True)
class Task:
    """One of many.

    Args:
        source: a video, or a folder of images.
        destination: where it goes.
    """

    source: Path
    destination: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a task: a report, or an error, or neither where its output was there already."""

    task: Task
    report: UpscaleReport | None = None
    error: SkipVSRError | None = None

    @property
    def skipped(self) -> bool:
        """Whether the output was there already."""
        return self.report is None and self.error is None


def is_batch(sources: Sequence[Path]) -> bool:
    """Whether the output is to be a folder of outputs: for several inputs, or one folder that holds no images itself."""
    return len(sources) > 1 or (sources[0].is_dir() and not _has_images(sources[0]))


def plan(sources: Sequence[Path], folder: Path) -> list[Task]:
    """What there is to do, in the order of names within each input.

    Args:
        sources: videos, folders of images, and folders with those anywhere below them. A single folder's tree is kept as it
            is; of several inputs each has its own name in the output.
        folder: the output. What lies in it already is no input.

    Raises:
        InputError: an input does not exist, or nothing to upscale is found.
        ConfigError: two inputs would have the same output.
        OutputError: the output is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, and several inputs need a folder; choose another output")
    tasks: list[Task] = []
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} does not exist; check the path")
        if not source.is_dir() or _has_images(source):
            tasks.append(Task(source, folder / _output_name(source)))
            continue
        inside = folder if len(sources) == 1 else folder / source.resolve().name
        found = sorted(_walk(source, skip=folder.resolve()))
        if not found:
            raise InputError(f"{source} holds no videos and no folders of images")
        tasks += [Task(path, inside / path.relative_to(source).parent / _output_name(path)) for path in found]
    seen: dict[Path, Path] = {}
    for task in tasks:
        other = seen.setdefault(task.destination, task.source)
        if other is not task.source:
            raise ConfigError(f"{other} and {task.source} would both become {task.destination}; rename one of them")
    return tasks


def upscale_many(
    sources: Sequence[str | Path],
    folder: str | Path,
    model: AnyModel | str | Path = AUTO_MODEL,
    *,
    compute: ComputeOptions | None = None,
    stream: StreamOptions | None = None,
    output: OutputOptions | None = None,
    scale: int | None = None,
    start: float | None = None,
    end: float | None = None,
    deinterlace: bool = True,
    on_start: Callable[[Task], object] | None = None,
    on_progress: OnProgress | None = None,
    stall_seconds: float = STALL_SECONDS,
    **options: Unpack[VideoShorthands],
) -> Iterator[Outcome]:
    """Upscale many files into a folder, one after the other, each in a process of its own. What exists there is skipped, and
    what fails does not stop the others: not even a crash of native code, a process that the system ends, or one that hangs.

    Args:
        sources: videos, folders of images, and folders with those anywhere below them.
        folder: the output, made if it is missing; trees keep their structure. Videos whose container is not written go into
            Matroska.
        model, scale: as for `upscale_video`; "auto" chooses for each file.
        compute, stream, output: the options; None: their defaults. With `overwrite`, what exists is done again.
        start, end, deinterlace: as for `upscale_video`.
        on_start: called before each file that is worked on.
        on_progress: called at the start of each file and after each of its frames, in the calling thread.
        stall_seconds: a file is given up where for so long no progress is made and nothing is read or written.
        options: single fields of the three options, such as `budget=0.5`, which go before those of the objects.

    Yields:
        An outcome for each file, as it is done.

    Raises:
        InputError, ConfigError, OutputError, ModelError: before the first file, as `plan` and `load_model` do.
        ConfigError: an option that cannot work with any file; what cannot work with one file is that file's outcome.
    """
    part = {"start": start, "end": end, "deinterlace": deinterlace}
    job = JobOptions.of("upscale_many", compute, stream, output, options, **part)
    tasks = plan([Path(source) for source in sources], Path(folder))
    _check_encoding(tasks, job.output)
    choose = partial(resolve_model, scale=scale, size=job.output.size, device="cpu")
    named = model != AUTO_MODEL
    # What is wrong with a model that was named is said before the first file.
    fixed = choose(model, tasks[0].source)[0] if named else AUTO_MODEL
    run = partial(
        _run,
        choose=lambda source: choose(fixed, source),
        name=str(model) if named and isinstance(model, str | Path) else "",
        options=replace(job, compute=replace(job.compute, device=_device(model, job.compute))),
        on_progress=on_progress,
        stall_seconds=stall_seconds,
    )
    yield from _one_after_the_other(tasks, job.output, run, on_start or _ignore)


def _one_after_the_other(
    tasks: list[Task],
    output: OutputOptions,
    run: Callable[[Task, JobProcess], Outcome],
    on_start: Callable[[Task], object],
) -> Iterator[Outcome]:
    """Each task in a process of its own, while the process of the next one gets ready."""
    ahead: JobProcess | None = None
    try:
        for index, task in enumerate(tasks):
            if _is_done(task, output):
                forget_finished(task.destination)
                yield Outcome(task)
                continue
            on_start(task)
            with ahead if ahead is not None and ahead.waiting else JobProcess() as process:
                ahead = JobProcess() if any(not _is_done(other, output) for other in tasks[index + 1 :]) else None
                outcome = run(task, process)
            yield outcome
    finally:
        if ahead is not None:
            ahead.close()


def _run(
    task: Task,
    process: JobProcess,
    *,
    choose: Callable[[Path], tuple[AnyModel, ModelChoice | None]],
    name: str,
    options: JobOptions,
    on_progress: OnProgress | None,
    stall_seconds: float,
) -> Outcome:
    """Do a task in a process; the model is called `name` in the report, if it was not chosen for this file."""
    try:
        network, choice = choose(task.source)
        try:
            task.destination.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{task.destination.parent} cannot be made ({error.strerror})") from error
        model, threads = packed_model(network), torch.get_num_threads()
        job = IsolatedJob(task.source, task.destination, model, options, threads)
        report = process.run(job, on_progress, stall_seconds)
        chosen = ModelChoice(name, "") if choice is None else choice
        return Outcome(task, report=replace(report, model=chosen.name, model_reason=chosen.reason))
    except OptionsRefused as refused:
        raise refused.error from None
    except SkipVSRError as error:
        return Outcome(task, error=error)


def _ignore(task: Task) -> None:
    """What is called before each task where nobody wants to know."""


def _is_done(task: Task, output: OutputOptions) -> bool:
    return task.destination.exists() and not output.overwrite


def _device(model: AnyModel | str | Path, compute: ComputeOptions) -> str | torch.device:
    """Where another process is to compute."""
    if compute.device != AUTO or compute.runtime != "torch":
        return compute.device
    if isinstance(model, str | Path):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return next(model.parameters()).device


def _check_encoding(tasks: list[Task], output: OutputOptions) -> None:
    """Raise ConfigError where no video of a usual size could be encoded as it is asked for."""
    for container in {task.destination.suffix for task in tasks if not task.source.is_dir()}:
        choose_encoder(output.encoding, 640, 360, container=container)


def _walk(root: Path, skip: Path) -> Iterator[Path]:
    """Videos and folders of images below a folder; nothing hidden, and nothing that a link brings in from elsewhere."""
    inside = root.resolve()
    for folder, names, files in os.walk(root):
        place = Path(folder)
        names[:] = [name for name in names if not name.startswith(".") and (place / name).resolve() != skip]
        if place != root and _has_images(place):
            yield place
        for name in files:
            path = place / name
            if not is_video(path):
                continue
            if not path.resolve().is_relative_to(inside):
                _LOG.warning("%s is left out: it is a link that leads out of %s", path, root)
                continue
            yield path


def _has_images(folder: Path) -> bool:
    return any(is_image(path) for path in folder.iterdir())


def _output_name(source: Path) -> str:
    if source.is_dir():
        return source.resolve().name
    return source.name if source.suffix.lower() in CONTAINERS else f"{source.stem}{_OTHERWISE}"
