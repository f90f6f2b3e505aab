"""A bundle inside an application of your own: `BUNDLE=bundle uvicorn fastapi_app:app`, then POST an image to /labels.

`atrous serve` does this and more (limits, batching, metrics); use it unless your service is FastAPI already.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from atrous import runtime
from atrous.runtime.images import decode_image
from atrous.runtime.pictures import encode_label_png

MAX_BYTES = 20 << 20


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the bundle once; one Segmenter serves all requests."""
    with runtime.load(os.environ["BUNDLE"]) as segmenter:
        app.state.segmenter = segmenter
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/labels")
async def label(request: Request) -> Response:
    """The labels of the image in the body, as a PNG in the classes' colors."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MAX_BYTES:
            raise HTTPException(413, f"an image may have {MAX_BYTES} bytes")
    segmenter = request.app.state.segmenter
    try:
        labels = await run_in_threadpool(lambda: segmenter(decode_image(content, "the image")))
    except runtime.ImageError as error:
        raise HTTPException(400, str(error)) from error
    return Response(encode_label_png(labels, segmenter.bundle.manifest.palette), media_type="image/png")
