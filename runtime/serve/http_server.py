"""uvicorn with an end that loses no request, and without clients that never finish one.

The end, after SIGTERM or Ctrl-C:

1. `ready` is false and answers close their connections; requests are still taken for `drain_delay_s`, in which a load
   balancer notices.
2. Listening ends. Requests on connections that exist are still answered, until no connection has had one for a moment.
3. Idle connections are closed, requests in progress finish within `drain_s`.

A second signal, from a second later on, ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import uvicorn

from .gate import App
from .handling import Server

_TICKS_PER_S = 10
_QUIET_S = 0.2  # without a request in progress, after which step 2 ends
_LONGEST_QUIET_S = 5.0
_BACKLOG = 512


class HttpServer(uvicorn.Server):
    """A uvicorn server; `on_stop` runs beside its end, `on_tick` is called every second."""

    def __init__(self, app: App, server: Server, on_stop: Callable[[], Awaitable[None]]) -> None:
        settings = server.settings
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.max_connections,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        )
        super().__init__(config)
        self._shared, self._on_stop = server, on_stop
        self._waiting: dict[Any, tuple[Any, float]] = {}  # connection without a request -> its state, and since when
        self.is_orphan: Callable[[], bool] = lambda: False

    async def on_tick(self, counter: int) -> bool:
        """Close the connections of clients that are too slow, once a second."""
        if counter % _TICKS_PER_S == 0:
            self._close_slow_connections(time.monotonic())
            if self._shared.engine.is_broken or self.is_orphan():
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """End as the module's docstring says."""
        self._shared.is_draining = True
        stopping = asyncio.ensure_future(self._on_stop())
        await self._sleep(self._shared.settings.drain_delay_s)
        for listener in self.servers:
            listener.close()
        busy_s = start_s = time.monotonic()
        while not self.force_exit and (now_s := time.monotonic()) - busy_s < _QUIET_S:
            if self._has_requests() and now_s - start_s < _LONGEST_QUIET_S:
                busy_s = now_s
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        await stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle SIGTERM and SIGINT during the run; uvicorn's own would raise them again at its end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        first_s = 0.0

        def handle(number: int, frame: Any) -> None:
            nonlocal first_s
            if self.should_exit:
                self.force_exit = time.monotonic() - first_s > 1
            else:
                self.should_exit, first_s = True, time.monotonic()

        numbers = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _sleep(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while not self.force_exit and time.monotonic() < end_s:
            await asyncio.sleep(0.05)

    def _has_requests(self) -> bool:
        connections: Any = self.server_state.connections
        return any(not is_idle(connection) for connection in connections)

    def _close_slow_connections(self, now_s: float) -> None:
        """Close connections whose headers, or whose reading of an answer, made no progress for too long."""
        limit_s, waiting = self._shared.settings.header_timeout_s, {}
        connections: Any = list(self.server_state.connections)
        for connection in connections:
            if not is_idle(connection):
                continue
            state = (id(connection.cycle), connection.transport.get_write_buffer_size())
            before, since_s = self._waiting.get(connection, (None, now_s))
            if before != state:
                since_s = now_s
            if now_s - since_s > limit_s:
                connection.transport.abort()
            waiting[connection] = (state, since_s)
        self._waiting = waiting


def is_idle(connection: Any) -> bool:
    """Whether a connection has no request in progress: between requests, or amid the headers of one."""
    cycle = connection.cycle
    return cycle is None or cycle.response_complete
