"""Checks an ONNX model for what reaches outside it, on its bytes, before any library parses them.

Rules:

1. No tensor lies in another file. Libraries that load a model from memory open the files that it names too (ONNX
   Runtime before 1.24 whatever its options), so a stranger's model could read any file of the user.
2. No node is an `EPContext`. Such a node holds, or names the file of, a compiled engine, which ONNX Runtime's TensorRT
   provider would run as code.
3. Bytes that two parsers of protobuf could read in two ways (a number of more than 64 bits, a field number out of
   range) are refused. Nothing is copied, and lengths are checked against the bytes that are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import BackendError, InputError

_MAX_DEPTH = 100  # protobuf's own limit
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_MAX_FIELD_NUMBER = (1 << 29) - 1
_MAX_VARINT_BYTES = 10

# message -> field number -> message inside it, as far as tensors and nodes lie there (onnx.proto3)
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a Tensor
_OP_TYPE = 4  # of a Node


def require_self_contained(model: bytes, path: Path | None = None) -> None:
    """Refuse a model that reads other files or contains a compiled engine.

    Args:
        model: the bytes of an ONNX file.
        path: the file, for error messages.

    Raises:
        BackendError: for such a model, and for bytes that are not a protobuf message.
    """
    try:
        _check(memoryview(model), "Model", 0)
    except InputError as error:
        where = f"{path}: " if path is not None else ""
        raise BackendError(f"{where}the model {error}; convert the net again") from error


def _check(message: int | memoryview, kind: str, depth: int) -> None:
    if isinstance(message, int):
        raise InputError("is not an ONNX model: a number where a message belongs")
    if depth > _MAX_DEPTH:
        raise InputError(f"is not an ONNX model: its messages are nested more than {_MAX_DEPTH} deep")
    for number, value in read_fields(message):
        if kind == "Tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            raise InputError("takes weights from other files; the models of a bundle must contain their weights")
        if kind == "Node" and number == _OP_TYPE and value == memoryview(b"EPContext"):
            raise InputError("contains a compiled engine (an EPContext node), which may be any code")
        child = _CHILDREN[kind].get(number)
        if child is not None:
            _check(value, child, depth + 1)


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of each field of a protobuf message; a value with a length is a memoryview.

    Raises:
        InputError: if the bytes are not a protobuf message.
    """
    position, end = 0, len(message)
    while position < end:
        tag, position = _read_varint(message, position)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise InputError(f"is not an ONNX model: invalid field number {number} before byte {position}")
        if kind in (_VARINT, _LENGTH):
            length, position = _read_varint(message, position)
            if kind == _VARINT:
                yield number, length
                continue
        elif kind in _WIDTHS:
            length = _WIDTHS[kind]
        else:  # groups, which ONNX does not use
            raise InputError(f"is not an ONNX model: protobuf wire type {kind} at byte {position}")
        if length > end - position:
            raise InputError(f"is cut short: a field of {length} bytes where {end - position} are left")
        chunk = message[position : position + length]
        position += length
        yield number, chunk if kind == _LENGTH else int.from_bytes(chunk, "little")


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    number = 0
    for index, byte in enumerate(message[position : position + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >> 64:
                raise InputError(f"is not an ONNX model: a number of more than 64 bits at byte {position}")
            return number, position + index + 1
    raise InputError("is cut short or not an ONNX model: a number does not end")
