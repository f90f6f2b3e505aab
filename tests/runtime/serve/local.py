"""A server in this process, on the fake backend, whose every run takes a known time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atrous.runtime.serve import ServeSettings
from atrous.runtime.serve.app import make_app
from atrous.runtime.serve.engine import Engine
from atrous.runtime.serve.gate import AccessLog, App
from atrous.runtime.serve.handling import Server
from atrous.runtime.serve.http_server import HttpServer
from atrous.runtime.serve.metrics import Metrics
from atrous.runtime.serve.models import load_models
from atrous.runtime.serve.process import describe_address
from atrous.runtime.serve.server import open_socket

from ..bundles import CRF, write_bundle


@dataclass(frozen=True)
class Local:
    """A server and its application; `url` if it listens."""

    server: Server
    app: App
    url: str = ""
    http: Any = None


@contextlib.contextmanager
def make_local(
    folder: Path, *, delay_ms: float = 0.0, fail_on: int = 0, memory_bytes: int | None = None, **settings: Any
) -> Iterator[Local]:
    """A server of the bundle "four-colors" without a socket: `app` is called directly."""
    write_bundle(folder, crf=CRF)
    options = {"delay_ms": delay_ms, "fail_on": fail_on}
    load = {"backend": "fake", "options": options, "memory_bytes": memory_bytes}
    chosen = ServeSettings(bundles={"colors": str(folder)}, load=load, port=0, **settings)
    models = load_models(chosen, 2)
    metrics = Metrics(chosen.queue)
    engine = Engine(
        [model.segmenter for model in models],
        cores=2,
        queue=chosen.queue,
        timeout_s=chosen.timeout_s,
        metrics=metrics,
        batch=chosen.batch,
        batch_delay_s=chosen.batch_delay_ms / 1000,
    )
    access_log = AccessLog(chosen.access_log)
    engine.start()
    try:
        server = Server(models, engine, chosen, metrics, access_log)
        yield Local(server, make_app(server))
    finally:
        engine.stop()
        models.close()
        access_log.close()


@contextlib.contextmanager
def run_local(folder: Path, **settings: Any) -> Iterator[Local]:
    """The same, listening on a free port of this machine."""
    with make_local(folder, **settings) as local, open_socket("127.0.0.1", 0) as listener:

        async def stop() -> None:
            return

        http = HttpServer(local.app, local.server, stop)
        thread = threading.Thread(target=lambda: asyncio.run(http.serve([listener])))
        url = describe_address(listener)
        thread.start()
        while not http.started:
            thread.join(0.01)
            assert thread.is_alive()
        try:
            yield Local(local.server, local.app, url, http)
        finally:
            http.should_exit = True
            thread.join()
