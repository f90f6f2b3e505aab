"""Facts about an ONNX graph that a build needs: nodes, attributes, element types, inputs; no weights.

`onnx_reader.read_facts` is their only source; preflight, plan, audit and keys use nothing else of the graph.

Element types come from the graph's declarations (inputs, initializers, Cast, Q/DQ). Every other operator's output has
the type of its first input with a known type, which holds for every operator that the converter writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...]

#: TensorProto.DataType -> name
ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    16: "bfloat16",
    17: "float8e4m3fn",
    19: "float8e5m2",
    22: "int4",
}
#: operators that multiply and add, whose operand type is the precision
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
#: operators that only move or retype values
MOVES = (
    frozenset({"Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"})
    | {"Concat", "Gather", "Pad", "Slice", "Split", "Cast", "DequantizeLinear", "QuantizeLinear"}
    | {"Constant", "ConstantOfShape", "Range", "Shape"}
)
_OUTPUT_TYPES = {
    **dict.fromkeys(("Shape", "Size", "ArgMax", "ArgMin", "NonZero"), "int64"),
    **dict.fromkeys(("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Not"), "bool"),
}
_EIGHT_BIT = {"int8": "int8", "uint8": "int8", "float8e4m3fn": "fp8", "float8e5m2": "fp8"}
_PRECISION = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Node:
    """One node; of its attributes, those that are numbers, texts, or tuples of numbers."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name for messages: the node's own, or its first output's."""
        return self.name or (self.outputs[0] if self.outputs else self.op)

    def ints(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return an attribute that is a list of integers."""
        value = self.attributes.get(name, default)
        return tuple(int(item) for item in value) if isinstance(value, tuple) else default


@dataclass(frozen=True)
class Initializer:
    """A constant: its element type and shape; `zeros_only` is None unless it is small and of an integer type."""

    type: str
    shape: tuple[int, ...]
    zeros_only: bool | None = None


@dataclass(frozen=True)
class OnnxFacts:
    """Facts about an ONNX graph.

    Attributes:
        sha256: of the model's bytes.
        opset: of the default domain.
        inputs: name -> (element type, shape) of the inputs without an initializer; -1 is a dynamic size.
        outputs: names.
        nodes: in the file's order.
        initializers: by name.
        types: value -> element type, "" if unknown.
    """

    sha256: str
    opset: int
    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    initializers: Mapping[str, Initializer]
    types: Mapping[str, str]

    def precision_of(self, node: Node) -> str:
        """Return the precision a node computes in: "fp32", "fp16", "bf16", "int8", "fp8", or "other"."""
        source = self._producers.get(node.inputs[0]) if node.inputs else None
        if source is not None and source.op == "DequantizeLinear":
            return _EIGHT_BIT.get(self.types.get(source.inputs[0], ""), "other")
        types = [self.types.get(name, "") for name in (*node.inputs[:1], *node.outputs[:1])]
        return next((_PRECISION[kind] for kind in types if kind in _PRECISION), "other")

    @cached_property
    def product_precisions(self) -> Mapping[str, str]:
        """Node name -> precision of the named convolutions and matrix products."""
        return {node.name: self.precision_of(node) for node in self.nodes if node.op in PRODUCTS and node.name}

    @cached_property
    def precisions(self) -> frozenset[str]:
        """The precisions of all convolutions and matrix products."""
        return frozenset(self.precision_of(node) for node in self.nodes if node.op in PRODUCTS)

    @cached_property
    def _producers(self) -> Mapping[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs}


def infer_types(nodes: Sequence[Node], known: Mapping[str, str]) -> dict[str, str]:
    """Return the element type of every value, "" if unknown; `known` are those that the file declares."""
    types = dict(known)
    for node in nodes:
        if node.op == "Cast":
            target = node.attributes.get("to")
            kind = ELEMENT_TYPES.get(target, "") if isinstance(target, int) else ""
        elif node.op == "QuantizeLinear":
            kind = types.get(node.inputs[2], "uint8") if len(node.inputs) > 2 else "uint8"
        elif node.op in ("DequantizeLinear", "Where"):
            kind = types.get(node.inputs[1], "") if len(node.inputs) > 1 else ""
        elif node.op in ("Constant", "ConstantOfShape"):
            kind = str(node.attributes.get("value", "float32"))
        else:
            kind = _OUTPUT_TYPES.get(node.op) or next((types[n] for n in node.inputs if types.get(n)), "")
        for name in node.outputs:
            types.setdefault(name, kind)
    return types
