"""Who may talk to the page: a token that becomes a cookie, and checks of where a request is from.

The server listens on this machine only unless told otherwise, but every page that a browser here
has open could send requests to it, and other people's programs may run here, too. So a request
must bear the token, first in the address, then in a cookie that scripts cannot read; it must name
this server as its host (no other name that leads here: DNS rebinding); what changes something must
come from a page of this server (Origin) and be JSON, which a form cannot send.
"""

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

#: No request has a larger body.
MOST_BYTES = 64 * 1024

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around another one, which sees only what is let through."""

    def __init__(self, app: Application, *, token: str, host: str, port: int) -> None:
        """Where the server listens, and the token that lets people in."""
        self._app, self._token, self._port = app, token, port
        # Named by the port: cookies do not tell ports apart, and another server here has its own.
        self.cookie = f"bbald_{port}"
        self._is_everywhere = host in ("", "0.0.0.0", "::")
        self._names = {"localhost", "127.0.0.1", "::1", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                if not any(name.lower() == b"cache-control" for name, _ in message["headers"]):
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if not self._is_our_name(headers.get("host", "")):
            await _answer(guarded, 400, "This server does not go by that name.")
            return
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["path"] == "/" and scope["method"] == "GET" and given:
            if not self._is_token(given[0]):
                await _answer(guarded, 403, "Wrong token: open the address that bbald printed.")
                return
            cookie = f"{self.cookie}={self._token}; Path=/; HttpOnly; SameSite=Lax"
            more = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
            await _answer(guarded, 303, "", more)
            return
        if not self._is_token(_cookies(headers.get("cookie", "")).get(self.cookie, "")):
            await _answer(guarded, 403, "Open the address that bbald printed, with its token.")
            return
        site = headers.get("sec-fetch-site", "same-origin")
        is_document = scope["path"] == "/" and scope["method"] == "GET"
        if not is_document and site != "same-origin":
            await _answer(guarded, 403, "Not from another site.")
            return
        if scope["method"] not in ("GET", "HEAD"):
            if headers.get("origin") != f"http://{headers['host']}":
                await _answer(guarded, 403, "Not from another site.")
                return
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                await _answer(guarded, 415, "JSON only.")
                return
            body = await _read(headers, receive)
            if body is None:
                await _answer(guarded, 413, f"More than {MOST_BYTES:,} bytes.")
                return
            receive = _replay(body)
        await self._app(scope, receive, guarded)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _is_our_name(self, host: str) -> bool:
        """Whether a browser can have come here without another site's name in between."""
        name, port = _split(host)
        if port != self._port:
            return False
        if name in self._names:
            return True
        if not self._is_everywhere:
            return False
        try:  # a number is no name that somebody else's server could give out
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _split(host: str) -> tuple[str, int]:
    """The name, in lower case, and the port of a Host header."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = host, "80"
    return name.strip("[]").lower(), int(port)


def _cookies(header: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return {name: value for name, _, value in pairs}


async def _read(headers: dict[str, str], receive: Receive) -> bytes | None:
    """The body; None where it is too large, of which no more is read."""
    declared = headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > MOST_BYTES:
        return None
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return body


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _answer(
    send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    plain = [(b"content-type", b"text/plain; charset=utf-8"), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": plain})
    await send({"type": "http.response.body", "body": text.encode()})
