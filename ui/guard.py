"""Let requests through only from the same site, for known hosts and paths, with a body of limited size.

The web framework has routes that this app does not need; some make the server fetch an address. A path that is not
listed here gets 404 before the framework sees it.
"""

import ipaddress
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
LARGEST_BODY = 8_000_000
"""Most bytes of a request that is not an upload: a table of prompts is far smaller."""

_READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?|/logout|/login_check/?"
    r"|/(assets|static|svelte)/[\w./@%+-]+"
    r"|/gradio_api/(info/?|openapi\.json|app_id/?|startup-events|token/?|user/?|login_check/?|queue/data|theme\.css"
    r"|upload_progress|heartbeat/\w+|call/\w+/\w+|file=(?!\w+:).+)"
)
_WRITE = re.compile(
    r"/login/?|/gradio_api/(queue/join|cancel|reset/?|upload|run/\w+/?|api/\w+/?|call/\w+/?|call/v2/\w+/?|component_server/?)"
)
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data:; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware that refuses requests before the app sees them.

    Args:
        app: the guarded app.
        hosts: names by which the app may be called.
        any_address: whether bare IP addresses are accepted too. They are safe: a page of another site can make a
            browser send its own name here, but never an address.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = LOOPBACK, any_address: bool = False) -> None:
        self.app, self.hosts, self.any_address = app, {host.lower() for host in hosts}, any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on with its body checked and safe headers on the answer."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None  # the app speaks no websockets
        refused = self._refuse(scope)
        if refused:
            return await PlainTextResponse(refused[1], refused[0], headers=_HEADERS)(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["method"] == "POST" and not scope["path"].endswith("/upload"):
            body = await _body(receive)
            if body is None:
                return await PlainTextResponse("too large", 413)(scope, receive, with_headers)
            if _names_an_address(body):
                return await PlainTextResponse("files by address are refused", 403)(scope, receive, with_headers)
            receive = _again(body, receive)
        return await self.app(scope, receive, with_headers)

    def _refuse(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if len(headers.getlist("host")) != 1 or not self._known(host):
            return 421, "unknown host"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host:
            return 403, "cross-site requests are refused"
        arriving = scope["path"] == "/" and scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not arriving:
            return 403, "cross-site requests are refused"
        allowed = {"GET": _READ, "HEAD": _READ, "POST": _WRITE}.get(scope["method"])
        if allowed is None:
            return 405, "method not allowed"
        if not allowed.fullmatch(scope["path"]) or ".." in scope["path"].split("/"):
            return 404, "not found"
        return None

    def _known(self, host: str) -> bool:
        name = host if host.endswith("]") else host.rpartition(":")[0] if ":" in host else host
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return self.any_address


async def _body(receive: Receive) -> bytes | None:
    """Read the whole body; None if it is too large."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Replay a body that was read, then pass on later messages."""
    given = False

    async def give() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


def _names_an_address(body: bytes) -> bool:
    """Tell whether a JSON body has a file whose path is an address, which the framework would fetch."""
    try:
        return _has_address(json.loads(body))
    except ValueError:
        return False
    except RecursionError:
        return True


def _has_address(value: Any) -> bool:
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and ("://" in path or re.match(r"\s*(https?|ftp|data|file):", path, re.IGNORECASE)):
            return True
        return any(map(_has_address, value.values()))
    return isinstance(value, list) and any(map(_has_address, value))
