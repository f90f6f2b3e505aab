"""What a build needs to know of an ONNX graph: nodes, attributes, element types, inputs; no weights.

Element types follow the graph's own words (inputs, initializers, Cast, Q/DQ) by one rule for all other operators: an
output has the type of the first input that carries one. That is true of every operator the converter writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
FLOATS = ("float32", "float16", "bfloat16")
#: operators that multiply and add: what a precision is about
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: operators that only move or retype values
MOVES = frozenset(
    {
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "QuantizeLinear",
        "Range",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_OUTPUT_TYPES = {
    "Shape": "int64",
    "Size": "int64",
    "ArgMax": "int64",
    "ArgMin": "int64",
    "NonZero": "int64",
    **dict.fromkeys(("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Not"), "bool"),
}
_EIGHT_BIT = {"int8": "int8", "uint8": "int8", "float8e4m3fn": "fp8", "float8e5m2": "fp8"}
_PRECISION = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Node:
    """One node: its operator, name, inputs, outputs and plain attributes (numbers, texts, tuples of numbers)."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    domain: str = ""

    @property
    def title(self) -> str:
        """What messages call it: its name, or its first output's."""
        return self.name or (self.outputs[0] if self.outputs else self.op)

    def ints(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        value = self.attributes.get(name, default)
        return tuple(int(item) for item in value) if isinstance(value, tuple) else default


@dataclass(frozen=True)
class Initializer:
    """A constant: its element type and shape; `zeros_only` is told for small integer ones, else None."""

    type: str
    shape: tuple[int, ...]
    zeros_only: bool | None = None
    external: bool = False


@dataclass(frozen=True)
class OnnxFacts:
    """An ONNX graph without its weights.

    Attributes:
        sha256: of the model's bytes.
        opset: of the default domain.
        inputs: name -> (element type, shape) of what must be fed; -1 stands for a free size.
        outputs: names.
        nodes: in the file's order.
        initializers: by name.
        types: value -> element type, as far as it can be told.
    """

    sha256: str
    opset: int
    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    initializers: Mapping[str, Initializer]
    types: Mapping[str, str]

    def precision_of(self, node: Node) -> str:
        """What a node computes in by the graph's own words: "fp32", "fp16", "bf16", "int8", "fp8", or "other"."""
        producers = self._producers
        source = producers.get(node.inputs[0]) if node.inputs else None
        if source is not None and source.op == "DequantizeLinear":
            return _EIGHT_BIT.get(self.types.get(source.inputs[0], ""), "other")
        types = [self.types.get(name, "") for name in (*node.inputs[:1], *node.outputs[:1])]
        return next((_PRECISION[kind] for kind in types if kind in _PRECISION), "other")

    @property
    def precisions(self) -> frozenset[str]:
        """The precisions of its products: convolutions and matrix products."""
        return frozenset(self.precision_of(node) for node in self.nodes if node.op in PRODUCTS)

    @property
    def has_quantization(self) -> bool:
        """Whether it holds QuantizeLinear or DequantizeLinear."""
        return any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in self.nodes)

    @property
    def _producers(self) -> Mapping[str, Node]:
        found: Mapping[str, Node] | None = self.__dict__.get("_by_output")
        if found is None:
            found = {name: node for node in self.nodes for name in node.outputs}
            object.__setattr__(self, "_by_output", found)
        return found

    def producer(self, value: str) -> Node | None:
        """The node that makes a value, None for inputs and initializers."""
        return self._producers.get(value)


def infer_types(nodes: Sequence[Node], known: Mapping[str, str]) -> dict[str, str]:
    """The element type of every value, as far as it can be told; `known` are those the file states."""
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
