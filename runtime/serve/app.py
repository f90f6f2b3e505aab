"""The HTTP routes: `/v2` (Open Inference Protocol), `/segment`, `/metrics`, and the page.

Statuses and keys are those of Triton's HTTP server, with one difference: data that does not fill its shape and broken
JSON are 400, where Triton says 500.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ...errors import AtrousError, RequestError
from .gate import App, Gate
from .handling import Server, answer_json, describe_server, find_status, run_body_job
from .jobs import SegmentJob, make_http_infer_job
from .page_routes import make_page_routes

_log = logging.getLogger("atrous.serve")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


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
        *make_page_routes(server),
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


# ---- the protocol ---------------------------------------------------------------------------------------------------


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
    headers, limits = request.scope["state"]["headers"], server.settings.body_limits
    return await run_body_job(server, request, lambda body: make_http_infer_job(model, body, headers, **limits))


async def _segment(server: Server, request: Request) -> Response:
    query = dict(request.query_params)
    name = query.pop("model", None)
    model = server.models.first if name is None else server.models.find(name)
    request.scope["state"]["model"] = model.name
    headers, limits = request.scope["state"]["headers"], server.settings.body_limits
    accepted = headers.get("accept", "")
    kind = query.pop("output", "json" if "application/json" in accepted else "labels")
    return await run_body_job(server, request, lambda body: SegmentJob(model, body, headers, kind, query, **limits))


async def _metrics(server: Server, request: Request) -> Response:
    server.metrics.set_report(server.engine.report())
    text, content_type = server.metrics.expose()
    return Response(text, media_type=content_type)


def _find_model(server: Server, request: Request) -> Any:
    model = server.models.find(request.path_params["model"], request.path_params.get("version", ""))
    request.scope["state"]["model"] = model.name
    return model


# ---- errors ---------------------------------------------------------------------------------------------------------


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
