"""Receiving an upload: written to disk as it arrives, with limits of size and time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from skipvsr.errors import ConfigError, OutputError
from skipvsr.web.settings import Limits
from skipvsr.web.store import Store

_GIB = 1 << 30
# After so many bytes it is asked again whether there is room.
_CHECK_BYTES = 64 << 20
# Slower than this over a minute is no upload but somebody who holds the line.
_MIN_BYTES_PER_SECOND = 1024


async def receive(request: Request, path: Path, store: Store, limits: Limits) -> int:
    """Write the body of a request to a file, which appears whole or not at all; returns its size in bytes.

    Raises:
        ConfigError: it is larger than allowed, too slow, or stops before its end.
        OutputError: the disk is full, or the work folder has reached its limit.
    """
    announced = request.headers.get("content-length", "")
    expected = int(announced) if announced.isdecimal() else 0
    _check_size(expected, limits)
    await asyncio.to_thread(store.check_room, expected)
    part = path.with_name(f"{path.name}.part")
    try:
        size = await _write(request, part, store, limits)
        if not size:
            raise ConfigError("the upload is empty; choose a video file")
        part.replace(path)
        return size
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            "the disk is full; delete results or videos that you do not need"
            if full
            else f"the upload cannot be written ({error.strerror})"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


async def _write(request: Request, part: Path, store: Store, limits: Limits) -> int:
    size = checked = 0
    loop = asyncio.get_running_loop()
    start = loop.time()
    chunks = aiter(request.stream())
    with part.open("xb") as file:
        while True:
            try:
                chunk = await asyncio.wait_for(anext(chunks), limits.idle_seconds)
            except StopAsyncIteration:
                return size
            except ClientDisconnect as error:
                raise ConfigError("the upload was broken off") from error
            except TimeoutError as error:
                raise ConfigError(f"nothing came for {limits.idle_seconds:.0f} s; upload it again") from error
            size += len(chunk)
            _check_size(size, limits)
            passed = loop.time() - start
            if passed > limits.idle_seconds and size < _MIN_BYTES_PER_SECOND * passed:
                raise ConfigError("the upload is too slow; copy the file to this machine in another way")
            if size - checked >= _CHECK_BYTES:
                checked = size
                await asyncio.to_thread(store.check_room)
            await asyncio.to_thread(file.write, chunk)


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.upload_bytes:
        raise ConfigError(
            f"the file is larger than {limits.upload_bytes / _GIB:.3g} GiB, the most that may be uploaded; put it into a "
            "folder on this machine and start with --root FOLDER, or allow more with --max-upload"
        )
