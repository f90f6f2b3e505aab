"""The Open Inference Protocol over HTTP: requests and answers, from and to bytes.

A body is JSON, or with the header `Inference-Header-Content-Length` JSON of that length and then the bytes of the
binary tensors, in order: little-endian, row-major, BYTES with a length of 4 bytes before each element (the extension
`binary_tensor_data`).
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import RequestError

MAX_JSON_BYTES = 16 << 20
MAX_JSON_ELEMENTS = 1 << 22  # of an output as JSON
MAX_TENSORS = 16
HEADER_LENGTH = "Inference-Header-Content-Length"
DTYPES = {"UINT8": np.uint8, "FP32": np.float32}
#: parameters that clients send for themselves, without a meaning here
IGNORED = ("priority", "sequence_id", "sequence_start", "sequence_end", "triton_enable_empty_final_response")

Json = Any


@dataclass(frozen=True)
class InputTensor:
    """An input; `data` is its bytes, or the list of numbers in the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | list[Json]


@dataclass(frozen=True)
class WantedOutput:
    """An output that a request names, and whether it comes as binary data."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A request, by HTTP or gRPC."""

    id: str
    inputs: Sequence[InputTensor]
    outputs: Sequence[WantedOutput]
    parameters: Mapping[str, Json] = field(default_factory=dict)
    binary: bool = False  # for outputs that are not named


@dataclass(frozen=True)
class OutputTensor:
    """An output: an array of one of `DTYPES`, or the bytes of the only element of a BYTES tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: npt.NDArray[Any] | bytes
    binary: bool

    def to_bytes(self) -> bytes:
        """The tensor's bytes, little-endian; BYTES with their length."""
        if isinstance(self.data, bytes):
            return struct.pack("<I", len(self.data)) + self.data
        return np.ascontiguousarray(self.data).tobytes()

    def to_list(self) -> list[Json]:
        """The tensor as JSON: row-major numbers; BYTES as base64."""
        if isinstance(self.data, bytes):
            return [base64.b64encode(self.data).decode()]
        if self.data.size > MAX_JSON_ELEMENTS:
            raise RequestError(
                f"the output '{self.name}' has {self.data.size} elements; JSON carries at most {MAX_JSON_ELEMENTS}: "
                'ask for it with "binary_data": true'
            )
        numbers: list[Json] = self.data.ravel().tolist()
        return numbers


def parse_request(body: memoryview, header_length: int | None) -> InferRequest:
    """Read a request.

    Raises:
        RequestError: if it is not a request of the protocol.
    """
    length = len(body) if header_length is None else header_length
    if not 0 <= length <= len(body):
        raise RequestError(f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes")
    if length > MAX_JSON_BYTES:
        raise RequestError(
            f"the JSON has {length} bytes; the limit is {MAX_JSON_BYTES}: send the tensor as binary data", status=413
        )
    root = _parse_json(body[:length])
    binary, inputs = body[length:], []
    for entry in _read_list(root, "inputs"):
        parameters = _read_parameters(entry)
        size = parameters.get("binary_data_size")
        if "shared_memory_region" in parameters:
            raise RequestError("this server reads no shared memory: send the tensor as binary data")
        data: Any
        if size is None:
            data = entry.get("data")
            if not isinstance(data, list):
                raise RequestError(f"the input '{_read_text(entry, 'name')}' has neither \"data\" nor binary data")
        else:
            if type(size) is not int or not 0 <= size <= len(binary):
                raise RequestError(f"binary_data_size is {size!r}, and {len(binary)} bytes of binary data are left")
            data, binary = binary[:size], binary[size:]
        inputs.append(InputTensor(_read_text(entry, "name"), _read_text(entry, "datatype"), _read_shape(entry), data))
    if len(binary):
        raise RequestError(f"the body has {len(binary)} bytes that belong to no input")
    request_parameters = _read_parameters(root)
    default = bool(request_parameters.pop("binary_data_output", False))
    outputs = []
    for entry in _read_list(root, "outputs", optional=True):
        parameters = _read_parameters(entry)
        if "shared_memory_region" in parameters or parameters.get("classification"):
            raise RequestError("outputs have no parameters but binary_data here")
        outputs.append(WantedOutput(_read_text(entry, "name"), bool(parameters.get("binary_data", default))))
    identity = root.get("id", "")
    if not isinstance(identity, str):
        raise RequestError('"id" must be a text')
    return InferRequest(identity, inputs, outputs, request_parameters, default)


def encode_answer(model: str, version: str, identity: str, outputs: Sequence[OutputTensor]) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON if binary data follows."""
    entries, parts = [], []
    for output in outputs:
        entry: dict[str, Json] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if output.binary:
            parts.append(output.to_bytes())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = output.to_list()
        entries.append(entry)
    root = {**({"id": identity} if identity else {}), "model_name": model, "model_version": version, "outputs": entries}
    head = json.dumps(root, separators=(",", ":")).encode()
    return b"".join([head, *parts]), len(head) if parts else None


def read_array(tensor: InputTensor, datatype: str) -> npt.NDArray[Any]:
    """An input's array, of the datatype that the model expects.

    Raises:
        RequestError: if the data does not fill the shape, or holds something else.
    """
    dtype = np.dtype(DTYPES[datatype])
    count = math.prod(tensor.shape)
    if not isinstance(tensor.data, list):
        if len(tensor.data) != count * dtype.itemsize:
            raise RequestError(
                f"input byte size mismatch for input '{tensor.name}'. Expected {count * dtype.itemsize}, "
                f"got {len(tensor.data)}"
            )
        return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)
    try:
        array = np.array(tensor.data)
    except (ValueError, OverflowError):
        raise RequestError(f"the data of input '{tensor.name}' is not an array of numbers") from None
    if array.size != count:
        raise RequestError(
            f"Unable to parse 'data': Shape does not match true shape of 'data' field: {array.size} elements for "
            f"{list(tensor.shape)}"
        )
    if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() <= 255):
        raise RequestError(f"the data of input '{tensor.name}' must be integers of 0 to 255")
    return array.astype(dtype).reshape(tensor.shape)


def read_bytes(tensor: InputTensor) -> memoryview:
    """The only element of a BYTES input.

    Raises:
        RequestError: if it has another number of elements, or comes as JSON.
    """
    if isinstance(tensor.data, list):
        raise RequestError(
            f"BYTES in JSON can only be text: send the file of input '{tensor.name}' as binary data, or to /segment"
        )
    data = memoryview(tensor.data)
    if math.prod(tensor.shape) != 1 or len(data) < 4 or int.from_bytes(data[:4], "little") != len(data) - 4:
        raise RequestError(f"the input '{tensor.name}' must have one element of BYTES: 4 bytes of its length, then it")
    return data[4:]


def _parse_json(text: memoryview) -> dict[str, Json]:
    try:
        root = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise RequestError(f"failed to parse the request JSON buffer: {reason}") from None
    if not isinstance(root, dict):
        raise RequestError("failed to parse the request JSON buffer: it is not an object")
    return root


def _read_list(root: Mapping[str, Json], key: str, *, optional: bool = False) -> list[dict[str, Json]]:
    value = root.get(key, [] if optional else None)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise RequestError(f"Unable to parse '{key}': it must be a list of objects")
    if len(value) > MAX_TENSORS:
        raise RequestError(f"'{key}' has {len(value)} entries; the limit is {MAX_TENSORS}")
    return value


def _read_text(entry: Mapping[str, Json], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise RequestError(f"Unable to parse '{key}': it must be a text")
    return value


def _read_shape(entry: Mapping[str, Json]) -> tuple[int, ...]:
    shape = entry.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > 8
        or not all(type(side) is int and 0 <= side < 1 << 31 for side in shape)
    ):
        raise RequestError("Unable to parse 'shape': it must be a list of at most 8 sizes")
    return tuple(shape)


def _read_parameters(entry: Mapping[str, Json]) -> dict[str, Json]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError("Unable to parse 'parameters': it must be an object")
    return {key: value for key, value in parameters.items() if key not in IGNORED}
