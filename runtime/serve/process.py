"""One process of a server: the models, the engine, and both protocols in one event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .engine import Engine
from .gate import AccessLog
from .metrics import Metrics
from .models import load_models
from .settings import ServeSettings


@dataclass(frozen=True)
class Addresses:
    """Where a server listens.

    Attributes:
        http: address of the page and of `/v2`.
        grpc: host:port of gRPC, or None.
    """

    http: str
    grpc: str | None


def serve_process(
    settings: ServeSettings,
    listener: socket.socket,
    on_ready: Callable[[Addresses], None],
    *,
    cores: int,
    is_orphan: Callable[[], bool] = lambda: False,
) -> int:
    """Load the models and serve in this process.

    Args:
        settings: all of it.
        listener: the HTTP socket.
        on_ready: called when requests are welcome.
        cores: of this process.
        is_orphan: asked every second whether to end.
    """
    models = load_models(settings, cores)
    try:
        for model in models:
            model.warm_up()
        metrics = Metrics(settings.queue)
        engine = Engine(
            [model.segmenter for model in models],
            cores=cores,
            queue=settings.queue,
            timeout_s=settings.timeout_s,
            metrics=metrics,
            batch=settings.batch,
            batch_delay_s=settings.batch_delay_ms / 1000,
        )
        access_log = AccessLog(settings.access_log)
        engine.start()
        try:
            from .handling import Server

            server = Server(models, engine, settings, metrics, access_log)
            asyncio.run(_serve(server, listener, on_ready, is_orphan))
        finally:
            engine.stop()
            access_log.close()
    finally:
        models.close()
    return 1 if engine.has_failed else 0


async def _serve(
    server: Any, listener: socket.socket, on_ready: Callable[[Addresses], None], is_orphan: Callable[[], bool]
) -> None:
    from .app import make_app
    from .http_server import HttpServer

    settings, grpc_listener, grpc_address = server.settings, None, None
    if settings.grpc_port is not None:
        from .grpc_server import start_grpc

        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.grpc_port}"
        grpc_listener, port = await start_grpc(server, address, shares_port=settings.workers > 1)
        grpc_address = f"{host}:{port}"

    async def stop_grpc() -> None:
        if grpc_listener is not None:
            await asyncio.sleep(settings.drain_delay_s)
            await grpc_listener.stop(settings.drain_s)

    http = HttpServer(make_app(server), server, stop_grpc)
    http.is_orphan = is_orphan

    async def announce() -> None:
        while not http.started:
            await asyncio.sleep(0.01)
        on_ready(Addresses(describe_address(listener), grpc_address))

    announcing = asyncio.ensure_future(announce())
    try:
        await http.serve([listener])
    finally:
        announcing.cancel()


def describe_address(listener: socket.socket) -> str:
    """The address of a socket for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
