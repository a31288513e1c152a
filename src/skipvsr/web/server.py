"""`serve`: starts the page's server, and stops it with its jobs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from skipvsr.errors import ConfigError
from skipvsr.web.app import end_streams, make_app
from skipvsr.web.settings import ServeOptions
from skipvsr.web.store import Store

_GOODBYE_SECONDS = 3
# A connection on which nothing was asked for so long is closed.
_FIRST_REQUEST_SECONDS = 15.0
_KEEP_ALIVE_SECONDS = 15


class Protocol(H11Protocol):
    """HTTP/1.1 with a time limit: connections that send no request are closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.loop.call_later(_FIRST_REQUEST_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def serve(options: ServeOptions, on_ready: Callable[[str], object] | None = None) -> None:
    """Serve the page until the process is asked to end (Ctrl-C, SIGTERM).

    Args:
        options: where, and what.
        on_ready: called with the address to open when the page can be opened; it holds the token, if one is needed.

    Raises:
        ConfigError: the address cannot be listened on.
        OutputError: the work folder cannot be used.
    """
    store = Store(options.work, options.limits)
    try:
        listener = _listen(options)
        with listener:
            token = options.token or (None if options.local else store.token())
            app = make_app(options, token, store)
            config = uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                log_level="error",
                access_log=False,
                server_header=False,
                limit_concurrency=options.limits.connections,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GOODBYE_SECONDS,
            )
            server = _Server(
                config,
                on_ready=lambda: on_ready and on_ready(address(options, listener, token)),
                on_stop=lambda: end_streams(app),
            )
            if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGHUP, server.handle_exit)
            # It ends well before it raises the signal again that told it to.
            with contextlib.suppress(KeyboardInterrupt):
                server.run([listener])
    finally:
        store.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready and tells open streams to end when it is to stop."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], object], on_stop: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_ready, self._on_stop = on_ready, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)


def address(options: ServeOptions, listener: socket.socket, token: str | None) -> str:
    """What to open in a browser."""
    host, port = options.host, listener.getsockname()[1]
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + ("" if token is None else f"?token={token}")


def _listen(options: ServeOptions) -> socket.socket:
    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family[0], family[1])
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(family[4])
            listener.listen(512)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {options.host} port {options.port} ({error.strerror}); choose another --port or --host"
        ) from error
    listener.setblocking(False)
    return listener
