"""Facts about an ONNX graph that a runtime needs before it loads or builds the file, so that it need not parse it.

`bundle.manifest.GraphFacts` lists them. Nodes in the bodies of Scan, Loop and If are not described.

Patterns are known problems in some TensorRT version:

| pattern | the node |
|---|---|
| `late_pooling_window` | pools with ceil_mode; a window can start behind the input, where Caffe drops it |
| `padded_ceil_average` | averages with ceil_mode and padding: the divisor differs between frameworks |
| `dilated_pooling` | pools with dilations |
| `pooling_indices` | is a MaxPool that also writes the places of its maxima |
| `unsupported_operator` | is one that no TensorRT parser has: Compress, MaxRoiPool, Dropout in training mode |
| `data_dependent_size` | writes as many values as it finds: NonMaxSuppression, NonZero |
| `computed_bias` | has constant weights and a computed bias |
| `shifted_zero_point`, `missing_zero_point` | quantizes with a zero point other than a constant 0, or with none |
| `uint8_codes`, `narrow_scale` | quantizes to uint8, or with a scale of another type than float32 |
| `bool_resize`, `aligned_resize_by_scales` | resizes bool, or by scales with align_corners |
| `uint8_operand` | reads uint8 and neither casts nor quantizes it |
| `uint8_cast` | casts uint8 from or to a type other than float32 and float16 |
| `partial_shape`, `pad_axes` | is a Shape with start or end, or a Pad with axes |
| `argmax` | is an ArgMax, slow over large maps |
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from ...bundle.manifest import GraphBlob, GraphFacts, NodePrecision
from .graph import load_typed, read_opset
from .rules import MOVES, WEIGHTED

#: operator -> the pattern that every node of it has
_OF_OPERATOR = {
    "ArgMax": "argmax",
    "Compress": "unsupported_operator",
    "MaxRoiPool": "unsupported_operator",
    "NonMaxSuppression": "data_dependent_size",
    "NonZero": "data_dependent_size",
}
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
PATTERNS = (
    "late_pooling_window", "padded_ceil_average", "dilated_pooling", "pooling_indices", "unsupported_operator",
    "data_dependent_size", "computed_bias", "shifted_zero_point", "missing_zero_point", "uint8_codes",
    "narrow_scale", "bool_resize", "aligned_resize_by_scales", "uint8_operand", "uint8_cast", "partial_shape",
    "pad_axes", "argmax",
)  # fmt: skip
_PRECISIONS: dict[str, NodePrecision] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_CODES: dict[str, NodePrecision] = {"int8": "int8", "uint8": "int8", "float8e4m3fn": "fp8", "float8e5m2": "fp8"}
#: neither compute nor round
_TRANSPARENT = MOVES | {"Cast", "Constant", "ConstantOfShape", "Range", "Shape", *_QUANTIZERS}


def describe_graph(model: onnx.ModelProto) -> GraphFacts:
    """Describe a valid ONNX model for the manifest."""
    graph = load_typed(model).graph
    nodes = {str(node.name or node.outputs[0].name): node for node in graph}
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    types = {_type_of(value) for value in values} - {""}
    wide = {
        title: node.op_type
        for title, node in nodes.items()
        if node.op_type not in _TRANSPARENT
        and _type_of(node.outputs[0]) == "float32"
        and _read_precision(node) == "fp32"
    }
    patterns: dict[str, list[str]] = {name: [] for name in PATTERNS}
    for title, node in nodes.items():
        for name in _find_patterns(node):
            patterns[name].append(title)
    bodies = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return GraphFacts(
        opset=read_opset(model),
        inputs={str(value.name): _describe(value) for value in graph.inputs if not value.is_initializer()},
        outputs={str(value.name): _describe(value) for value in graph.outputs},
        types=tuple(sorted(types)),
        subgraphs=tuple(t for t, node in nodes.items() if any(a.type in bodies for a in node.attributes.values())),
        quantized=any(node.op_type in _QUANTIZERS for node in graph),
        node_precisions={t: _read_precision(node) for t, node in nodes.items() if node.op_type in WEIGHTED},
        wide_nodes=wide if "float16" in types else {},
        patterns={name: tuple(titles) for name, titles in patterns.items()},
    )


def _type_of(value: ir.Value | None) -> str:
    """Return the element type of a value, "" if unknown."""
    if value is None or value.dtype is None:
        return ""
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(value.dtype.name, value.dtype.name.lower())


def _describe(value: ir.Value) -> GraphBlob:
    sides = value.shape if value.shape is not None else ()
    return GraphBlob(type=_type_of(value), shape=tuple(side if isinstance(side, int) else -1 for side in sides))


def _read_precision(node: ir.Node) -> NodePrecision:
    source = _input(node, 0)
    producer = source.producer() if source is not None else None
    if producer is not None and producer.op_type == "DequantizeLinear":
        return _CODES.get(_type_of(producer.inputs[0]), "other")
    return _PRECISIONS.get(_type_of(source) or _type_of(node.outputs[0]), "other")


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if len(node.inputs) > place else None


def _find_patterns(node: ir.Node) -> Iterator[str]:
    """Find the patterns of a node, see the module docstring."""
    op, attributes = node.op_type, node.attributes
    reads, writes = [_type_of(value) for value in node.inputs], [_type_of(value) for value in node.outputs]
    if op in ("MaxPool", "AveragePool"):
        kernel = attributes.get_ints("kernel_shape", ())
        strides, pads = attributes.get_ints("strides", [1] * len(kernel)), attributes.get_ints("pads", ())
        ends = pads[len(kernel) :] or [0] * len(kernel)
        if any(dilation != 1 for dilation in attributes.get_ints("dilations", ())):
            yield "dilated_pooling"
        if len(node.outputs) > 1 and node.outputs[1].name:
            yield "pooling_indices"
        # Let the padded input be L long. Windows start at multiples of the stride s; ceil_mode lets the last one start
        # as late as L - k + s - 1. The input itself ends at L - p, so this can be behind it iff p + s - 1 >= k.
        if attributes.get_int("ceil_mode", 0):
            if any(pad + stride > size for size, stride, pad in zip(kernel, strides, ends, strict=True)):
                yield "late_pooling_window"
            if op == "AveragePool" and any(pads):
                yield "padded_ceil_average"
    elif op in ("Conv", "ConvTranspose"):
        weights, bias = _input(node, 1), _input(node, 2)
        if weights is not None and weights.const_value is not None and bias is not None and bias.const_value is None:
            yield "computed_bias"
    elif op in _QUANTIZERS:
        zero = _input(node, 2)
        if zero is None:
            yield "missing_zero_point"
        elif zero.const_value is None or zero.const_value.numpy().astype("float32").any():
            yield "shifted_zero_point"
        if "uint8" in (reads[0], writes[0]):
            yield "uint8_codes"
        if reads[1] != "float32":
            yield "narrow_scale"
    elif op == "Resize":
        if reads[0] == "bool":
            yield "bool_resize"
        aligned = attributes.get_string("coordinate_transformation_mode", "") == "align_corners"
        if aligned and _input(node, 3) is None:
            yield "aligned_resize_by_scales"
    elif op == "Cast":
        if "uint8" in reads + writes and not {"float32", "float16"} & {*reads, *writes}:
            yield "uint8_cast"
    elif op == "Shape" and {"start", "end"} & attributes.keys():
        yield "partial_shape"
    elif op == "Dropout":
        training = _input(node, 2)
        if training is not None and (training.const_value is None or training.const_value.numpy().any()):
            yield "unsupported_operator"
    elif op == "Pad" and _input(node, 3) is not None:
        yield "pad_axes"
    elif op in _OF_OPERATOR:
        yield _OF_OPERATOR[op]
    if op not in ("Cast", *_QUANTIZERS) and "uint8" in reads:
        yield "uint8_operand"
