"""The HTTP routes: `/v2` (Open Inference Protocol), `/segment`, `/metrics`, and the page.

Statuses and keys are those of Triton's HTTP server, with one difference: data that does not fill its shape and broken
JSON are 400, where Triton says 500.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ...dependencies import read_version
from ...errors import AtrousError, BackendError, BundleError, RequestError
from .engine import Engine, Job
from .gate import AccessLog, App, BodyBudget, Gate
from .jobs import Answer, SegmentJob, make_http_infer_job
from .metrics import Metrics
from .models import Models
from .settings import ServeSettings

SERVER_NAME = "atrous"
EXTENSIONS = ("binary_tensor_data",)
_log = logging.getLogger("atrous.serve")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


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


def make_app(server: Server) -> App:
    """The ASGI application of a server."""
    routes = [
        Route("/v2", _describe_server),
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _handle(server, _ready)),
        Route("/v2/models/{model}", _handle(server, _describe_model)),
        Route("/v2/models/{model}/versions/{version}", _handle(server, _describe_model)),
        Route("/v2/models/{model}/ready", _handle(server, _model_ready)),
        Route("/v2/models/{model}/versions/{version}/ready", _handle(server, _model_ready)),
        Route("/v2/models/{model}/infer", _handle(server, _infer), methods=["POST"]),
        Route("/v2/models/{model}/versions/{version}/infer", _handle(server, _infer), methods=["POST"]),
        Route("/segment", _handle(server, _segment), methods=["POST"]),
        Route("/metrics", _handle(server, _metrics)),
    ]
    handlers: dict[Any, Any] = {
        AtrousError: _answer_error,
        HTTPException: _answer_http_error,
        ClientDisconnect: _answer_nobody,
        Exception: _answer_bug,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Gate(app, server.settings, server.metrics, server.access_log, lambda: server.is_draining)


def _handle(server: Server, handler: Callable[[Server, Request], Coroutine[Any, Any, Response]]) -> Handler:
    async def call(request: Request) -> Response:
        return await handler(server, request)

    return call


def answer_json(value: Any, status: int = 200) -> Response:
    """An answer of compact JSON."""
    return Response(json.dumps(value, separators=(",", ":")), status, media_type="application/json")


# ---- the protocol ---------------------------------------------------------------------------------------------------


def describe_server() -> dict[str, Any]:
    """The server's metadata."""
    return {"name": SERVER_NAME, "version": read_version("atrous") or "0", "extensions": list(EXTENSIONS)}


async def _describe_server(request: Request) -> Response:
    return answer_json(describe_server())


async def _live(request: Request) -> Response:
    return Response(media_type="text/plain")


async def _ready(server: Server, request: Request) -> Response:
    return Response(status_code=200 if server.is_ready else 400, media_type="text/plain")


async def _describe_model(server: Server, request: Request) -> Response:
    return answer_json(_find_model(server, request).describe())


async def _model_ready(server: Server, request: Request) -> Response:
    try:
        _find_model(server, request)
    except RequestError:
        return answer_json({"error": "Model version not ready"}, 400)
    return Response(status_code=200 if server.is_ready else 400, media_type="text/plain")


async def _infer(server: Server, request: Request) -> Response:
    model = _find_model(server, request)
    headers, settings = request.scope["state"]["headers"], server.settings
    limits = {"max_pixels": settings.max_pixels, "max_bytes": settings.max_body_bytes}
    return await run_body_job(server, request, lambda body: make_http_infer_job(model, body, headers, **limits))


async def _segment(server: Server, request: Request) -> Response:
    query = dict(request.query_params)
    name = query.pop("model", None)
    model = server.models.first if name is None else server.models.find(name)
    request.scope["state"]["model"] = model.name
    headers, settings = request.scope["state"]["headers"], server.settings
    accepted = headers.get("accept", "")
    kind = query.pop("output", "json" if "application/json" in accepted else "labels")
    limits = {"max_pixels": settings.max_pixels, "max_bytes": settings.max_body_bytes}
    return await run_body_job(server, request, lambda body: SegmentJob(model, body, headers, kind, query, **limits))


async def _metrics(server: Server, request: Request) -> Response:
    server.metrics.set_report(server.engine.report())
    text, content_type = server.metrics.expose()
    return Response(text, media_type=content_type)


def _find_model(server: Server, request: Request) -> Any:
    model = server.models.find(request.path_params["model"], request.path_params.get("version", ""))
    request.scope["state"]["model"] = model.name
    return model


# ---- running a job --------------------------------------------------------------------------------------------------


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
    return make_response(server, answer)


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


def make_response(server: Server, answer: Answer, status: int = 200) -> Response:
    """The response of an answer."""
    return Response(answer.body, status, dict(answer.headers))


# ---- errors ---------------------------------------------------------------------------------------------------------


def find_status(error: AtrousError) -> int:
    """The HTTP status of an error: 400 for what the request got wrong, 500 for the server's own faults."""
    if isinstance(error, RequestError):
        return error.status
    return 500 if isinstance(error, (BackendError, BundleError)) else 400


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AtrousError)
    status = find_status(error)
    response = answer_json({"error": str(error)}, status)
    if isinstance(error, RequestError) and error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if status in (408, 413):
        response.headers["Connection"] = "close"  # the rest of the body is not read
    return response


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer_json({"error": error.detail}, error.status_code)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _answer_bug(request: Request, error: Exception) -> Response:
    _log.error("a handler has failed", exc_info=error)
    return answer_json({"error": f"internal error ({type(error).__name__}): the server's log has the details"}, 500)
