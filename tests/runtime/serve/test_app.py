from __future__ import annotations

import asyncio
import gzip
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from atrous.runtime.memory import find_limit_bytes
from atrous.runtime.pictures import encode_png
from atrous.runtime.serve import ServeSettings
from atrous.runtime.serve.workers import share_memory

from ..bundles import CLASSES, make_image
from .local import Local, make_local

IMAGE = make_image(30, 41)
PNG = encode_png(IMAGE)
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with make_local(
        tmp_path_factory.mktemp("bundle"), max_body_bytes=1 << 20, max_pixels=10_000, body_timeout_s=0.2
    ) as found:
        yield found


def call(local: Local, method: str, path: str, **options: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(local.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


def direct(local: Local) -> np.ndarray:
    labels: np.ndarray = local.server.models.first.segmenter(IMAGE)
    return labels


def read_labels(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(answer.content)))


def make_request(**fields: Any) -> bytes:
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    return json.dumps({"inputs": [image], **fields}).encode()


def test_a_file_becomes_a_palette_png(local: Local) -> None:
    answer = call(local, "POST", "/segment", content=PNG)
    np.testing.assert_array_equal(read_labels(answer), direct(local))
    assert answer.headers["content-type"] == "image/png"


def test_a_form_and_a_compressed_body(local: Local) -> None:
    form = call(local, "POST", "/segment", files={"image": ("a.png", PNG)}, data={"note": "x"})
    np.testing.assert_array_equal(read_labels(form), direct(local))
    packed = call(local, "POST", "/segment", content=gzip.compress(PNG), headers={"Content-Encoding": "gzip"})
    np.testing.assert_array_equal(read_labels(packed), direct(local))
    packed = call(local, "POST", "/segment", content=zlib.compress(PNG), headers={"Content-Encoding": "deflate"})
    np.testing.assert_array_equal(read_labels(packed), direct(local))


def test_run_lengths_and_shares(local: Local) -> None:
    answer = call(local, "POST", "/segment", content=PNG, headers={"Accept": "application/json"}).json()
    labels = np.repeat(np.array(answer["run_labels"], np.uint8), answer["run_lengths"])
    np.testing.assert_array_equal(labels.reshape(answer["height"], answer["width"]), direct(local))
    assert sum(one["share"] for one in answer["classes"]) == pytest.approx(1)
    assert {one["name"] for one in answer["classes"]} == {CLASSES[label] for label in np.unique(labels)}
    assert {"decode", "prepare", "network", "crf"} <= answer["timings_ms"].keys()


def test_overlay_and_probabilities(local: Local) -> None:
    overlay = call(local, "POST", "/segment?output=overlay", content=PNG)
    assert overlay.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(overlay.content)).size == (41, 30)
    array = np.load(io.BytesIO(call(local, "POST", "/segment?output=probabilities", content=PNG).content))
    np.testing.assert_array_equal(array, local.server.models.first.segmenter.probabilities(IMAGE))


def test_parameters_change_the_result_as_in_a_direct_call(local: Local) -> None:
    from dataclasses import replace

    segmenter = local.server.models.first.segmenter
    for query, changes in (
        ("crf=false", None),
        ("iterations=1&mode=pydensecrf", {"iterations": 1, "mode": "pydensecrf"}),
    ):
        crf = None if changes is None else replace(segmenter.crf, **changes)
        expected = segmenter.derive(crf=crf, sizing=segmenter.sizing)(IMAGE)
        np.testing.assert_array_equal(read_labels(call(local, "POST", f"/segment?{query}", content=PNG)), expected)
    smaller = read_labels(call(local, "POST", "/segment?size=20x25", content=PNG))
    assert smaller.shape == (30, 41)
    assert (smaller != direct(local)).any()


def infer(local: Local, file: bytes, outputs: list[dict[str, Any]], **options: Any) -> httpx.Response:
    """A call with the bytes of a file."""
    data = struct.pack("<I", len(file)) + file
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "outputs": outputs, **options}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Accept-Encoding": "identity"}
    return call(local, "POST", "/v2/models/colors/infer", content=head + data, headers=headers)


def test_bytes_of_a_file_and_all_outputs(local: Local) -> None:
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("labels", "labels_png", "probabilities")]
    answer = infer(local, PNG, wanted)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    sizes = [one["parameters"]["binary_data_size"] for one in json.loads(answer.content[:length])["outputs"]]
    labels, png, probabilities = (
        answer.content[length + sum(sizes[:index]) : length + sum(sizes[: index + 1])] for index in range(3)
    )
    np.testing.assert_array_equal(np.frombuffer(labels, np.uint8).reshape(30, 41), direct(local))
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png[4:]))), direct(local))
    assert np.frombuffer(probabilities, np.float32).reshape(4, 30, 41).argmax(axis=0).tolist() == direct(local).tolist()


def make_png_bomb(width: int, height: int) -> bytes:
    """A small PNG of that many pixels, whose data ends early."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("path", "options", "status", "part"),
    [
        ("/segment", {"content": b""}, 400, "is empty"),
        ("/segment", {"content": b"hello"}, 400, "is text"),
        ("/segment", {"content": b"GIF89a" + bytes(50)}, 400, "not an image in a known format"),
        ("/segment", {"content": PNG[:60]}, 400, "is damaged"),
        ("/segment", {"content": make_png_bomb(20_000, 20_000)}, 400, "has 20000x20000 pixels; the limit is 10000"),
        ("/segment", {"content": make_png_bomb(200, 200)}, 400, "has 200x200 pixels; the limit is 10000"),
        ("/segment", {"content": bytes(2 << 20)}, 413, "the limit is 1048576"),
        ("/segment", {"content": (bytes(1 << 18) for _ in range(5))}, 413, "more than 1048576"),
        (
            "/segment",
            {"content": gzip.compress(bytes(1 << 24)), "headers": {"Content-Encoding": "gzip"}},
            413,
            "without its compression",
        ),
        ("/segment", {"content": b"x", "headers": {"Content-Encoding": "gzip"}}, 400, "is not gzip"),
        ("/segment", {"content": gzip.compress(PNG)[:-9], "headers": {"Content-Encoding": "gzip"}}, 400, "truncated"),
        ("/segment", {"content": b"x", "headers": {"Content-Encoding": "br"}}, 415, "br"),
        ("/segment", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "no boundary"),
        (
            "/segment",
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=a"}},
            400,
            "the form",
        ),
        ("/segment?output=zip", {"content": PNG}, 400, "must be one of"),
        ("/segment?iterations=1000", {"content": PNG}, 400, "iterations"),
        ("/segment?size=9999x9999", {"content": PNG}, 400, "more than 10000 pixels"),
        ("/segment?size=../../etc", {"content": PNG}, 400, "HEIGHTxWIDTH"),
        ("/segment?max_side=-1", {"content": PNG}, 400, "max_side"),
        ("/segment?model=../four-colors", {"content": PNG}, 404, "unknown model"),
        ("/v2/models/..%2f..%2fetc/infer", {"content": b"{}"}, 404, ""),
        (
            "/v2/models/colors/infer",
            {"content": b"{}", "headers": {"Inference-Header-Content-Length": "x"}},
            400,
            "number",
        ),
        (
            "/v2/models/colors/infer",
            {"content": b"{}", "headers": {"Inference-Header-Content-Length": "9" * 5000}},
            400,
            "number",
        ),
        (
            "/v2/models/colors/infer",
            {"content": make_request(outputs=[{"name": "labels"}] * 2)},
            400,
            "asked for twice",
        ),
        ("/v2/models/colors/infer", {"content": make_request(id="x" * 1025)}, 400, "the limit is 1024"),
    ],
)
def test_what_is_refused(local: Local, path: str, options: dict[str, Any], status: int, part: str) -> None:
    async def stream(parts: Any) -> Any:
        for one in parts:
            yield one

    content = options["content"]
    if not isinstance(content, bytes):
        options = {**options, "content": stream(content)}
    answer = call(local, "POST", path, **options)
    assert answer.status_code == status, answer.text
    assert part in answer.json()["error"]
    assert local.server.bodies.used == 0


def test_an_image_that_needs_more_memory_than_it_may_use(tmp_path: Path) -> None:
    with make_local(tmp_path, memory_bytes=1 << 20) as local:  # which leaves an image 64 MiB
        answer = call(local, "POST", "/segment", content=encode_png(make_image(300, 300)))
        assert answer.status_code == 413
        assert "an image of 300x300 pixels needs about 89 MB, and it can have 67 MB" in answer.json()["error"]
        np.testing.assert_array_equal(read_labels(call(local, "POST", "/segment", content=PNG)), direct(local))


def test_processes_share_the_memory() -> None:
    settings = ServeSettings({}, load={"memory_bytes": 8 << 30}, workers=4)
    assert share_memory(settings).load["memory_bytes"] == 2 << 30
    share = share_memory(ServeSettings({}, workers=4)).load["memory_bytes"]
    assert 0 < 4 * share <= find_limit_bytes()


def test_a_slow_body(local: Local) -> None:
    async def drip() -> Any:
        for _ in range(100):
            yield b"x"
            await asyncio.sleep(0.05)

    answer = call(local, "POST", "/segment", content=drip())
    assert answer.status_code == 408
    assert local.server.bodies.used == 0


def test_a_token(tmp_path: Path) -> None:
    with make_local(tmp_path, token=TOKEN) as local:
        assert call(local, "GET", "/v2/health/ready").status_code == 200
        for headers in ({}, {"Authorization": TOKEN}, {"Authorization": f"Bearer {TOKEN}x"}):
            answer = call(local, "GET", "/v2", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert call(local, "GET", "/v2", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_token_of_any_characters_is_compared_exactly(tmp_path: Path) -> None:
    token = "\u043f\u0430\u0440\u043e\u043b\u044c" * 3  # Cyrillic
    with make_local(tmp_path, token=token) as local:
        for given, status in ((token.encode(), 200), (b"?" * len(token), 401)):
            answer = call(local, "GET", "/v2", headers={b"Authorization": b"Bearer " + given})
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "rebound.example:8000"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_elsewhere_cannot_use_a_local_server(local: Local, headers: dict[str, str], status: int) -> None:
    assert call(local, "GET", "/v2", headers=headers).status_code == status


def test_every_answer_has_an_identity(local: Local) -> None:
    assert call(local, "GET", "/v2", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = call(local, "GET", "/v2/bogus", headers={"X-Request-Id": 'a"b'}).headers["x-request-id"]
    assert made.isalnum()


def test_metrics_and_access_log(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with make_local(tmp_path / "bundle", access_log=str(log), delay_ms=1) as local:
        call(local, "POST", "/segment", content=PNG)
        call(local, "POST", "/segment", content=b"text")
        text = call(local, "GET", "/metrics").text
    assert 'atrous_requests_total{model="colors",protocol="http",status="200"} 1.0' in text
    assert 'atrous_request_failures_total{model="colors",reason="bad_request"} 1.0' in text
    assert 'atrous_stage_seconds_count{model="colors",stage="network"} 1.0' in text
    assert "atrous_queue_depth 0.0" in text
    assert 'atrous_bottleneck{stage="' in text
    first, second, _ = (json.loads(line) for line in log.read_text().splitlines())
    assert (first["status"], second["status"]) == (200, 400)
    assert {"queue", "decode", "network", "crf", "encode"} <= first["stages_ms"].keys()
