"""Whether an ONNX model holds its weights itself, read from its bytes alone.

A tensor of an ONNX file may name another file to take its content from. Libraries that load a model from memory
follow such names too, so a stranger's model could read any file here. ONNX Runtime can be told not to; for what
cannot, this walk over the protobuf's fields finds every tensor before the library sees the model.
"""

from __future__ import annotations

from ..errors import BackendError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_DEPTH = 100  # protobuf's own limit
_MAX_VARINT_BYTES = 10

# message -> field number -> message inside it, as far as tensors lie there (onnx.proto3)
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


def require_self_contained(model: bytes) -> None:
    """Refuse a model that takes weights from other files.

    Args:
        model: the bytes of an ONNX file.

    Raises:
        BackendError: if it does, or if the bytes are no protobuf.
    """
    if _names_files(memoryview(model), "Model", 0):
        raise BackendError("the model takes weights from other files; a model must hold its weights itself")


def _names_files(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise _broken()
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _read_varint(message, position)
            if kind == "Tensor" and number == _DATA_LOCATION and value != 0:
                return True
        elif wire in _FIXED_SIZES:
            position += _FIXED_SIZES[wire]
        elif wire == _BYTES:
            size, position = _read_varint(message, position)
            end = position + size
            if end > len(message):
                raise _broken()
            if kind == "Tensor" and number == _EXTERNAL_DATA:
                return True
            child = _CHILDREN[kind].get(number)
            if child is not None and _names_files(message[position:end], child, depth + 1):
                return True
            position = end
        else:
            raise _broken()  # groups: ONNX has none
    if position > len(message):
        raise _broken()
    return False


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if position >= len(message):
            raise _broken()
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position
    raise _broken()


def _broken() -> BackendError:
    return BackendError("the model is not an ONNX file: it was cut short or altered; convert the net again")
