"""Requests that a public server meets: each fault with its answers, while another client asks for labels."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from .running import Running

_GIGABYTE = 1_000_000_000


class HealthyClient:
    """Asks for labels again and again, and compares them with the first answer."""

    def __init__(self, server: Running, body: bytes) -> None:
        self._server, self._body, self._is_over = server, body, threading.Event()
        _, self._expected = server.post("/segment", body)
        self.statuses: Counter[str] = Counter()
        self.times_ms: list[float] = []
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._is_over.is_set():
            start_s = time.perf_counter()
            try:
                status, answer = self._server.post("/segment", self._body)
            except OSError as error:
                self.statuses[type(error).__name__] += 1
                continue
            self.times_ms.append((time.perf_counter() - start_s) * 1000)
            self.statuses[str(status) if status != 200 or answer == self._expected else "wrong"] += 1

    def __enter__(self) -> HealthyClient:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        self._is_over.set()
        self._thread.join()


def open_socket(server: Running, timeout_s: float = 60.0) -> socket.socket:
    """A plain connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s)


def read_status(connection: socket.socket) -> str:
    """The status of an answer; "closed" if the server closed the connection without one."""
    try:
        head = connection.recv(4096)
    except TimeoutError:
        return "timeout"
    except OSError:
        return "reset"
    return head.split(b" ", 2)[1].decode() if head.startswith(b"HTTP/") else "closed"


def send_slowly(server: Running, body: bytes) -> str:
    """Headers, a byte every half second: the server has to end this by itself."""
    with contextlib.closing(open_socket(server)) as connection:
        connection.settimeout(0.5)
        for byte in b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"a" * 200:
            try:
                connection.sendall(bytes([byte]))
                if not connection.recv(1):
                    return "closed"
            except TimeoutError:
                continue
            except OSError:
                return "closed"
        return "still open"


def send_half(server: Running, body: bytes) -> str:
    """Half a body, then the end."""
    with contextlib.closing(open_socket(server)) as connection:
        head = f"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[: len(body) // 2])
    return "left"


def send_and_leave(server: Running, body: bytes) -> str:
    """A whole request of a long CRF, then the end before the answer."""
    with contextlib.closing(open_socket(server)) as connection:
        head = f"POST /segment?iterations=100 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(0.05)
    return "left"


def announce_gigabyte(server: Running, body: bytes) -> str:
    """A body of a gigabyte, announced."""
    with contextlib.closing(open_socket(server)) as connection:
        connection.sendall(f"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {_GIGABYTE}\r\n\r\n".encode())
        return read_status(connection)


def stream_gigabyte(server: Running, body: bytes) -> str:
    """A body of a gigabyte in chunks, not announced."""
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with contextlib.closing(open_socket(server)) as connection:
        connection.sendall(b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(_GIGABYTE >> 20):
                connection.sendall(chunk)
            return "read it all"
        return read_status(connection)


def send_bomb(server: Running, body: bytes) -> str:
    """A PNG of 400 million pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return str(server.post("/segment", image + chunk(b"IEND", b""))[0])


def send_gzip_bomb(server: Running, body: bytes) -> str:
    """A gigabyte of zeros in a megabyte of gzip."""
    compressor = zlib.compressobj(9, wbits=31)
    packed = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(1000)) + compressor.flush()
    return str(server.post("/segment", packed, {"Content-Encoding": "gzip"})[0])


def send_wrong_tensor(server: Running, body: bytes) -> str:
    """A tensor of another datatype."""
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 2, 2, 3], "data": [0.5] * 12}
    return str(server.post(f"/v2/models/{server.model}/infer", json.dumps({"inputs": [tensor]}).encode())[0])


def connect(server: Running, body: bytes) -> str:
    """A connection with one small request."""
    connection = server.connect()
    try:
        connection.request("GET", "/v2/health/ready")
        return str(connection.getresponse().status)
    finally:
        connection.close()


#: name -> (request, times, at once)
FAULTS: dict[str, tuple[Callable[[Running, bytes], str], int, int]] = {
    "slow headers": (send_slowly, 50, 50),
    "half a body": (send_half, 200, 20),
    "cancelled": (send_and_leave, 100, 10),
    "1 GB announced": (announce_gigabyte, 20, 10),
    "1 GB in chunks": (stream_gigabyte, 4, 2),
    "PNG bomb": (send_bomb, 100, 10),
    "gzip bomb": (send_gzip_bomb, 4, 1),
    "wrong datatype": (send_wrong_tensor, 200, 10),
    "10,000 connections": (connect, 10_000, 20),
}


def run_faults(server: Running, body: bytes) -> Iterator[dict[str, Any]]:
    """Run each fault beside a healthy client; yields its answers, and the server before and after."""
    for name, (send, times, at_once) in FAULTS.items():
        before, start_s = server.measure(), time.perf_counter()
        with HealthyClient(server, body) as client, ThreadPoolExecutor(at_once) as pool:
            answers = Counter(pool.map(lambda index, send=send: send(server, body), range(times)))
        spent_s = time.perf_counter() - start_s
        while server.measure()["files"] > before["files"] and time.perf_counter() - start_s < spent_s + 15:
            time.sleep(0.1)
        yield {
            "fault": name,
            "answers": dict(answers),
            "seconds": round(spent_s, 1),
            "healthy": dict(client.statuses),
            "healthy_p50_ms": round(median(client.times_ms), 1) if client.times_ms else None,
            "before": before,
            "after": server.measure(),
        }
