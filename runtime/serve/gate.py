"""Everything a request passes before and after its handler: token, origin, identity, headers, metrics, access log.

It is plain ASGI around the routes, so that it sees all answers, those of errors included.

1. Each answer has an `X-Request-Id`: the client's, if it is short and printable, else a new one.
2. With a token, all but health checks and the page's own file need `Authorization: Bearer TOKEN`.
3. A browser may send requests only from the server's own pages (`Origin`), and on a loopback address only by a loopback
   name (`Host`): a page elsewhere must not use a server that runs on its reader's machine.
4. Bodies of all requests together are held within a limit; see `BodyBudget`.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TextIO
from urllib.parse import urlsplit

from ...errors import RequestError
from .metrics import Metrics
from .settings import ServeSettings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/", "/v2/health/live", "/v2/health/ready")
_LONGEST_ID = 64
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_log = logging.getLogger("atrous.serve")


class AccessLog:
    """One JSON object per line and request; `path` "-" is stderr, None no log. Safe for several processes."""

    def __init__(self, path: str | None) -> None:
        self._file: TextIO | None = None
        if path is not None:
            self._file = sys.stderr if path == "-" else open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._file is not sys.stderr:
            self._file.close()
        self._file = None

    def write(self, **entry: Any) -> None:
        """Write a line; an error of the file is reported once and ends the log."""
        if self._file is None:
            return
        try:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
            self._file.write(json.dumps({"time": f"{stamp}Z", **entry}) + "\n")
        except OSError as error:
            _log.error("the access log cannot be written: %s", error.strerror)
            self._file = None


class BodyBudget:
    """The bytes of all bodies that are held, within a limit. Used by one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def take(self, size: int) -> None:
        """Hold bytes; RequestError 503 if they do not fit."""
        if self.used + size > self.limit:
            raise RequestError("the requests in progress take all memory for bodies", status=503, retry_after_s=1)
        self.used += size

    def give_back(self, size: int) -> None:
        """Free bytes."""
        self.used -= size


class Gate:
    """The ASGI application around `app`."""

    def __init__(
        self,
        app: App,
        settings: ServeSettings,
        metrics: Metrics,
        access_log: AccessLog,
        is_draining: Callable[[], bool],
    ) -> None:
        self._app, self._settings, self._metrics, self._access_log = app, settings, metrics, access_log
        self._is_draining = is_draining
        self._is_local = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start_s = time.monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        identity = choose_identity(headers.get("x-request-id", ""))
        state = scope.setdefault("state", {})
        state.update(request_id=identity, model="", timings_ms={}, headers=headers)
        status, size = 0, 0

        async def send_and_count(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identity.encode()), *_HEADERS]
                if self._is_draining():
                    message["headers"].append((b"connection", b"close"))
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            refusal = self._refuse(scope, headers)
            if refusal is not None:
                await send_error(refusal, send_and_count)
            else:
                await self._app(scope, receive, send_and_count)
        finally:
            spent_s = time.monotonic() - start_s
            status = status or 499
            if state["model"]:
                self._metrics.count_request(state["model"], "http", status, spent_s, state["timings_ms"])
            client = scope.get("client")
            self._access_log.write(
                id=identity,
                protocol="http",
                client=client[0] if client else None,
                method=scope["method"],
                path=scope["path"],
                model=state["model"] or None,
                status=status,
                bytes_out=size,
                ms=round(spent_s * 1000, 3),
                stages_ms={name: round(spent, 3) for name, spent in state["timings_ms"].items()},
            )

    def _refuse(self, scope: Scope, headers: dict[str, str]) -> RequestError | None:
        host = headers.get("host", "")
        if self._is_local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return RequestError("this address is only for this machine: use localhost or 127.0.0.1", status=403)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return RequestError("pages of other origins may not use this server", status=403)
        token = self._settings.token
        if token is None or scope["path"] in OPEN_PATHS:
            return None
        if not is_authorized(headers.get("authorization", "").encode("latin-1"), token):
            return RequestError("this server needs the header Authorization: Bearer TOKEN", status=401)
        return None


def is_authorized(given: bytes, token: str) -> bool:
    """Whether the bytes of an `Authorization` header hold the token."""
    return hmac.compare_digest(given, f"Bearer {token}".encode())


def choose_identity(given: str) -> str:
    """The identity of a request: the client's, if it fits into a log and a header, else a new one."""
    is_plain = given.isascii() and given.replace("-", "").replace("_", "").isalnum()
    return given if is_plain and len(given) <= _LONGEST_ID else secrets.token_hex(8)


async def send_error(error: RequestError, send: Send) -> None:
    """Send an error as JSON."""
    headers = [(b"content-type", b"application/json")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    body = json.dumps({"error": str(error)}).encode()
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
