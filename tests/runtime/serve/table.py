"""Requests of the Open Inference Protocol, and the statuses and JSON keys that a real Triton 2.51 answers with.

The rows were recorded from a real `tritonserver` with the miniature as an ensemble (its model under the name of the
`Served`). Each row holds for every server; `atrous` differs where `ours` says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PIXELS = np.random.default_rng(0).integers(0, 255, (1, 40, 60, 3), np.uint8)
HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Row:
    """A request and its answer.

    Attributes:
        name: of the test.
        method, path: `{model}` stands for the model's name.
        body, headers: of the request.
        status: of the answer.
        keys: of the JSON object, the keys of its outputs with "outputs." before them; None for an empty body.
        ours: the status of atrous where it differs on purpose.
    """

    name: str
    method: str
    path: str
    status: int
    keys: frozenset[str] | None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    ours: int | None = None

    def __str__(self) -> str:
        return self.name


INFER = "/v2/models/{model}/infer"
ERROR = frozenset({"error"})
METADATA = frozenset({"name", "versions", "platform", "inputs", "outputs"})
_ANSWER = {"model_name", "model_version", "outputs", "outputs.name", "outputs.datatype", "outputs.shape"}
AS_JSON = frozenset({*_ANSWER, "outputs.data"})
AS_BINARY = frozenset({*_ANSWER, "outputs.parameters"})
WITH_ID = AS_JSON | {"id"}
LABELS = [{"name": "labels"}]


def describe(**changes: Any) -> dict[str, Any]:
    """The JSON of a request with the pixels as numbers, with changes of the input."""
    tensor = {"name": "image", "shape": list(PIXELS.shape), "datatype": "UINT8", "data": PIXELS.ravel().tolist()}
    return {"inputs": [tensor | changes], "outputs": LABELS}


def encode(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()


def encode_binary(pixels: np.ndarray = PIXELS, *, wants_binary: bool = True, **changes: Any) -> dict[str, Any]:
    """Body and headers of a request with the pixels as binary data."""
    tensor = {"name": "image", "shape": list(pixels.shape), "datatype": "UINT8"}
    tensor |= {"parameters": {"binary_data_size": pixels.nbytes}, **changes}
    outputs = [{"name": "labels", "parameters": {"binary_data": wants_binary}}]
    head = encode({"inputs": [tensor], "outputs": outputs})
    return {"body": head + pixels.tobytes(), "headers": {HEADER: str(len(head))}}


ROWS = [
    Row("server metadata", "GET", "/v2", 200, frozenset({"name", "version", "extensions"})),
    Row("live", "GET", "/v2/health/live", 200, None),
    Row("ready", "GET", "/v2/health/ready", 200, None),
    Row("model ready", "GET", "/v2/models/{model}/ready", 200, None),
    Row("version ready", "GET", "/v2/models/{model}/versions/1/ready", 200, None),
    Row("model metadata", "GET", "/v2/models/{model}", 200, METADATA),
    Row("version metadata", "GET", "/v2/models/{model}/versions/1", 200, METADATA),
    Row("unknown model", "GET", "/v2/models/nope", 404, ERROR),
    Row("unknown version", "GET", "/v2/models/{model}/versions/7", 404, ERROR),
    Row("unknown model ready", "GET", "/v2/models/nope/ready", 400, ERROR),
    Row("unknown path", "GET", "/v2/bogus", 404, ERROR),
    Row("infer, unknown model", "POST", "/v2/models/nope/infer", 404, ERROR, encode(describe())),
    Row("infer, JSON", "POST", INFER, 200, AS_JSON, encode(describe())),
    Row("infer, version", "POST", "/v2/models/{model}/versions/1/infer", 200, AS_JSON, encode(describe())),
    Row("infer, id", "POST", INFER, 200, WITH_ID, encode({"id": "seven", **describe()})),
    Row("infer, binary", "POST", INFER, 200, AS_BINARY, **encode_binary()),
    Row("infer, binary in, JSON out", "POST", INFER, 200, AS_JSON, **encode_binary(wants_binary=False)),
    Row("parameters", "POST", INFER, 200, AS_JSON, encode({**describe(), "parameters": {"iterations": 1}})),
    Row("wrong datatype", "POST", INFER, 400, ERROR, encode(describe(datatype="FP32"))),
    Row("unknown input", "POST", INFER, 400, ERROR, encode(describe(name="foo"))),
    Row("no input", "POST", INFER, 400, ERROR, encode({"inputs": [], "outputs": LABELS})),
    Row("unknown output", "POST", INFER, 400, ERROR, encode({**describe(), "outputs": [{"name": "foo"}]})),
    Row("wrong rank", "POST", INFER, 400, ERROR, encode(describe(shape=[40, 60, 3]))),
    Row("data does not fill the shape", "POST", INFER, 500, ERROR, encode(describe(shape=[1, 40, 61, 3])), ours=400),
    Row("binary data too short", "POST", INFER, 400, ERROR, **encode_binary(shape=[1, 40, 61, 3])),
    Row("not JSON", "POST", INFER, 500, ERROR, b"{", ours=400),
    Row("wrong parameter", "POST", INFER, 400, ERROR, encode({**describe(), "parameters": {"iterations": -1}})),
]
