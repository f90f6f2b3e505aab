"""Downloads of images, from a server on this machine that behaves in many ways."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from atrous.errors import ImageError
from atrous.runtime.batch.remote import download_image, is_address

pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

Answer = Callable[[socket.socket], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts a server that gives every connection to a function; returns its address."""
    servers: list[socket.socket] = []

    def start(answer: Answer) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        answer(connection)
                    except OSError:
                        pass  # the client has gone, as it should

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/photo.png"

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def respond(head: str, body: bytes = b"") -> Answer:
    return lambda connection: connection.sendall(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode() + body)


def test_addresses() -> None:
    assert is_address("https://a/b.png")
    assert is_address("HTTP://a")
    assert not any(map(is_address, ("ftp://a", "file:///etc/passwd", "http", "photo.png", "-")))


def test_the_bytes(serve: Callable[[Answer], str]) -> None:
    assert download_image(serve(respond("200 OK", b"abc"))) == b"abc"


def test_a_redirect(serve: Callable[[Answer], str]) -> None:
    target = serve(respond("200 OK", b"abc"))
    assert download_image(serve(respond(f"302 Found\r\nLocation: {target}"))) == b"abc"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (respond("404 Not Found"), "HTTP status 404"),
        (respond("302 Found\r\nLocation: file:///etc/passwd"), "cannot be downloaded"),
        (respond("200 OK\r\nContent-Length: 10", b"abc"), "cannot be downloaded"),
        (lambda connection: None, "cannot be downloaded"),
        (respond("200 OK", bytes(2000)), "has more than"),
        (lambda connection: time.sleep(3), "takes more than 1 s"),
    ],
    ids=["missing", "other scheme", "cut off", "no answer", "too large", "silent"],
)
def test_refusals(serve: Callable[[Answer], str], answer: Answer, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        download_image(serve(answer), max_bytes=1000, timeout_s=1)


def test_bytes_that_drip(serve: Callable[[Answer], str]) -> None:
    def drip(connection: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with pytest.raises(ImageError, match="takes more than 1 s"):
        download_image(serve(drip), timeout_s=1)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ImageError, match="cannot be downloaded"):
        download_image(f"http://127.0.0.1:{port}/")
    with pytest.raises(ImageError, match="cannot be downloaded"):
        download_image("http://[")
