"""A server in a process of its own, and what is read from outside: memory, files, threads."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil


@dataclass(frozen=True)
class Running:
    """A server, its port and its process."""

    port: int
    model: str
    process: subprocess.Popen[str]

    def connect(self, timeout_s: float = 60.0) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a request over a new connection."""
        connection = self.connect()
        try:
            connection.request("POST", path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def measure(self) -> dict[str, float]:
        """Resident memory in MB, open files and threads."""
        process = psutil.Process(self.process.pid)
        with process.oneshot():
            rss = process.memory_info().rss / 1e6
            return {"rss_mb": round(rss, 1), "files": process.num_fds(), "threads": process.num_threads()}


@contextlib.contextmanager
def run_server(bundle: Path, *options: object) -> Iterator[Running]:
    """Start `atrous serve` on a free port; ends it by SIGTERM."""
    line = [sys.executable, "-m", "atrous.scripts.main", "serve", str(bundle), "--port", "0", "--json"]
    process = subprocess.Popen([*line, *map(str, options)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = ""
    try:
        while not text.rstrip().endswith("}"):
            read = process.stdout.readline()
            if not read:
                raise SystemExit("the server ended before it was ready")
            text += read
        found = json.loads(text)
        port = urlsplit(found["http"]).port
        assert port is not None
        yield Running(port, found["models"][0], process)
    finally:
        process.terminate()
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def list_files(folder: Path) -> list[Path]:
    """The images of a folder."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not found:
        raise SystemExit(f"{folder} has no images")
    return found
