"""Sources and results as files, for players and to be kept."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from skipvsr.web.app import Services, person_of, services_of
from skipvsr.web.jobs import State

# Types with which browsers play a file, and which nothing in it can turn into a page.
_VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}
_OTHER_TYPE = "application/octet-stream"


async def media(request: Request) -> Response:
    """A source or a result, in parts as players ask for them; `?download` to keep it."""
    path, name = media_file(services_of(request), person_of(request), request.path_params["id"])
    if not path.is_file() or not services_of(request).sources.may_read(path):
        raise KeyError(name)
    kind = _VIDEO_TYPES.get(path.suffix.lower(), _OTHER_TYPE)
    if "download" in request.query_params:
        return FileResponse(path, media_type=_OTHER_TYPE, filename=name)
    return FileResponse(path, media_type=kind, headers={"cache-control": "private, no-cache"})


def media_file(services: Services, person: str, id: str) -> tuple[Path, str]:
    """The file of a source or of a finished job, and what it is called. Raises KeyError."""
    try:
        source = services.sources.get(person, id)
    except KeyError:
        job = services.queue.get(person, id)
        if job.state is not State.DONE:
            raise
        return job.result, job.result.name
    return source.path, source.name
