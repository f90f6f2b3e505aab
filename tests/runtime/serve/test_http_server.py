"""Connections: slow and vanished clients, and an end that answers what was sent."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from atrous.runtime.pictures import encode_png

from ..bundles import make_image
from .local import Local, run_local

PNG = encode_png(make_image(20, 30))


def connect(local: Local) -> Any:
    parts = urlsplit(local.url)
    return contextlib.closing(socket.create_connection((parts.hostname, parts.port), timeout=20))


def head(path: str = "/segment") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(PNG)}\r\n\r\n".encode()


def wait_until(condition: Any, longest_s: float = 10.0) -> None:
    end_s = time.monotonic() + longest_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_unfinished_headers_are_cut_off(tmp_path: Path) -> None:
    with run_local(tmp_path, header_timeout_s=0.5) as local, connect(local) as slow, connect(local) as silent:
        slow.sendall(b"POST /segment HTTP/1.1\r\nX: ")
        for client in (slow, silent):
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""
        assert httpx.get(f"{local.url}/v2/health/ready").status_code == 200


def test_a_client_that_leaves_cancels_its_request(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with run_local(tmp_path / "bundle", delay_ms=300, access_log=str(log)) as local:
        with connect(local) as client:
            client.sendall(head() + PNG)
            wait_until(lambda: local.server.engine.open_jobs == 1)
        wait_until(lambda: local.server.engine.open_jobs == 0)
        wait_until(lambda: log.exists() and log.read_text())
        with connect(local) as client:  # half a body
            client.sendall(head() + PNG[:50])
        wait_until(lambda: len(log.read_text().splitlines()) == 2)
        assert local.server.bodies.used == 0
        assert httpx.post(f"{local.url}/segment", content=PNG).status_code == 200
    assert [json.loads(line)["status"] for line in log.read_text().splitlines()][:2] == [499, 499]


def test_the_end_answers_what_was_sent(tmp_path: Path) -> None:
    """Requests in the queue, one whose body is still on its way, and an idle connection."""
    statuses: list[int] = []
    with run_local(tmp_path, delay_ms=60, queue=20) as local:
        clients = [httpx.Client() for _ in range(6)]
        late = socket.create_connection((urlsplit(local.url).hostname, urlsplit(local.url).port), timeout=20)
        late.sendall(head() + PNG[:50])

        def ask(client: httpx.Client) -> None:
            statuses.append(client.post(f"{local.url}/segment", content=PNG, timeout=30).status_code)

        idle = httpx.Client()
        idle.get(f"{local.url}/v2")
        threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        wait_until(lambda: local.server.engine.open_jobs == 6)
        local.http.should_exit = True
        wait_until(lambda: local.server.is_draining)
        assert not local.server.is_ready
        late.sendall(PNG[50:])
        answer = late.recv(1 << 16)
        for thread in threads:
            thread.join()
        for client in (*clients, idle):
            client.close()
        late.close()
    assert statuses == [200] * 6
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()


def test_more_connections_than_allowed(tmp_path: Path) -> None:
    with run_local(tmp_path, max_connections=3) as local, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(local)).sendall(b"GET /v2 HTTP/1.1\r\nX: ")
        assert httpx.get(f"{local.url}/v2").status_code == 503
