"""Jobs: films, short sections and copies that browsers play, in the queue of a person."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from skipvsr.errors import ConfigError
from skipvsr.web.app import Services, person_of, read_file, read_json, services_of, text
from skipvsr.web.command import MAX_SECTION_SECONDS, JobSettings, output_name
from skipvsr.web.jobs import Job, Kind, State, shown_command
from skipvsr.web.media import media_file
from skipvsr.web.sources import Source
from skipvsr.web.store import new_id


async def add_job(request: Request) -> Response:
    """Put a film or a short section of it into the queue."""
    services, person, values = services_of(request), person_of(request), await read_json(request)
    source = services.sources.get(person, text(values, "source"))
    settings = await settings_of(services, values)
    kind = Kind(values.get("kind", Kind.FILM)) if values.get("kind", Kind.FILM) in (Kind.FILM, Kind.SECTION) else None
    if kind is None:
        raise HTTPException(400, "kind must be film or section")
    await asyncio.to_thread(services.store.check_room)
    if kind is Kind.SECTION:
        settings = _section(settings, source)
        for old in [job for job in services.queue.of(person) if job.kind is Kind.SECTION]:
            if (old.source, old.settings) != (source.path, settings) or old.state in (State.FAILED, State.CANCELLED):
                await services.queue.remove(old)
    id = new_id()
    folder = services.store.results / id
    words = job_words(services, source, settings)
    name = words["result_name"] if kind is Kind.FILM else "section.mp4"
    job = Job(
        id=id,
        person=person,
        kind=kind,
        source_id=source.id,
        source=source.path,
        name=source.name,
        folder=folder,
        result=folder / name,
        settings=settings,
        reference=folder / "bicubic.mp4" if kind is Kind.SECTION else None,
        command=words["command"],
    )
    return JSONResponse(services.queue.add(job).shown())


async def change_job(request: Request) -> Response:
    """Pause, resume, cancel, retry or move a job."""
    queue, job = services_of(request).queue, _job(request)
    match request.path_params["action"]:
        case "pause":
            await queue.pause(job)
        case "resume":
            await queue.resume(job)
        case "cancel":
            await queue.cancel(job)
        case "retry":
            await queue.retry(job)
        case "up":
            await queue.move(job, -1)
        case "down":
            await queue.move(job, 1)
        case _:
            raise KeyError(request.path_params["action"])
    return JSONResponse(job.shown())


async def remove_job(request: Request) -> Response:
    """Forget a job with its result."""
    services, job = services_of(request), _job(request)
    for copy in [
        each for each in services.queue.of(job.person) if each.kind is Kind.COPY and each.source == job.result
    ]:
        await services.queue.remove(copy)
    await services.queue.remove(job)
    return Response(status_code=204)


async def add_copy(request: Request) -> Response:
    """Make a small copy that the browser can play, of a source or of a result."""
    services, person, values = services_of(request), person_of(request), await read_json(request)
    id = text(values, "of")
    path, name = media_file(services, person, id)
    await asyncio.to_thread(services.store.check_room)
    own = new_id()
    folder = services.store.results / own
    job = Job(own, person, Kind.COPY, id, path, name, folder, folder / "copy.mp4", JobSettings())
    return JSONResponse(services.queue.add(job).shown())


async def job_snapshot(request: Request) -> Response:
    """The newest frame of a running job."""
    job = _job(request)
    contents = await asyncio.to_thread(read_file, job.snapshot)
    return Response(contents, media_type="image/jpeg", headers={"cache-control": "no-store"})


async def job_reference(request: Request) -> Response:
    """The bicubic counterpart of a section."""
    job = _job(request)
    if job.reference is None or not job.reference.is_file():
        raise KeyError(job.id)
    return FileResponse(job.reference, media_type="video/mp4", headers={"cache-control": "private, no-cache"})


def _job(request: Request) -> Job:
    return services_of(request).queue.get(person_of(request), request.path_params["id"])


async def settings_of(services: Services, values: dict[str, Any]) -> JobSettings:
    """The settings in a request. Raises ConfigError."""
    offers = await services.offers()
    return JobSettings.parse(values.get("settings", {}), list(offers.models))


def job_words(services: Services, source: Source, settings: JobSettings) -> dict[str, str]:
    """What the result will be called, and the equivalent command line."""
    found = source.found
    name = output_name(source.name, settings, streams=bool(found["sounds"] or found["subtitles"]))
    shown = source.name if source.uploaded else services.sources.shown_path(source.path)
    return {"result_name": name, "command": shown_command(shown, name, settings)}


def _section(settings: JobSettings, source: Source) -> JobSettings:
    """The settings of a section, in an encoding that browsers play."""
    if settings.start is None or settings.end is None:
        raise ConfigError("a section needs a start and an end")
    if not 0 < settings.end - settings.start <= MAX_SECTION_SECONDS:
        raise ConfigError(f"a section must be longer than 0 and at most {MAX_SECTION_SECONDS:g} s")
    return JobSettings(**{**settings.to_dict(), "encoding": "h264", "crf": None, "audio": "aac", "subtitles": False})
