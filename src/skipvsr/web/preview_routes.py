"""Previews: a frame upscaled with the settings that are chosen, and its images."""

from __future__ import annotations

from dataclasses import asdict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skipvsr.errors import InputError, OutputError
from skipvsr.web import look
from skipvsr.web.app import number, person_of, read_json, services_of, text
from skipvsr.web.job_routes import job_words, settings_of
from skipvsr.web.store import new_id

_KEPT_PREVIEWS = 24


async def make_preview(request: Request) -> Response:
    """Upscale a frame; a request that a newer one has overtaken is answered with 409."""
    services, person, values = services_of(request), person_of(request), await read_json(request)
    source = services.sources.get(person, text(values, "source"))
    settings = await settings_of(services, values)
    asked = look.PreviewRequest(
        path=source.path,
        seconds=source.found["first_seconds"] + max(0.0, number(values, "seconds")),
        settings=settings,
        centre=(number(values, "x", 0.5), number(values, "y", 0.5)),
        whole=values.get("whole") is True,
        device=services.options.device,
    )
    if not await services.latest.turn(person):
        raise HTTPException(409, "a newer preview was asked for")
    try:
        made = await services.workers.previews.call(look.preview, asked)
    except InputError as error:
        raise InputError(str(error).replace(str(source.path), source.name)) from error
    finally:
        services.latest.done()
    id = new_id()
    services.previews[id] = (person, {which: getattr(made, which) for which in look.IMAGES})
    while len(services.previews) > _KEPT_PREVIEWS:
        del services.previews[next(iter(services.previews))]
    facts = {name: value for name, value in asdict(made).items() if name not in look.IMAGES}
    return JSONResponse({"id": id, **facts, **job_words(services, source, settings)})


async def make_estimate(request: Request) -> Response:
    """Measure what the whole film takes: some seconds, in which there is no preview."""
    services, person, values = services_of(request), person_of(request), await read_json(request)
    source = services.sources.get(person, text(values, "source"))
    settings = await settings_of(services, values)
    name = job_words(services, source, settings)["result_name"]
    asked = look.PreviewRequest(source.path, 0.0, settings, device=services.options.device, result_name=name)
    if not await services.latest.turn(person):
        raise HTTPException(409, "something newer was asked for")
    try:
        found = await services.workers.previews.call(look.film_estimate, asked)
    except (InputError, OutputError) as error:
        raise type(error)(str(error).replace(str(source.path), source.name)) from error
    finally:
        services.latest.done()
    return JSONResponse(asdict(found))


async def preview_image(request: Request) -> Response:
    """An image of a preview."""
    person, images = services_of(request).previews[request.path_params["id"]]
    if person != person_of(request):
        raise KeyError(request.path_params["id"])
    contents = images[request.path_params["which"]]
    return Response(contents, media_type="image/png", headers={"cache-control": "private, max-age=3600"})
