"""A web server on 127.0.0.1 whose routes behave or misbehave."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DATE = "Wed, 04 Mar 2015 10:00:00 GMT"
LATER = "Thu, 05 Mar 2015 10:00:00 GMT"

_LONG_S = 3.0  # longer than every deadline of the tests

Route = Callable[["Handler"], None]


@dataclass
class Site:
    """Routes, and the requests so far."""

    port: int = 0
    routes: dict[str, Route] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"

    def serve(self, path: str, route: Route) -> str:
        """Serve a route at a path; returns its address."""
        self.routes[f"/{path}"] = route
        return self.url(path)

    def ranges(self) -> list[str]:
        """The Range header of each request, empty where there was none."""
        return [headers.get("Range", "") for _, _, headers in self.seen]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.site.seen.append((self.command, self.path, dict(self.headers.items())))
        self.close_connection = True
        self.site.routes.get(self.path, status(404))(self)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, code: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(code)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.wfile.flush()

    def hang_up(self) -> None:
        """End the connection as it is."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # tests disconnect


@contextmanager
def running_site() -> Iterator[Site]:
    site = Site()
    server = _Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"site": site}))
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def whole(
    content: bytes, *, etag: str = '"v1"', date: str = DATE, ranges: bool = True, send: int | None = None
) -> Route:
    """A correct server; with `send`, one whose connections break after that many bytes of the body."""

    def route(handler: Handler) -> None:
        headers = {"Content-Length": str(len(content)), "Accept-Ranges": "bytes"}
        headers |= {"ETag": etag} if etag else {}
        headers |= {"Last-Modified": date} if date else {}
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        valid = handler.headers.get("If-Range") in (None, etag, date)
        if asked is None or not ranges or not valid:
            handler.answer(200, headers, content[:send])
        elif int(asked[1]) >= len(content):
            handler.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}, b"")
        else:
            start = int(asked[1])
            rest = content[start:]
            headers |= {"Content-Length": str(len(rest))}
            headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            handler.answer(206, headers, rest[:send])
        if send is not None:
            handler.hang_up()

    return route


def in_turn(*routes: Route) -> Route:
    """One route for each request; the last one stays."""
    waiting = list(routes)

    def route(handler: Handler) -> None:
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(handler)

    return route


def status(code: int, body: bytes = b"", **headers: str) -> Route:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.answer(code, {"Content-Length": str(len(body)), **named}, body)


def redirect(url: str, code: int = 302) -> Route:
    return status(code, Location=url)


def page(text: str = "<!DOCTYPE html><title>Sign in</title>", size: int = 4000) -> Route:
    """An HTML page with status 200."""
    return status(200, text.encode().ljust(size), Content_Type="text/html")


def partial(content: bytes, start: int, stop: int, total: str, *, etag: str = '"v1"', date: str = DATE) -> Route:
    """A 206 with this body and these headers for any request."""
    headers = {"Content-Range": f"bytes {start}-{stop}/{total}", "Content-Length": str(len(content)), "ETag": etag}
    return lambda handler: handler.answer(206, {**headers, "Last-Modified": date}, content)


def chunked(content: bytes, *, complete: bool = True) -> Route:
    """Chunks without Content-Length; with `complete=False` the last one is truncated."""

    def route(handler: Handler) -> None:
        body = b"".join(
            b"%x\r\n%s\r\n" % (len(part), part)
            for part in (content[i : i + 70_000] for i in range(0, len(content), 70_000))
        )
        handler.answer(200, {"Transfer-Encoding": "chunked"}, body + b"0\r\n\r\n" if complete else body[:-1000])
        if not complete:
            handler.hang_up()

    return route


def until_close(content: bytes) -> Route:
    """Neither length nor chunks: the file ends with the connection."""
    return lambda handler: handler.answer(200, {}, content)


def stall(content: bytes, after: int) -> Route:
    """A body that stops after some bytes, without closing the connection."""

    def route(handler: Handler) -> None:
        handler.answer(200, {"Content-Length": str(len(content)), "ETag": '"v1"'}, content[:after])
        time.sleep(_LONG_S)

    return route


def drip(start: bytes, drop: bytes) -> Route:
    """Raw bytes, then one drop after another for a long time."""

    def route(handler: Handler) -> None:
        end = time.monotonic() + _LONG_S
        handler.wfile.write(start)
        while time.monotonic() < end:
            handler.wfile.write(drop)
            handler.wfile.flush()
            time.sleep(0.02)

    return route


def silence(handler: Handler) -> None:
    """No response."""
    time.sleep(_LONG_S)


def raw(data: bytes) -> Route:
    """Any bytes, then the end of the connection."""

    def route(handler: Handler) -> None:
        handler.wfile.write(data)
        handler.hang_up()

    return route
