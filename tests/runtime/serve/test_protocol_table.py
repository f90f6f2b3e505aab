from __future__ import annotations

import json

import httpx
import pytest

from .conftest import Served
from .table import HEADER, PIXELS, ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_status_and_keys(row: Row, served: Served) -> None:
    with httpx.Client(base_url=served.http, headers={"Accept-Encoding": "identity"}) as client:
        path = row.path.format(model=served.model)
        answer = client.request(row.method, path, content=row.body or None, headers=row.headers)
    expected = row.ours if served.kind == "atrous" and row.ours is not None else row.status
    assert answer.status_code == expected, answer.text
    if row.keys is None:
        assert answer.content == b""
        return
    length = int(answer.headers.get(HEADER, len(answer.content)))
    found = json.loads(answer.content[:length])
    # an ensemble of Triton adds parameters of sequences to its answers
    keys = set(found) - ({"parameters"} if served.kind == "triton" else set())
    keys |= {f"outputs.{key}" for key in (found["outputs"][0] if answer.is_success and "outputs" in keys else ())}
    if row.name.endswith("metadata"):
        keys = {key for key in keys if not key.startswith("outputs.")}
    assert keys == row.keys
    if length < len(answer.content):
        assert found["outputs"][0]["parameters"]["binary_data_size"] == len(answer.content) - length
    if answer.is_success and "data" in (found.get("outputs") or [{}])[0]:
        assert found["outputs"][0]["shape"] == list(PIXELS.shape[:3])
        assert len(found["outputs"][0]["data"]) == PIXELS.size // 3
