"""Choice of the nodes that compute in a narrow type; the others stay float32, each with a reason.

The first rule that applies decides:

 1. A node without float tensors has no type to choose.
 2. A node the user named stays float32.
 3. Scan, Loop and If stay, with their bodies: their states pass through every step and accumulate rounding.
 4. Pixel values minus their mean stay: 255 levels and a mean of five digits need more than 11 bits; they are rounded
    once, at the first layer.
 5. Counting numbers (pooling masks, coordinates, labels: casts from integers and arithmetic on nothing else) stay:
    float16 counts to 2 048 only, and an unpooling mask must address every pixel.
 6. An operator not in `NARROW` or `MOVES` stays, with the reason in `WIDE` if there is one.
 7. A node whose weights, inputs or outputs do not fit into the type stays.
 8. A node that only moves values has the type of what it moves.
 9. The tail stays: after the last weighted layer the scores are written as float32 anyway, and rounding after the
    interpolation would make ties between classes.

Explicit Cast nodes stand where the type changes. Resize's roi, scales and sizes are never cast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from .float_types import FloatType, measure_loss

#: compute in the narrow type
NARROW = frozenset(
    {
        "Conv", "ConvTranspose", "Gemm", "MatMul",
        "Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "Sigmoid", "Tanh", "Abs", "Neg",
        "Add", "Sub", "Mul", "Max", "Min", "Sum",
        "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Resize",
        "QuantizeLinear", "DequantizeLinear",
    }
)  # fmt: skip

#: only move, copy or repeat values
MOVES = frozenset(
    {
        "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Pad",
        "Expand", "Tile", "Gather", "DepthToSpace", "SpaceToDepth", "Compress", "Where",
    }
)  # fmt: skip

#: stay float32, whatever the range of their values
WIDE = {
    **dict.fromkeys(("Softmax", "LogSoftmax"), "a sum of exponentials over all classes"),
    "Exp": "exceeds float16 at 11.1",
    "Log": "magnifies the rounding of small numbers",
    "Pow": "soon leaves the range of float16",
    **dict.fromkeys(("Sqrt", "Reciprocal"), "belongs to a norm, whose squares leave the range of float16"),
    "Div": "divides by norms and sums that may be tiny",
    **dict.fromkeys(("ReduceSum", "ReduceMean"), "a sum over many values"),
    **dict.fromkeys(("ReduceL2", "ReduceSumSquare"), "a sum of squares"),
    "LRN": "a sum of squares, and a power",
    "BatchNormalization": "divides by a variance, and could not be folded into a convolution",
    **dict.fromkeys(("InstanceNormalization", "MeanVarianceNormalization"), "divides by a variance of the image"),
    **dict.fromkeys(("ArgMax", "TopK", "Greater", "Equal"), "decides by the last digit"),
    "MaxRoiPool": "reads coordinates as numbers",
    "ScatterElements": "writes to places that a pooling mask addresses",
    "GatherElements": "reads places that a pooling mask addresses",
    "Cast": "changes the type itself",
    "ConstantOfShape": "is filled at run time",
    **dict.fromkeys(("Range", "Mod", "Floor"), "counts"),
}

#: contain graphs of their own
BODIES = {
    "Scan": "its state accumulates rounding over the steps",
    "Loop": "its state accumulates rounding over the steps",
    "If": "its branches are chosen at run time",
}

#: operator -> inputs that keep their type
FIXED_INPUTS = {"Resize": (1, 2, 3), "Shape": (0,), "Size": (0,)}

#: products of activations and weights; the tail begins after the last of them
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

#: operators of the tail
TAIL = MOVES | {"Resize", "Softmax", "LogSoftmax", "ArgMax", "Cast"}

REASON_NAMED = "named by the user"
REASON_PIXELS = "pixel values minus their mean need more than 11 bits"
REASON_COUNTS = "counts pixels: a mask, a coordinate or a label"
REASON_TAIL = "the scores leave as float32; rounding after the interpolation would make ties"
REASON_UNKNOWN = "not on the list of operators known to be safe"

#: a value must fit into the type times this, for images with larger values than those observed
HEADROOM = 2.0
_FLOAT = ir.DataType.FLOAT
_PIXEL_ARITHMETIC = MOVES | {"Cast", "Sub", "Mul", "Add", "Div"}
_COUNT_ARITHMETIC = MOVES | {"Add", "Sub", "Mul", "Div", "Floor", "Mod", "Min", "Max", "Neg", "Abs", "Clip"}


@dataclass(frozen=True)
class Decisions:
    """The nodes that compute in the narrow type, and those that stay by a rule other than 8 with the reason."""

    narrow: frozenset[ir.Node]
    kept: dict[str, str]


def decide(graph: ir.Graph, kind: FloatType, *, keep: Mapping[str, str], magnitudes: Mapping[str, float]) -> Decisions:
    """Decide about every node of a float32 graph with typed values.

    `keep` maps the names of nodes that stay to the reason, `magnitudes` values to their largest magnitude observed.
    """
    images = {value for value in graph.inputs if value.dtype == ir.DataType.UINT8}
    pixels, counts, tail = _follow(graph, images, _PIXEL_ARITHMETIC), _find_counts(graph), _find_tail(graph)
    narrow: set[ir.Node] = set()
    kept: dict[str, str] = {}

    def find_reason(node: ir.Node) -> str | None:
        """Return why a node stays, or None."""
        op = node.op_type
        if str(node.name) in keep:  # 2
            return keep[str(node.name)]
        if op in BODIES:  # 3
            return BODIES[op]
        if node in pixels:  # 4
            return REASON_PIXELS
        if node in counts:  # 5
            return REASON_COUNTS
        if op not in NARROW and op not in MOVES:  # 6
            return WIDE.get(op, REASON_UNKNOWN)
        overflow = _find_overflow(node, kind, magnitudes)  # 7
        return overflow or (REASON_TAIL if op in NARROW and node in tail else None)  # 9

    for node in graph:
        if not float_inputs(node) and all(value.dtype != _FLOAT for value in node.outputs):  # 1
            continue
        reason = find_reason(node)
        if node.op_type in MOVES:  # 8
            producers = [value.producer() for _, value in float_inputs(node)]
            moved = [producer for producer in producers if producer is not None]
            if reason is None and moved and narrow.issuperset(moved):
                narrow.add(node)
        elif reason is None:
            narrow.add(node)
        else:
            kept[str(node.name)] = reason
    return Decisions(frozenset(narrow), kept)


def float_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """Return the float32 inputs that have the node's own type, with their places."""
    fixed = FIXED_INPUTS.get(node.op_type, ())
    return [
        (place, value)
        for place, value in enumerate(node.inputs)
        if value is not None and value.dtype == _FLOAT and place not in fixed
    ]


def _find_overflow(node: ir.Node, kind: FloatType, magnitudes: Mapping[str, float]) -> str | None:
    inputs = [value for _, value in float_inputs(node)]
    for value in inputs:
        if value.const_value is not None:
            loss = measure_loss([value.const_value.numpy()], kind)
            if loss.overflowing:
                return f"{loss.overflowing} values of {value.name} exceed {kind.largest:g}, up to {loss.largest:.3g}"
    for value in (*inputs, *(value for value in node.outputs if value.dtype == _FLOAT)):
        seen = magnitudes.get(str(value.name), 0.0)
        if not seen * HEADROOM <= kind.largest:
            return f"{value.name} reaches {seen:.3g} on the images, too close to {kind.largest:g}"
    return None


def _find_counts(graph: ir.Graph) -> set[ir.Node]:
    """Find casts of integers other than the image to float, and arithmetic on nothing but those and constants."""
    first = {
        node
        for node in graph
        if node.op_type == "Cast"
        and node.outputs[0].dtype == _FLOAT
        and node.inputs[0] is not None
        and node.inputs[0].dtype not in (_FLOAT, ir.DataType.UINT8)
    }
    return first | _follow(graph, {node.outputs[0] for node in first}, _COUNT_ARITHMETIC)


def _follow(graph: ir.Graph, values: set[ir.Value], allowed: frozenset[str]) -> set[ir.Node]:
    """Find the nodes of allowed operators that read only these values, constants, and values of nodes found so."""
    found: set[ir.Node] = set()
    for node in graph:
        read = [
            value
            for value in node.inputs
            if value is not None and value.const_value is None and (value.dtype == _FLOAT or value in values)
        ]
        if node.op_type in allowed and read and values.issuperset(read):
            found.add(node)
            values.update(node.outputs)
    return found


def _find_tail(graph: ir.Graph) -> set[ir.Node]:
    """Find the nodes of `TAIL` operators that only such nodes separate from the outputs."""
    found: set[ir.Node] = set()
    waiting = [value.producer() for value in graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in found or node.op_type not in TAIL:
            continue
        found.add(node)
        moved = node.inputs if node.op_type == "Concat" else node.inputs[:1]  # the others are sizes and places
        waiting += [value.producer() for value in moved if value is not None]
    return found
