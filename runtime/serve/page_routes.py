"""The routes of the page: the page itself, the models it lists, and its images."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...errors import RequestError
from ..pictures import make_lookup
from .handling import Server, answer_json, make_response, read_body, run_body_job, run_job
from .models import Model
from .page_images import MAX_PIXELS, OpenImageJob, PageImages, RefineJob

_PATH = Path(__file__).with_name("page.html")
_MOST_JSON_BYTES = 1 << 14


def make_page_routes(server: Server) -> list[Route]:
    """The routes of a server's page."""
    html = _PATH.read_text(encoding="utf-8")
    policy = make_policy(html)
    images = PageImages(server.settings.sessions)
    settings = server.settings

    async def show(request: Request) -> Response:
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})

    async def list_models(request: Request) -> Response:
        models = [describe_model(model) for model in server.models]
        return answer_json({"models": models, "max_pixels": min(MAX_PIXELS, settings.max_pixels)})

    async def open_image(request: Request) -> Response:
        query = dict(request.query_params)
        model = server.models.find(query.pop("model", server.models.first.name))
        state = request.scope["state"]
        state["model"] = model.name
        headers, limits = state["headers"], settings.body_limits
        return await run_body_job(
            server, request, lambda body: OpenImageJob(model, body, headers, query, images, **limits)
        )

    async def refine_image(request: Request) -> Response:
        model, image = server.models.find(request.path_params["model"]), images.find(request.path_params["image"])
        request.scope["state"]["model"] = model.name
        body = await read_body(server, request)
        server.bodies.give_back(len(body))
        wanted = read_settings(body)
        job = RefineJob(model, image, wanted["parameters"], wanted["kind"])
        return make_response(await run_job(server, request, job))

    async def close_image(request: Request) -> Response:
        images.remove(request.path_params["image"])
        return Response(status_code=204)

    return [
        Route("/", show),
        Route("/page/models", list_models),
        Route("/page/images", open_image, methods=["POST"]),
        Route("/page/images/{model}/{image}", refine_image, methods=["POST"]),
        Route("/page/images/{model}/{image}", close_image, methods=["DELETE"]),
    ]


def make_policy(html: str) -> str:
    """The content policy of the page: its own script and style by their digests, pictures it makes, this server."""

    def digest(tag: str) -> str:
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()

    return (
        f"default-src 'none'; script-src 'sha256-{digest('script')}'; style-src 'sha256-{digest('style')}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def describe_model(model: Model) -> dict[str, Any]:
    """The facts about a model that the page shows."""
    segmenter = model.segmenter
    colors = make_lookup(model.palette).tolist()
    return {
        "name": model.name,
        "precision": segmenter.precision,
        "backend": segmenter.backend.name,
        "classes": [{"name": name, "color": colors[index]} for index, name in enumerate(model.classes)],
        "crf": None if segmenter.crf is None else segmenter.crf.to_dict(),
    }


def read_settings(body: bytes) -> dict[str, Any]:
    """The JSON of a move: {"parameters": {...}, "kind": "preview", "fast" or "exact"}."""
    if len(body) > _MOST_JSON_BYTES:
        raise RequestError(f"a move has at most {_MOST_JSON_BYTES} bytes", status=413)
    try:
        root = json.loads(body)
    except (ValueError, RecursionError):
        root = None
    is_move = isinstance(root, dict) and isinstance(root.get("parameters"), dict) and isinstance(root.get("kind"), str)
    if not is_move:
        raise RequestError('a move is {"parameters": {...}, "kind": "preview", "fast" or "exact"}')
    return dict(root)
