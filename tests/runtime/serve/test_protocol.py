from __future__ import annotations

import base64
import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.errors import RequestError
from atrous.runtime.serve.protocol import (
    InputTensor,
    OutputTensor,
    encode_answer,
    parse_request,
    read_array,
    read_bytes,
)

TENSOR = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3]}


def parse(root: Any, tail: bytes = b"", length: int | None = None) -> Any:
    head = root if isinstance(root, bytes) else json.dumps(root).encode()
    return parse_request(memoryview(head + tail), len(head) if tail and length is None else length)


def test_numbers_in_json() -> None:
    request = parse({"id": "7", "inputs": [{**TENSOR, "data": [[[[1, 2, 3], [4, 5, 6]]]]}]})
    assert request.id == "7"
    np.testing.assert_array_equal(read_array(request.inputs[0], "UINT8"), [[[[1, 2, 3], [4, 5, 6]]]])


def test_two_binary_inputs_are_told_apart() -> None:
    first = {**TENSOR, "parameters": {"binary_data_size": 6}}
    second = {"name": "more", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 7}}
    request = parse({"inputs": [first, second]}, bytes(range(6)) + struct.pack("<I", 3) + b"png")
    assert read_array(request.inputs[0], "UINT8").ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert bytes(read_bytes(request.inputs[1])) == b"png"


def test_outputs_and_the_default_of_binary_data() -> None:
    root = {
        "inputs": [{**TENSOR, "data": []}],
        "outputs": [{"name": "labels"}, {"name": "labels_png", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True, "iterations": 3, "priority": 1},
    }
    request = parse(root)
    assert [(output.name, output.binary) for output in request.outputs] == [("labels", True), ("labels_png", False)]
    assert request.parameters == {"iterations": 3}
    assert request.binary


@pytest.mark.parametrize(
    ("root", "part"),
    [
        (b"{", "failed to parse the request JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "failed to parse"),
        ([], "not an object"),
        ({}, "'inputs'"),
        ({"inputs": {}}, "'inputs'"),
        ({"inputs": [1]}, "'inputs'"),
        ({"inputs": [TENSOR] * 17}, "limit is 16"),
        ({"inputs": [TENSOR]}, 'neither "data" nor binary'),
        ({"inputs": [{**TENSOR, "data": 5}]}, 'neither "data" nor binary'),
        ({"inputs": [{**TENSOR, "shape": [-1], "data": []}]}, "'shape'"),
        ({"inputs": [{**TENSOR, "shape": [True], "data": []}]}, "'shape'"),
        ({"inputs": [{**TENSOR, "shape": [1 << 40], "data": []}]}, "'shape'"),
        ({"inputs": [{**TENSOR, "shape": [1] * 9, "data": []}]}, "'shape'"),
        ({"inputs": [{**TENSOR, "name": 5, "data": []}]}, "'name'"),
        ({"inputs": [{**TENSOR, "parameters": 5}]}, "'parameters'"),
        ({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 99}}]}, "0 bytes of binary data are left"),
        ({"inputs": [{**TENSOR, "parameters": {"binary_data_size": -1}}]}, "binary_data_size is -1"),
        ({"inputs": [{**TENSOR, "parameters": {"shared_memory_region": "/etc"}}]}, "no shared memory"),
        ({"inputs": [], "outputs": [{"name": "labels", "parameters": {"shared_memory_region": "a"}}]}, "binary_data"),
        ({"inputs": [], "id": 5}, '"id"'),
    ],
)
def test_what_is_not_a_request(root: Any, part: str) -> None:
    with pytest.raises(RequestError, match=part.replace("(", r"\(")) as caught:
        parse(root)
    assert caught.value.status == 400


@pytest.mark.parametrize("length", [-1, 3])
def test_length_of_the_json_beyond_the_body(length: int) -> None:
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        parse(b"{}", length=length)


def test_bytes_that_belong_to_no_input() -> None:
    with pytest.raises(RequestError, match="belong to no input"):
        parse({"inputs": []}, b"abc")


@pytest.mark.parametrize(
    "data", [[1, 2], [1, 2, 3, 256, 5, 6], [1, 2, 3, -1, 5, 6], ["a"] * 6, [[1, 2], [3]], [1.5] * 6]
)
def test_numbers_that_are_no_image(data: list[Any]) -> None:
    with pytest.raises(RequestError):
        read_array(InputTensor("image", "UINT8", (1, 1, 2, 3), data), "UINT8")


@pytest.mark.parametrize("data", [b"", b"abc", b"\x05\0\0\0png", b"\x02\0\0\0png", b"\xff\xff\xff\xffpng"])
def test_bytes_whose_length_is_wrong(data: bytes) -> None:
    with pytest.raises(RequestError, match="4 bytes of its length"):
        read_bytes(InputTensor("image", "BYTES", (1,), data))


def test_answers() -> None:
    labels = np.array([[[1, 2]]], np.uint8)
    outputs = [
        OutputTensor("labels", "UINT8", (1, 1, 2), labels, True),
        OutputTensor("labels_png", "BYTES", (1, 1), b"png", True),
        OutputTensor("again", "UINT8", (1, 1, 2), labels, False),
        OutputTensor("text", "BYTES", (1,), b"png", False),
    ]
    body, length = encode_answer("m", "1", "", outputs)
    assert body[length:] == b"\1\2\3\0\0\0png"
    found = json.loads(body[:length])["outputs"]
    assert [entry.get("parameters") for entry in found[:2]] == [{"binary_data_size": 2}, {"binary_data_size": 7}]
    assert found[2]["data"] == [1, 2]
    assert base64.b64decode(found[3]["data"][0]) == b"png"


def test_an_output_too_large_for_json() -> None:
    huge = np.broadcast_to(np.float32(0), (1, 100, 1000, 1000))
    with pytest.raises(RequestError, match="binary_data"):
        encode_answer("m", "1", "", [OutputTensor("probabilities", "FP32", huge.shape, huge, False)])


@settings(deadline=None)
@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(-5, 300)))
def test_any_bytes_are_a_request_or_an_error(body: bytes, length: int | None) -> None:
    with contextlib.suppress(RequestError):
        parse_request(memoryview(body), length)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), JSON, max_size=5))
def test_any_input_is_an_array_or_an_error(tensor: dict[str, Any]) -> None:
    with contextlib.suppress(RequestError):
        read_array(parse({"inputs": [tensor]}).inputs[0], "UINT8")
