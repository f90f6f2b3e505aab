"""Checks an ONNX model for what reaches outside it, on its bytes, before any library parses them.

Rules:

1. No tensor lies in another file. Libraries that load a model from memory open the files that it names too (ONNX
   Runtime before 1.24 whatever its options), so a stranger's model could read any file of the user.
2. No node is an `EPContext`. Such a node holds, or names the file of, a compiled engine, which ONNX Runtime's TensorRT
   provider would run as code.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import BackendError
from ...wire import LENGTH, VARINT, WireError, WireReader

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


class _RefusedError(Exception):
    """A model that breaks a rule."""


def require_self_contained(model: bytes, path: Path | None = None) -> None:
    """Raise BackendError for a model that reads other files or contains a compiled engine, or is not protobuf."""
    where = f"{path}: " if path is not None else ""
    try:
        _check(WireReader(model), 0, len(model), "Model", 0)
    except _RefusedError as error:
        raise BackendError(f"{where}the model {error}; convert the net again") from error
    except WireError as error:
        kind = "is truncated or not an ONNX model" if error.shortfall else "is not an ONNX model"
        raise BackendError(
            f"{where}the model {kind}: {error}, at byte {error.offset}; convert the net again"
        ) from error


def _check(reader: WireReader, start: int, stop: int, kind: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise WireError(f"its messages are nested more than {_MAX_DEPTH} deep", start)
    for field in reader.fields(start, stop):
        outside = field.number == _DATA_LOCATION and (field.wire_type != VARINT or field.value != 0)
        if kind == "Tensor" and (field.number == _EXTERNAL_DATA or outside):
            raise _RefusedError("takes weights from other files; the models of a bundle must contain their weights")
        if kind == "Node" and field.number == _OP_TYPE and reader.data[field.start : field.stop] == b"EPContext":
            raise _RefusedError("contains a compiled engine (an EPContext node), which may be any code")
        child = _CHILDREN[kind].get(field.number)
        if child is not None:
            if field.wire_type != LENGTH:
                raise WireError(f"field {field.number} is a number where a message belongs", field.at)
            _check(reader, field.start, field.stop, child, depth + 1)
