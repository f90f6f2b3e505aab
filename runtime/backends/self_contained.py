"""Checks an ONNX model for what reaches outside it, on its bytes, before any library parses them.

Rules:

1. No tensor lies in another file. Libraries that load a model from memory open the files that it names too (ONNX
   Runtime before 1.24 whatever its options), so a stranger's model could read any file of the user.
2. No node is an `EPContext`. Such a node holds, or names the file of, a compiled engine, which ONNX Runtime's TensorRT
   provider would run as code.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import BackendError, InputError
from ..wire import read_fields, to_bytes

_MAX_DEPTH = 100  # protobuf's own limit

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


def _check(message: memoryview, kind: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InputError(f"is not an ONNX model: its messages are nested more than {_MAX_DEPTH} deep")
    for number, value in read_fields(message):
        if kind == "Tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            raise InputError("takes weights from other files; the models of a bundle must contain their weights")
        if kind == "Node" and number == _OP_TYPE and bytes(to_bytes(value)) == b"EPContext":
            raise InputError("contains a compiled engine (an EPContext node), which may be any code")
        child = _CHILDREN[kind].get(number)
        if child is not None:
            _check(to_bytes(value), child, depth + 1)
