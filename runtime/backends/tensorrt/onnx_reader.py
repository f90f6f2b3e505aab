"""Reads the facts about an ONNX graph from the file's bytes, without protobuf and without its weights.

The field numbers are those of onnx.proto: ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, TypeProto.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from ....errors import InputError
from ... import wire
from .onnx_facts import ELEMENT_TYPES, Attribute, Initializer, Node, OnnxFacts, infer_types

_MAX_NODES = 100_000
_SMALL_BYTES = 1 << 16  # of a constant whose values are checked
_MIN_INPUTS = {"Cast": 1, "Resize": 1, "QuantizeLinear": 2, "DequantizeLinear": 2}
_TENSOR_FIELDS = frozenset({1, 2, 5, 8, 9})  # without float_data and the like, which may be one entry for each weight
Fields = Mapping[int, list[int | memoryview]]


def read_facts(model: bytes) -> OnnxFacts:
    """Read the facts about an ONNX model.

    Raises:
        InputError: if the bytes are not an ONNX model, or it has subgraphs, malformed nodes or more than 100,000 nodes.
    """
    top = _read_fields(memoryview(model))
    if not top[7]:
        raise InputError("is not an ONNX model: it has no graph")
    graph = _read_fields(top[7][-1])
    if len(graph[1]) > _MAX_NODES:
        raise InputError(f"has more than {_MAX_NODES} nodes, which no converted Caffe net has")
    opsets = [_read_fields(opset) for opset in top[8]]
    versions = [_int(opset, 2) for opset in opsets if _text(opset, 1) in ("", "ai.onnx")]
    nodes = tuple(_read_node(_read_fields(node)) for node in graph[1])
    tensors = [_read_fields(tensor, _TENSOR_FIELDS) for tensor in graph[5]]
    initializers = {_text(fields, 8): _read_tensor(fields) for fields in tensors}
    inputs, outputs, values = ([_read_value(_read_fields(value)) for value in graph[number]] for number in (11, 12, 13))
    declared = {name: kind for name, kind, _ in (*inputs, *outputs, *values)}
    return OnnxFacts(
        sha256=hashlib.sha256(model).hexdigest(),
        opset=versions[-1] if versions else 0,
        inputs={name: (kind, shape) for name, kind, shape in inputs if name not in initializers},
        outputs=tuple(name for name, _, _ in outputs),
        nodes=nodes,
        initializers=initializers,
        types=infer_types(nodes, declared | {name: constant.type for name, constant in initializers.items()}),
    )


def _read_node(fields: Fields) -> Node:
    op, name, inputs, outputs = _text(fields, 4), _text(fields, 3), fields[1], fields[2]
    if not outputs or len(inputs) < _MIN_INPUTS.get(op, 0):
        raise InputError(f'the node "{name}" ({op}) has {len(inputs)} inputs and {len(outputs)} outputs, too few')
    attributes = {_text(attribute, 1): _read_attribute(attribute) for attribute in map(_read_fields, fields[5])}
    return Node(op, name, tuple(map(wire.to_text, inputs)), tuple(map(wire.to_text, outputs)), attributes)


def _read_attribute(fields: Fields) -> Attribute:
    if fields[6] or fields[11]:
        raise InputError(f'the attribute "{_text(fields, 1)}" is a graph, of If, Loop or Scan; these are not supported')
    if fields[2]:
        return wire.to_float(fields[2][-1])
    if fields[3]:
        return _int(fields, 3)
    if fields[4]:
        return str(wire.to_bytes(fields[4][-1]), "utf-8", "replace")
    if fields[5]:  # a tensor: only its element type is needed
        return _read_tensor(_read_fields(fields[5][-1], _TENSOR_FIELDS)).type
    ints = tuple(number for value in fields[8] for number in wire.read_varints(value))
    return ints or tuple(number for value in fields[7] for number in wire.read_floats(value))


def _read_tensor(fields: Fields) -> Initializer:
    kind = _int(fields, 2)
    zeros_only = None
    if fields[5]:
        zeros_only = not any(number for value in fields[5] for number in wire.read_varints(value))
    elif fields[9] and len(raw := wire.to_bytes(fields[9][-1])) <= _SMALL_BYTES:
        zeros_only = not any(raw)
    shape = tuple(number for value in fields[1] for number in wire.read_varints(value))
    return Initializer(ELEMENT_TYPES.get(kind, f"type {kind}"), shape, zeros_only)


def _read_value(fields: Fields) -> tuple[str, str, tuple[int, ...]]:
    """The name, element type and shape of an input, output or intermediate value."""
    name, kind = _text(fields, 1), ""
    shape: tuple[int, ...] = ()
    for tensor in [_read_fields(value) for typed in map(_read_fields, fields[2]) for value in typed[1]]:
        kind = ELEMENT_TYPES.get(_int(tensor, 1), "")
        sizes = [_read_fields(size) for sizes in map(_read_fields, tensor[2]) for size in sizes[1]]
        shape = tuple(_int(size, 1) if size[1] else -1 for size in sizes)
    return name, kind, shape


def _read_fields(message: int | memoryview, wanted: frozenset[int] | None = None) -> Fields:
    """The fields of a message by number, or those wanted; fields that are missing are empty lists."""
    fields: defaultdict[int, list[int | memoryview]] = defaultdict(list)
    for number, value in wire.read_fields(wire.to_bytes(message)):
        if wanted is None or number in wanted:
            fields[number].append(value)
    return fields


def _text(fields: Fields, number: int) -> str:
    return wire.to_text(fields[number][-1]) if fields[number] else ""


def _int(fields: Fields, number: int) -> int:
    return wire.to_int(fields[number][-1]) if fields[number] else 0
