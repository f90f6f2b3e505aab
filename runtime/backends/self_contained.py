"""Whether an ONNX model holds its weights itself, read from its bytes alone.

A tensor of an ONNX file may name another file to take its content from. Libraries that load a model from memory
follow such names too (ONNX Runtime before 1.24 whatever its options), so a stranger's model could read any file here.
This walk over the protobuf's fields finds every tensor before a library sees the model.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import BackendError, InputError
from ..wire import read_fields, to_bytes

_MAX_DEPTH = 100  # protobuf's own limit

# message -> field number -> message inside it, as far as tensors lie there (onnx.proto3)
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a Tensor


def require_self_contained(model: bytes, path: Path | None = None) -> None:
    """Refuse a model that takes weights from other files.

    Args:
        model: the bytes of an ONNX file.
        path: the file, for error messages.

    Raises:
        BackendError: if it does, or if the bytes are no protobuf.
    """
    where = f"{path}: " if path is not None else ""
    try:
        names_files = _names_files(memoryview(model), "Model", 0)
    except InputError as error:
        raise BackendError(f"{where}the model {error}; convert the net again") from error
    if names_files:
        raise BackendError(
            f"{where}the model takes weights from other files; a bundle's models must contain their weights: convert "
            "the net again"
        )


def _names_files(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise InputError(f"is not an ONNX model: messages lie in one another {depth} deep")
    for number, value in read_fields(message):
        if kind == "Tensor":
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                return True
        elif (child := _CHILDREN[kind].get(number)) is not None and _names_files(to_bytes(value), child, depth + 1):
            return True
    return False
