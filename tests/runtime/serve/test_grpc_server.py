"""gRPC below the protocol: the token before the body, bytes that are not a message, slow bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atrous.runtime.serve.grpc_server import load_messages, start_grpc

from .local import Local, make_local

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

TOKEN = "0123456789abcdef"
AUTHORIZED = (("authorization", f"Bearer {TOKEN}"),)


def ask(local: Local, name: str, content: bytes | None, metadata: Any = ()) -> tuple[str, Any]:
    """The name of the status, and the answer's bytes or the error's text; None never sends a message."""

    async def send() -> AsyncIterator[bytes]:
        if content is None:
            await asyncio.sleep(60)
        yield content or b""

    async def run() -> tuple[str, Any]:
        listener, port = await start_grpc(local.server, "127.0.0.1:0", shares_port=False)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.stream_unary(f"/inference.GRPCInferenceService/{name}")
                try:
                    return "OK", await asyncio.wait_for(call(send(), metadata=metadata), 20)
                except grpc.aio.AioRpcError as error:
                    return error.code().name, error.details()
        finally:
            await listener.stop(0)

    return asyncio.run(run())


def test_the_token_is_checked_before_the_body_is_there(tmp_path: Path) -> None:
    with make_local(tmp_path, token=TOKEN, body_timeout_s=0.3) as local:
        assert ask(local, "ModelInfer", None) == (
            "UNAUTHENTICATED",
            "this server needs the metadata authorization: Bearer TOKEN",
        )
        assert ask(local, "ModelInfer", None, AUTHORIZED) == (
            "DEADLINE_EXCEEDED",
            "the message did not arrive within 0.3 seconds",
        )
        assert ask(local, "ServerLive", b"")[0] == "OK"
        assert "atrous_requests_total{" not in local.server.metrics.expose()[0].decode()


@pytest.mark.parametrize(
    ("name", "content", "status", "part"),
    [
        ("ModelInfer", b"\xff\xff\xff", "INVALID_ARGUMENT", "not a ModelInferRequest of the protocol"),
        ("ModelMetadata", b"hello", "INVALID_ARGUMENT", "not a ModelMetadataRequest of the protocol"),
        ("ModelInfer", b"", "NOT_FOUND", "unknown model: '' is not found"),
        ("ModelInfer", bytes(2 << 20), "RESOURCE_EXHAUSTED", "larger than max"),
        ("Nothing", b"", "UNIMPLEMENTED", ""),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, content: bytes, status: str, part: str) -> None:
    with make_local(tmp_path, max_body_bytes=1 << 20) as local:
        found, text = ask(local, name, content)
    assert found == status
    assert part in text


def test_metadata_of_a_model(tmp_path: Path) -> None:
    classes, _ = load_messages()
    with make_local(tmp_path) as local:
        status, content = ask(
            local, "ModelMetadata", classes["ModelMetadataRequest"](name="colors").SerializeToString()
        )
    assert status == "OK"
    outputs = classes["ModelMetadataResponse"].FromString(content).outputs
    assert {output.name: list(output.shape) for output in outputs}["labels_png"] == [1, 1]
