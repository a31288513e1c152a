"""What the page asks for, one function each. Everything is looked up by opaque ids among what belongs to the person."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.video.segments import write_whole
from skipvsr.web import look
from skipvsr.web.app import STATIC, House, house_of, number, person_of, read_json, text
from skipvsr.web.command import MAX_SECTION_SECONDS, JobSettings, output_name
from skipvsr.web.jobs import Job, Kind, State, shown_command
from skipvsr.web.sources import Source, upload_path
from skipvsr.web.store import new_id, plain_name
from skipvsr.web.uploads import receive

THUMBNAILS = 16
_KEPT_PREVIEWS = 24
# Types with which browsers play a file, and which nothing in it can turn into a page.
_VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}
_OTHER_TYPE = "application/octet-stream"


async def page(request: Request) -> Response:
    """The page itself."""
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


async def state(request: Request) -> Response:
    """Everything at the start: what there is to choose from, and what is the person's."""
    house = house_of(request)
    offers = await house.offers()
    limits = house.options.limits
    return JSONResponse(
        {
            "models": offers.models,
            "presets": offers.presets,
            "endings": offers.endings,
            "thumbnails": THUMBNAILS,
            "browse": bool(house.options.roots),
            "upload_bytes": limits.upload_bytes,
            "section_seconds": MAX_SECTION_SECONDS,
            **house.state(person_of(request)),
        }
    )


async def events(request: Request) -> Response:
    """What changes, as it changes."""
    house, person = house_of(request), person_of(request)
    stream: AsyncIterator[str] = house.changes.stream(person, lambda: house.state(person))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def folders(request: Request) -> Response:
    """What an allowed folder holds."""
    house = house_of(request)
    offers = await house.offers()
    listing = await asyncio.to_thread(house.sources.listing, request.path_params.get("id"), offers.endings)
    return JSONResponse(listing)


async def pick(request: Request) -> Response:
    """Open a video of an allowed folder."""
    house, person = house_of(request), person_of(request)
    path = house.sources.file(text(await read_json(request), "file"))
    house.sources.check_count(person)
    found = await house.workers.files.call(look.describe, path)
    source = house.sources.add(person, path, path.name, found, uploaded=False)
    house.changes.tell(person)
    return JSONResponse(source.shown())


async def upload(request: Request) -> Response:
    """Take a video in: the body is the file, `?name=` what it is called."""
    house, person = house_of(request), person_of(request)
    house.sources.check_count(person)
    limits = house.options.limits
    if house.uploads >= limits.uploads:
        raise ConfigError(f"{limits.uploads} uploads are under way, which is as many as can be; wait for one to end")
    name = plain_name(request.query_params.get("name", ""))
    path = upload_path(house.store, name)
    house.uploads += 1
    try:
        await receive(request, path, house.store, limits)
        try:
            found = await house.workers.files.call(look.describe, path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
        source = house.sources.add(person, path, name, found, uploaded=True)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        house.uploads -= 1
    house.changes.tell(person)
    return JSONResponse(source.shown())


async def close_source(request: Request) -> Response:
    """Close a video."""
    house = house_of(request)
    source = _source(request)
    if source.uploaded and house.queue.uses(source.path):
        raise ConfigError(f"{source.name} is needed by a job; wait for it, or cancel it first")
    house.sources.close(source)
    house.changes.tell(source.person)
    return Response(status_code=204)


async def picture(request: Request) -> Response:
    """One of the pictures of the filmstrip, made when it is first asked for."""
    house, source, index = house_of(request), _source(request), int(request.path_params["index"])
    if not 0 <= index < THUMBNAILS:
        raise KeyError(index)
    place = house.store.cache / source.id / f"{index}.jpg"
    if not place.is_file():
        seconds = source.found["first_seconds"] + (index + 0.5) / THUMBNAILS * (source.found["seconds"] or 0)
        contents = await house.workers.files.call(look.picture_at, source.path, seconds)
        with contextlib.suppress(OSError, OutputError):  # a full disk, or the video was closed meanwhile
            place.parent.mkdir(exist_ok=True)
            write_whole(place, contents)
    else:
        contents = await asyncio.to_thread(_read, place)
    return Response(contents, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})


async def make_preview(request: Request) -> Response:
    """Upscale a frame; a request that a newer one has overtaken is answered with 409."""
    house, person, values = house_of(request), person_of(request), await read_json(request)
    source = house.sources.get(person, text(values, "source"))
    settings = await _settings(house, values)
    asked = look.PreviewRequest(
        path=source.path,
        seconds=source.found["first_seconds"] + max(0.0, number(values, "seconds")),
        settings=settings,
        centre=(number(values, "x", 0.5), number(values, "y", 0.5)),
        whole=values.get("whole") is True,
        device=house.options.device,
    )
    if not await house.latest.turn(person):
        raise HTTPException(409, "a newer preview was asked for")
    try:
        made = await house.workers.previews.call(look.preview, asked)
    except InputError as error:
        raise InputError(str(error).replace(str(source.path), source.name)) from error
    finally:
        house.latest.done()
    id = new_id()
    house.previews[id] = (person, {which: getattr(made, which) for which in look.PICTURES})
    while len(house.previews) > _KEPT_PREVIEWS:
        del house.previews[next(iter(house.previews))]
    facts = {name: value for name, value in asdict(made).items() if name not in look.PICTURES}
    return JSONResponse({"id": id, **facts, **_job_words(house, source, settings)})


async def preview_picture(request: Request) -> Response:
    """A picture of a preview."""
    person, pictures = house_of(request).previews[request.path_params["id"]]
    if person != person_of(request):
        raise KeyError(request.path_params["id"])
    contents = pictures[request.path_params["which"]]
    return Response(contents, media_type="image/png", headers={"cache-control": "private, max-age=3600"})


async def add_job(request: Request) -> Response:
    """Put a film or a short section of it into the queue."""
    house, person, values = house_of(request), person_of(request), await read_json(request)
    source = house.sources.get(person, text(values, "source"))
    settings = await _settings(house, values)
    kind = Kind(values.get("kind", Kind.FILM)) if values.get("kind", Kind.FILM) in (Kind.FILM, Kind.SECTION) else None
    if kind is None:
        raise HTTPException(400, "kind must be film or section")
    await asyncio.to_thread(house.store.check_room)
    if kind is Kind.SECTION:
        settings = _section(settings, source)
        for old in [job for job in house.queue.of(person) if job.kind is Kind.SECTION]:
            if (old.source, old.settings) != (source.path, settings) or old.state in (State.FAILED, State.CANCELLED):
                await house.queue.remove(old)
    id = new_id()
    folder = house.store.results / id
    words = _job_words(house, source, settings)
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
    return JSONResponse(house.queue.add(job).shown())


async def change_job(request: Request) -> Response:
    """Pause, resume, cancel, retry or move a job."""
    queue, job = house_of(request).queue, _job(request)
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
    house, job = house_of(request), _job(request)
    for copy in [each for each in house.queue.of(job.person) if each.kind is Kind.COPY and each.source == job.result]:
        await house.queue.remove(copy)
    await house.queue.remove(job)
    return Response(status_code=204)


async def add_copy(request: Request) -> Response:
    """Make a small copy that the browser can play, of a source or of a result."""
    house, person, values = house_of(request), person_of(request), await read_json(request)
    id = text(values, "of")
    path, name = _media(house, person, id)
    await asyncio.to_thread(house.store.check_room)
    own = new_id()
    folder = house.store.results / own
    job = Job(own, person, Kind.COPY, id, path, name, folder, folder / "copy.mp4", JobSettings())
    return JSONResponse(house.queue.add(job).shown())


async def media(request: Request) -> Response:
    """A source or a result, in parts as players ask for them; `?download` to keep it."""
    path, name = _media(house_of(request), person_of(request), request.path_params["id"])
    if not path.is_file() or not house_of(request).sources.may_read(path):
        raise KeyError(name)
    kind = _VIDEO_TYPES.get(path.suffix.lower(), _OTHER_TYPE)
    if "download" in request.query_params:
        return FileResponse(path, media_type=_OTHER_TYPE, filename=name)
    return FileResponse(path, media_type=kind, headers={"cache-control": "private, no-cache"})


async def job_picture(request: Request) -> Response:
    """The newest frame of a running job."""
    job = _job(request)
    contents = await asyncio.to_thread(_read, job.snapshot)
    return Response(contents, media_type="image/jpeg", headers={"cache-control": "no-store"})


async def job_reference(request: Request) -> Response:
    """The bicubic counterpart of a section."""
    job = _job(request)
    if job.reference is None or not job.reference.is_file():
        raise KeyError(job.id)
    return FileResponse(job.reference, media_type="video/mp4", headers={"cache-control": "private, no-cache"})


ROUTES = [
    Route("/api/state", state),
    Route("/api/events", events),
    Route("/api/folders", folders),
    Route("/api/folders/{id}", folders),
    Route("/api/sources", pick, methods=["POST"]),
    Route("/api/uploads", upload, methods=["PUT"]),
    Route("/api/sources/{id}", close_source, methods=["DELETE"]),
    Route("/api/sources/{id}/pictures/{index:int}", picture),
    Route("/api/previews", make_preview, methods=["POST"]),
    Route("/api/previews/{id}/{which}.png", preview_picture),
    Route("/api/jobs", add_job, methods=["POST"]),
    Route("/api/jobs/{id}", remove_job, methods=["DELETE"]),
    Route("/api/jobs/{id}/picture", job_picture),
    Route("/api/jobs/{id}/reference", job_reference),
    Route("/api/jobs/{id}/{action}", change_job, methods=["POST"]),
    Route("/api/copies", add_copy, methods=["POST"]),
    Route("/media/{id}", media),
]


def _source(request: Request) -> Source:
    return house_of(request).sources.get(person_of(request), request.path_params["id"])


def _job(request: Request) -> Job:
    return house_of(request).queue.get(person_of(request), request.path_params["id"])


async def _settings(house: House, values: dict[str, Any]) -> JobSettings:
    offers = await house.offers()
    return JobSettings.parse(values.get("settings", {}), list(offers.models))


def _job_words(house: House, source: Source, settings: JobSettings) -> dict[str, str]:
    """What the result will be called, and the equivalent command line."""
    found = source.found
    name = output_name(source.name, settings, streams=bool(found["sounds"] or found["subtitles"]))
    shown = source.name if source.uploaded else house.sources.shown_path(source.path)
    return {"result_name": name, "command": shown_command(shown, name, settings)}


def _section(settings: JobSettings, source: Source) -> JobSettings:
    """The settings of a section, in an encoding that browsers play."""
    if settings.start is None or settings.end is None:
        raise ConfigError("a section needs a start and an end")
    if not 0 < settings.end - settings.start <= MAX_SECTION_SECONDS:
        raise ConfigError(f"a section must be longer than 0 and at most {MAX_SECTION_SECONDS:g} s")
    return JobSettings(**{**settings.to_dict(), "encoding": "h264", "crf": None})


def _media(house: House, person: str, id: str) -> tuple[Path, str]:
    """The file of a source or of a finished job, and what it is called. Raises KeyError."""
    try:
        source = house.sources.get(person, id)
    except KeyError:
        job = house.queue.get(person, id)
        if job.state is not State.DONE:
            raise
        return job.result, job.result.name
    return source.path, source.name


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyError(path.name) from error
