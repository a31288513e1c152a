"""The page's server: routes, and what each of them calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from skipvsr.errors import OutputError, SkipVSRError
from skipvsr.web import look
from skipvsr.web.access import Access
from skipvsr.web.events import Changes
from skipvsr.web.queue import Queue
from skipvsr.web.settings import ServeOptions
from skipvsr.web.sources import Sources
from skipvsr.web.store import Store
from skipvsr.web.workers import Latest, Workers

STATIC = Path(__file__).parent / "static"
_BODY_BYTES = 1 << 16
_BODY_SECONDS = 20.0


@dataclass
class Services:
    """The objects that all routes share.

    Args:
        options: of the server.
        store: the work folder.
        sources: open videos.
        queue: of jobs.
        workers: processes that look into files and make previews.
        changes: who hears of what.
        latest: whose turn it is to have a preview made.
        previews: the newest images, by id.
    """

    options: ServeOptions
    store: Store
    sources: Sources
    queue: Queue
    workers: Workers
    changes: Changes
    latest: Latest
    previews: dict[str, tuple[str, dict[str, bytes]]]
    uploads: int = 0
    _offers: asyncio.Task[look.Offers] | None = None

    async def offers(self) -> look.Offers:
        """What a person can choose from; asked for once."""
        failed = self._offers is not None and self._offers.done() and self._offers.exception() is not None
        if self._offers is None or failed:
            self._offers = asyncio.create_task(self.workers.previews.call(look.offers))
        return await asyncio.shield(self._offers)

    def state(self, person: str) -> dict[str, Any]:
        """What the page shows of a person."""
        return {
            "sources": [source.shown() for source in self.sources.of(person)],
            "jobs": [job.shown() for job in self.queue.of(person)],
        }


class Static(StaticFiles):
    """The page's own files, which browsers ask after every time: a new version is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def make_app(options: ServeOptions, token: str | None, store: Store) -> Starlette:
    """The application.

    Args:
        options: of the server.
        token: None: none is needed.
        store: the work folder, held by the caller.
    """
    from skipvsr.web import routes  # they use what is in here

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        changes = Changes()
        sources = Sources(store, options.roots, options.limits)
        queue = Queue(store, options.limits, options.device, changes.tell, sources.may_read)
        services = Services(
            options=options,
            store=store,
            sources=sources,
            queue=queue,
            workers=Workers(),
            changes=changes,
            latest=Latest(),
            previews={},
        )
        app.state.services = services
        await queue.open()
        loading = asyncio.create_task(services.offers())
        try:
            yield
        finally:
            changes.close()
            loading.cancel()
            await queue.close()
            services.workers.close()

    access = Middleware(
        Access, token=token, host_names=options.host_names, open_names=not options.local
    )  # fmt: skip
    return Starlette(
        routes=[
            Route("/", routes.page),
            Mount("/static", Static(directory=STATIC)),
            *routes.ROUTES,
        ],
        middleware=[access],
        exception_handlers={SkipVSRError: _say, KeyError: _missing, HTTPException: _http},
        lifespan=lifespan,
    )


def end_streams(app: Starlette) -> None:
    """Tell the pages that the server stops: what streams to them would otherwise keep it from that."""
    services: Services | None = getattr(app.state, "services", None)
    if services is not None:
        services.changes.close()


async def read_json(request: Request) -> dict[str, Any]:
    """The body of a request: an object in JSON, small. Raises HTTPException."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send JSON")
    body = b""

    async def read() -> None:
        nonlocal body
        async for chunk in request.stream():
            body += chunk
            if len(body) > _BODY_BYTES:
                raise HTTPException(413, "too much")

    try:
        await asyncio.wait_for(read(), _BODY_SECONDS)
        values = await asyncio.to_thread(_parse, body)
    except TimeoutError as error:
        raise HTTPException(408, "too slow") from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "this is no JSON") from error
    if not isinstance(values, dict):
        raise HTTPException(400, "send an object")
    return values


def text(values: dict[str, Any], name: str) -> str:
    """A text of a request. Raises HTTPException."""
    value = values.get(name)
    if not isinstance(value, str):
        raise HTTPException(400, f"{name} must be a text")
    return value


def number(values: dict[str, Any], name: str, otherwise: float | None = None) -> float:
    """A finite number of a request. Raises HTTPException."""
    value = values.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise HTTPException(400, f"{name} must be a number")
    return float(value)


def read_file(path: Path) -> bytes:
    """What a file holds. Raises KeyError where it is not there."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyError(path.name) from error


def services_of(request: Request) -> Services:
    """The shared objects, of the server that got the request."""
    return request.app.state.services


def person_of(request: Request) -> str:
    """The id of the person who made the request."""
    return request.scope["person"]


def _parse(body: bytes) -> Any:
    import json

    return json.loads(body)


async def _say(request: Request, error: Exception) -> Response:
    status = 507 if isinstance(error, OutputError) else 422
    return JSONResponse({"error": str(error)}, status)


async def _missing(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "this is not there (any more)"}, 404)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
