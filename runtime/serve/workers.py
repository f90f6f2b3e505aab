"""Several processes on one socket: each loads all models, and a process that dies is replaced."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import connection
from typing import Any

from ...dependencies import import_optional
from ..memory import find_limit_bytes
from ..pipeline.engine import count_cores
from ..tiles.planner import FREE_SHARE
from .metrics import FOLDER_VARIABLE
from .process import Addresses, serve_process
from .settings import ServeSettings

_MOST_RESTARTS = 5  # within `_RESTART_WINDOW_S`, after which the server ends
_RESTART_WINDOW_S = 60.0


class _Worker:
    """A process and the pipe by which it says that it is ready."""

    def __init__(self, settings: ServeSettings, listener: socket.socket, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.reader, writer = context.Pipe(duplex=False)
        self.is_ready = False
        self.process = context.Process(target=_work, args=(settings, listener, writer, cores, os.getpid()))
        self.process.start()
        writer.close()


def run_workers(settings: ServeSettings, listener: socket.socket, on_ready: Callable[[Addresses], None]) -> int:
    """Serve in `settings.workers` processes until SIGTERM or Ctrl-C; returns the exit code."""
    if settings.grpc_port == 0:
        settings = replace(settings, grpc_port=_find_free_port(settings.host))
    settings = share_memory(settings)
    cores = max(1, (settings.cores or count_cores()) // settings.workers)
    with tempfile.TemporaryDirectory(prefix="atrous-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            return _supervise(settings, listener, on_ready, cores)
        finally:
            del os.environ[FOLDER_VARIABLE]


def share_memory(settings: ServeSettings) -> ServeSettings:
    """The settings of each process: an equal share of the memory given, or of three quarters of what is free."""
    memory = settings.load.get("memory_bytes") or FREE_SHARE * find_limit_bytes()
    if math.isinf(memory):
        return settings
    return replace(settings, load={**settings.load, "memory_bytes": max(1, int(memory / settings.workers))})


def _supervise(
    settings: ServeSettings, listener: socket.socket, on_ready: Callable[[Addresses], None], cores: int
) -> int:
    stops = 0

    def stop(number: int, frame: Any) -> None:
        nonlocal stops
        stops += 1

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    workers = [_Worker(settings, listener, cores) for _ in range(settings.workers)]
    restarts_s: deque[float] = deque(maxlen=_MOST_RESTARTS)
    code, sent, announced = 0, 0, False
    try:
        while workers:
            waited = [one.process.sentinel for one in workers] + [one.reader for one in workers if not one.is_ready]
            connection.wait(waited, timeout=0.2)
            for worker in workers:
                if not worker.is_ready and worker.reader.poll():
                    addresses = _receive(worker)
                    if addresses is not None and not announced and all(one.is_ready for one in workers):
                        on_ready(addresses)
                        announced = True
            for worker in [one for one in workers if not one.process.is_alive()]:
                workers.remove(worker)
                exit_code = worker.process.exitcode or 0
                _forget(worker)
                if stops or (exit_code == 0 and not worker.is_ready):
                    continue
                restarts_s.append(time.monotonic())
                is_hopeless = len(restarts_s) == _MOST_RESTARTS and restarts_s[-1] - restarts_s[0] < _RESTART_WINDOW_S
                if not worker.is_ready or is_hopeless:
                    code, stops = abs(exit_code) or 1, 1
                else:
                    workers.append(_Worker(settings, listener, cores))
            if stops > sent:
                sent = stops
                for worker in workers:
                    worker.process.terminate()
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    return code


def _receive(worker: _Worker) -> Addresses | None:
    """The message of a worker, which is ready; None if it has died."""
    try:
        addresses: Addresses = worker.reader.recv()
    except (EOFError, OSError):
        worker.reader.close()
        return None
    worker.is_ready = True
    return addresses


def _forget(worker: _Worker) -> None:
    """Remove the gauges of a process that has ended from the metrics."""
    worker.process.join()
    if worker.process.pid is not None:
        import_optional("prometheus_client.multiprocess").mark_process_dead(worker.process.pid)


def _work(settings: ServeSettings, listener: socket.socket, writer: Any, cores: int, parent: int) -> None:
    """The main function of a process."""
    import sys

    from ...errors import AtrousError

    def announce(addresses: Addresses) -> None:
        writer.send(addresses)
        writer.close()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all; the parent passes on one SIGTERM
    try:
        code = serve_process(settings, listener, announce, cores=cores, is_orphan=lambda: os.getppid() != parent)
    except AtrousError as error:
        print(f"atrous: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


def _find_free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
