"""Common steps of the handlers: read a body within limits, run a job while the client is there, answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...dependencies import read_version
from ...errors import AtrousError, BackendError, BundleError, MemoryLimitError, RequestError
from .engine import Engine, Job
from .gate import AccessLog, BodyBudget
from .jobs import Answer
from .metrics import Metrics
from .models import Models
from .settings import ServeSettings

SERVER_NAME = "atrous"
EXTENSIONS = ("binary_tensor_data",)


class Server:
    """The state that the handlers share.

    Attributes:
        models: the loaded bundles.
        engine: runs the jobs.
        settings: limits.
        metrics: of this process.
        access_log: of this process.
        is_draining: whether the server is about to end: it is no longer ready, and connections are closed.
    """

    def __init__(
        self, models: Models, engine: Engine, settings: ServeSettings, metrics: Metrics, access_log: AccessLog
    ) -> None:
        self.models, self.engine, self.settings = models, engine, settings
        self.metrics, self.access_log = metrics, access_log
        self.bodies = BodyBudget(settings.max_held_bytes)
        self.is_draining = False

    @property
    def is_ready(self) -> bool:
        """Whether requests are welcome."""
        return not self.is_draining and not self.engine.is_broken


def answer_json(value: Any, status: int = 200) -> Response:
    """An answer of compact JSON."""
    return Response(json.dumps(value, separators=(",", ":")), status, media_type="application/json")


def describe_server() -> dict[str, Any]:
    """The server's metadata."""
    return {"name": SERVER_NAME, "version": read_version("atrous") or "0", "extensions": list(EXTENSIONS)}


def find_status(error: AtrousError) -> int:
    """The HTTP status of an error: 400 for what the request got wrong, 500 for the server's own faults."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, MemoryLimitError):
        return 413
    return 500 if isinstance(error, (BackendError, BundleError)) else 400


async def run_body_job(server: Server, request: Request, make_job: Callable[[bytes], Job]) -> Response:
    """Read the body, run its job while the client is there, and answer."""
    held = 0
    try:
        body = await read_body(server, request)
        held = len(body)
        job = make_job(body)
        del body  # the job holds it until it is parsed
        answer = await run_job(server, request, job)
    finally:
        server.bodies.give_back(held)
    return make_response(answer)


async def run_job(server: Server, request: Request, job: Job) -> Any:
    """Run a job; if the client goes away, it is cancelled and ClientDisconnect is raised."""
    request.scope["state"]["timings_ms"] = job.timings_ms
    task = asyncio.ensure_future(server.engine.run(job))
    gone = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for left in (task, gone):
            left.cancel()


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def read_body(server: Server, request: Request) -> bytes:
    """The body of a request, held in the server's budget; the caller gives its length back.

    Raises:
        RequestError: 413 if it is too large, 408 if it takes too long, 503 if the budget is used up.
        ClientDisconnect: if the client goes away.
    """
    limit, budget = server.settings.max_body_bytes, server.bodies
    length = request.headers.get("content-length")
    if length is not None and int(length) > limit:
        raise RequestError(f"the body has {length} bytes; the limit is {limit}", status=413)
    chunks: list[bytes] = []
    held = 0

    async def read() -> None:
        nonlocal held
        async for chunk in request.stream():
            if held + len(chunk) > limit:
                raise RequestError(f"the body has more than {limit} bytes", status=413)
            budget.take(len(chunk))
            held += len(chunk)
            chunks.append(chunk)

    try:
        await asyncio.wait_for(read(), server.settings.body_timeout_s)
    except asyncio.TimeoutError:
        budget.give_back(held)
        seconds = server.settings.body_timeout_s
        raise RequestError(f"the body did not arrive within {seconds:g} seconds", status=408) from None
    except BaseException:
        budget.give_back(held)
        raise
    return b"".join(chunks)


def make_response(answer: Answer) -> Response:
    """The response of an answer."""
    return Response(answer.body, headers=dict(answer.headers))
