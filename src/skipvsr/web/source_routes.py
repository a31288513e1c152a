"""Videos: those of allowed folders, uploads, and the thumbnails of the filmstrip."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skipvsr.errors import ConfigError, InputError, OutputError
from skipvsr.video.segments import write_whole
from skipvsr.web import look
from skipvsr.web.app import person_of, read_file, read_json, services_of, text
from skipvsr.web.sources import Source, upload_path
from skipvsr.web.store import plain_name
from skipvsr.web.uploads import receive

THUMBNAILS = 16


async def folders(request: Request) -> Response:
    """What an allowed folder holds."""
    services = services_of(request)
    offers = await services.offers()
    listing = await asyncio.to_thread(services.sources.listing, request.path_params.get("id"), offers.endings)
    return JSONResponse(listing)


async def pick(request: Request) -> Response:
    """Open a video of an allowed folder."""
    services, person = services_of(request), person_of(request)
    path = services.sources.file(text(await read_json(request), "file"))
    services.sources.check_count(person)
    found = await services.workers.files.call(look.describe, path)
    source = services.sources.add(person, path, path.name, found, uploaded=False)
    services.changes.tell(person)
    return JSONResponse(source.shown())


async def upload(request: Request) -> Response:
    """Take a video in: the body is the file, `?name=` what it is called."""
    services, person = services_of(request), person_of(request)
    services.sources.check_count(person)
    limits = services.options.limits
    if services.uploads >= limits.uploads:
        raise ConfigError(f"{limits.uploads} uploads are under way, which is as many as can be; wait for one to end")
    name = plain_name(request.query_params.get("name", ""))
    path = upload_path(services.store, name)
    services.uploads += 1
    try:
        await receive(request, path, services.store, limits)
        try:
            found = await services.workers.files.call(look.describe, path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
        source = services.sources.add(person, path, name, found, uploaded=True)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        services.uploads -= 1
    services.changes.tell(person)
    return JSONResponse(source.shown())


async def close_source(request: Request) -> Response:
    """Close a video."""
    services = services_of(request)
    source = _source(request)
    if source.uploaded and services.queue.uses(source.path):
        raise ConfigError(f"{source.name} is needed by a job; wait for it, or cancel it first")
    services.sources.close(source)
    services.changes.tell(source.person)
    return Response(status_code=204)


async def thumbnail(request: Request) -> Response:
    """One of the thumbnails of the filmstrip, made when it is first asked for."""
    services, source, index = services_of(request), _source(request), int(request.path_params["index"])
    if not 0 <= index < THUMBNAILS:
        raise KeyError(index)
    place = services.store.cache / source.id / f"{index}.jpg"
    if not place.is_file():
        seconds = source.found["first_seconds"] + (index + 0.5) / THUMBNAILS * (source.found["seconds"] or 0)
        contents = await services.workers.files.call(look.thumbnail_at, source.path, seconds)
        with contextlib.suppress(OSError, OutputError):  # a full disk, or the video was closed meanwhile
            place.parent.mkdir(exist_ok=True)
            write_whole(place, contents)
    else:
        contents = await asyncio.to_thread(read_file, place)
    return Response(contents, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})


def _source(request: Request) -> Source:
    return services_of(request).sources.get(person_of(request), request.path_params["id"])
