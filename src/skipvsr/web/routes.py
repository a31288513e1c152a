"""Which address calls which function. Everything is looked up by opaque ids among what belongs to the person."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from skipvsr.web.app import STATIC, person_of, services_of
from skipvsr.web.command import MAX_SECTION_SECONDS
from skipvsr.web.job_routes import add_copy, add_job, change_job, job_reference, job_snapshot, remove_job
from skipvsr.web.media import media
from skipvsr.web.preview_routes import make_estimate, make_preview, preview_image
from skipvsr.web.source_routes import THUMBNAILS, close_source, folders, pick, thumbnail, upload


async def page(request: Request) -> Response:
    """The page itself."""
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


async def state(request: Request) -> Response:
    """Everything at the start: what there is to choose from, and what is the person's."""
    services = services_of(request)
    offers = await services.offers()
    limits = services.options.limits
    return JSONResponse(
        {
            "models": offers.models,
            "presets": offers.presets,
            "endings": offers.endings,
            "thumbnails": THUMBNAILS,
            "browse": bool(services.options.roots),
            "upload_bytes": limits.upload_bytes,
            "section_seconds": MAX_SECTION_SECONDS,
            **services.state(person_of(request)),
        }
    )


async def events(request: Request) -> Response:
    """What changes, as it changes."""
    services, person = services_of(request), person_of(request)
    stream: AsyncIterator[str] = services.changes.stream(person, lambda: services.state(person))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


ROUTES = [
    Route("/api/state", state),
    Route("/api/events", events),
    Route("/api/folders", folders),
    Route("/api/folders/{id}", folders),
    Route("/api/sources", pick, methods=["POST"]),
    Route("/api/uploads", upload, methods=["PUT"]),
    Route("/api/sources/{id}", close_source, methods=["DELETE"]),
    Route("/api/sources/{id}/thumbnails/{index:int}", thumbnail),
    Route("/api/previews", make_preview, methods=["POST"]),
    Route("/api/estimates", make_estimate, methods=["POST"]),
    Route("/api/previews/{id}/{which}.png", preview_image),
    Route("/api/jobs", add_job, methods=["POST"]),
    Route("/api/jobs/{id}", remove_job, methods=["DELETE"]),
    Route("/api/jobs/{id}/snapshot", job_snapshot),
    Route("/api/jobs/{id}/reference", job_reference),
    Route("/api/jobs/{id}/{action}", change_job, methods=["POST"]),
    Route("/api/copies", add_copy, methods=["POST"]),
    Route("/media/{id}", media),
]
