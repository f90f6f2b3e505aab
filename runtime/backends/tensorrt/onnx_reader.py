"""Reads the facts about an ONNX graph from the file's bytes, without protobuf and without its weights.

The field numbers are those of onnx.proto: ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, TypeProto.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ... import wire
from ...errors import InputError
from .onnx_facts import ELEMENT_TYPES, Attribute, Initializer, Node, OnnxFacts, infer_types

_MAX_NODES = 100_000
_SMALL_BYTES = 1 << 16  # of a constant whose values are checked
_MIN_INPUTS = {"Cast": 1, "Resize": 1, "QuantizeLinear": 2, "DequantizeLinear": 2}


def read_facts(model: bytes) -> OnnxFacts:
    """Read the facts about an ONNX model.

    Raises:
        InputError: if the bytes are not an ONNX model, or it has subgraphs, malformed nodes or more than 100,000 nodes.
    """
    opset, graph = 0, None
    for number, value in wire.read_fields(memoryview(model)):
        if number == 7:
            graph = wire.to_bytes(value)
        elif number == 8:
            domain, version = _read_opset(wire.to_bytes(value))
            opset = version if domain in ("", "ai.onnx") else opset
    if graph is None:
        raise InputError("is not an ONNX model: it has no graph")
    nodes: list[Node] = []
    initializers: dict[str, Initializer] = {}
    values: dict[str, tuple[str, tuple[int, ...]]] = {}
    inputs: list[str] = []
    outputs: list[str] = []
    for number, value in wire.read_fields(graph):
        if number == 1:
            nodes.append(_read_node(wire.to_bytes(value)))
            if len(nodes) > _MAX_NODES:
                raise InputError(f"has more than {_MAX_NODES} nodes, which no converted Caffe net has")
        elif number == 5:
            name, initializer = _read_tensor(wire.to_bytes(value))
            initializers[name] = initializer
        elif number in (11, 12, 13):
            name, kind, shape = _read_value(wire.to_bytes(value))
            values[name] = (kind, shape)
            {11: inputs, 12: outputs}.get(number, []).append(name)
    fed = {name: values[name] for name in inputs if name not in initializers}
    types = {name: kind for name, (kind, _) in values.items()} | {n: i.type for n, i in initializers.items()}
    return OnnxFacts(
        sha256=hashlib.sha256(model).hexdigest(),
        opset=opset,
        inputs=fed,
        outputs=tuple(outputs),
        nodes=tuple(nodes),
        initializers=initializers,
        types=infer_types(nodes, types),
    )


def _read_opset(message: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in wire.read_fields(message):
        if number == 1:
            domain = wire.to_text(value)
        elif number == 2:
            version = wire.to_int(value)
    return domain, version


def _read_node(message: memoryview) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    attributes: dict[str, Attribute] = {}
    for number, value in wire.read_fields(message):
        if number in texts:
            texts[number].append(wire.to_text(value))
        elif number == 5:
            attributes.update(_read_attribute(wire.to_bytes(value)))
    op, name, domain = ("".join(texts[number][-1:]) for number in (4, 3, 7))
    if not texts[2] or len(texts[1]) < _MIN_INPUTS.get(op, 0):
        raise InputError(f'the node "{name}" ({op}) has {len(texts[1])} inputs and {len(texts[2])} outputs, too few')
    return Node(op, name, tuple(texts[1]), tuple(texts[2]), attributes, domain)


def _read_attribute(message: memoryview) -> Iterator[tuple[str, Attribute]]:
    name = ""
    value_found: Attribute | None = None
    ints: list[int] = []
    floats: list[float] = []
    for number, value in wire.read_fields(message):
        if number == 1:
            name = wire.to_text(value)
        elif number == 2:
            value_found = wire.to_float(value)
        elif number == 3:
            value_found = wire.to_int(value)
        elif number == 4:
            value_found = str(wire.to_bytes(value), "utf-8", "replace")
        elif number == 5:  # a tensor: only its element type is needed
            value_found = _read_tensor(wire.to_bytes(value))[1].type
        elif number in (6, 11):
            raise InputError(f'the attribute "{name}" is a graph, of If, Loop or Scan; these are not supported')
        elif number == 7:
            floats += wire.read_floats(value)
        elif number == 8:
            ints += wire.read_varints(value)
    yield name, value_found if value_found is not None else tuple(ints) or tuple(floats)


def _read_tensor(message: memoryview) -> tuple[str, Initializer]:
    name, kind = "", 0
    shape: list[int] = []
    zeros_only: bool | None = None
    for number, value in wire.read_fields(message):
        if number == 1:
            shape += wire.read_varints(value)
        elif number == 2:
            kind = wire.to_int(value)
        elif number == 5:
            zeros_only = not any(wire.read_varints(value))
        elif number == 8:
            name = wire.to_text(value)
        elif number == 9:
            raw = wire.to_bytes(value)
            zeros_only = not any(raw) if len(raw) <= _SMALL_BYTES else None
    return name, Initializer(ELEMENT_TYPES.get(kind, f"type {kind}"), tuple(shape), zeros_only)


def _read_value(message: memoryview) -> tuple[str, str, tuple[int, ...]]:
    name, kind = "", ""
    shape: tuple[int, ...] = ()
    for number, value in wire.read_fields(message):
        if number == 1:
            name = wire.to_text(value)
        elif number == 2:
            for inner, content in wire.read_fields(wire.to_bytes(value)):
                if inner == 1:
                    kind, shape = _read_tensor_type(wire.to_bytes(content))
    return name, kind, shape


def _read_tensor_type(message: memoryview) -> tuple[str, tuple[int, ...]]:
    kind, shape = "", []
    for number, value in wire.read_fields(message):
        if number == 1:
            kind = ELEMENT_TYPES.get(wire.to_int(value), "")
        elif number == 2:
            for inner, dimension in wire.read_fields(wire.to_bytes(value)):
                if inner == 1:
                    sizes = [wire.to_int(v) for n, v in wire.read_fields(wire.to_bytes(dimension)) if n == 1]
                    shape.append(sizes[0] if sizes else -1)
    return kind, tuple(shape)
