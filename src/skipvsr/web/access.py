"""Access control: checks on every request before anything else sees it.

- Host: a page of somebody else, whose name was made to point at this machine (DNS rebinding), is refused.
- Origin: whatever changes something must come from this very page; other sites' requests are refused, also those that only
  read (Sec-Fetch-Site).
- Token: where the page can be reached from other machines, a link with the token opens it; a signed cookie remembers that,
  and whose jobs are whose.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Whose jobs they are where nobody but this machine's user comes.
LOCAL_PERSON = "local"
_SAFE = ("GET", "HEAD")
_YEAR_SECONDS = 365 * 24 * 3600
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_CLOSED = """<!doctype html><meta charset="utf-8"><title>SkipVSR</title>
<p>This page needs its token. Open the link that <code>skipvsr serve</code> printed; it ends in <code>?token=...</code></p>"""


class Access:
    """ASGI middleware. What it lets through has the person's id in `scope["person"]`.

    Args:
        app: what comes behind it.
        token: None: nobody needs one, and everybody is the same person.
        host_names: names that may stand in the Host header, besides addresses, localhost and this machine's own name.
        open_names: whether addresses and this machine's own name may; False: only those of this machine's loopback.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, host_names: Iterable[str] = (), open_names: bool = False
    ) -> None:
        self._app, self._token = app, token
        self._open = open_names
        names = {"localhost", *(name.lower() for name in host_names)}
        if open_names:
            own = socket.gethostname().lower()
            names |= {own, f"{own}.local", own.removesuffix(".local"), socket.getfqdn().lower()}
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await _refuse_other(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._wrong_host(headers) or self._wrong_origin(scope, headers)
        if problem is not None:
            await JSONResponse({"error": problem}, 403, _HEADERS)(scope, receive, send)
            return
        if self._token is not None and await self._welcome(self._token, scope, receive, send):
            return
        person = LOCAL_PERSON if self._token is None else _person(headers, self._cookie_name(scope), self._token)
        if person is None:
            page = HTMLResponse(_CLOSED, 401) if scope["path"] == "/" else JSONResponse({"error": "no token"}, 401)
            page.headers.update(_HEADERS)
            await page(scope, receive, send)
            return
        scope["person"] = person

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)

    def _wrong_host(self, headers: Headers) -> str | None:
        hosts = headers.getlist("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not self._may_be(name):
            return "this page is not served under that name; open it by the address that 'skipvsr serve' printed"
        return None

    def _may_be(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Whoever makes a foreign name point here still has that name, and no address, in the Host header.
        return self._open or address.is_loopback

    def _wrong_origin(self, scope: Scope, headers: Headers) -> str | None:
        own = f"{scope['scheme']}://{headers.get('host', '')}".lower()
        origin = headers.get("origin")
        if scope["method"] not in _SAFE and (origin is None or origin.lower() != own):
            return "requests that change something must come from this page (Origin)"
        if origin is not None and origin.lower() != own:
            return "requests from other sites are not answered (Origin)"
        # A link or a bookmark may lead to the page itself, and to nothing else.
        foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if foreign and not (scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"):
            return "requests from other sites are not answered (Sec-Fetch-Site)"
        return None

    async def _welcome(self, token: str, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a link with a token: the right one becomes a cookie, and leaves the address."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if scope["path"] != "/" or not given or not hmac.compare_digest(given[0].encode(), token.encode()):
            return False
        name = self._cookie_name(scope)
        person = _person(Headers(scope=scope), name, token) or secrets.token_urlsafe(9)
        response = RedirectResponse("/", 303, _HEADERS)
        response.set_cookie(
            name, f"{person}.{_signature(token, person)}", max_age=_YEAR_SECONDS, httponly=True, samesite="strict",
            secure=scope["scheme"] == "https",
        )  # fmt: skip
        await response(scope, receive, send)
        return True

    def _cookie_name(self, scope: Scope) -> str:
        """Cookies are shared by all ports of a machine."""
        server = scope.get("server") or ("", 0)
        return f"skipvsr_{server[1]}"


def _person(headers: Headers, cookie_name: str, token: str) -> str | None:
    """Whose cookie it is; None: there is none that we signed."""
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return None
    if cookie_name not in cookies:
        return None
    person, _, signature = cookies[cookie_name].value.partition(".")
    genuine = hmac.compare_digest(signature.encode(), _signature(token, person).encode())
    return person if person and genuine else None


def _signature(token: str, person: str) -> str:
    return hmac.new(token.encode(), person.encode(), hashlib.sha256).hexdigest()


def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None: no host at all."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        if not bracket or (port and not (port.startswith(":") and port[1:].isdecimal())):
            return None
        return name.lower()
    name, _, port = host.partition(":")
    if port and not port.isdecimal():
        return None
    return name.lower().removesuffix(".") or None


async def _refuse_other(scope: Scope, receive: Receive, send: Send) -> None:
    """Nothing here speaks WebSocket."""
    message = await receive()
    if message["type"] == "websocket.connect":
        await send({"type": "websocket.close", "code": 1008})
