"""FP16 and BF16: a float32 graph with its types made explicit.

1. Every node is decided about (`decisions`): narrow or float32, with the reason for each that stays.
2. Weights of narrow nodes are stored in the narrow type; a weight that both kinds read is stored twice.
3. Where a value's type and its reader's differ stands one Cast, right behind the value, shared by all such readers,
   those in the bodies of Scan, Loop and If too.
4. Inputs and outputs of the graph keep their names and types.
5. The result passes ONNX's full checker, which infers every type anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ...errors import PrecisionError
from . import rules
from .decisions import Decisions, decide, float_inputs
from .float_types import NO_LOSS, FloatType, WeightLoss, measure_loss
from .opset import raise_opset

#: a value must fit this many times into the type, for images beyond those it was seen on
HEADROOM = 2.0
_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class TypedGraph:
    """A graph in a narrow type.

    Attributes:
        model: the ONNX model.
        kept: node that stayed float32 -> the reason.
        narrow: how many nodes compute in the narrow type.
        loss: what the narrow weights lost.
        losses: the same by weight.
    """

    model: onnx.ModelProto
    kept: dict[str, str]
    narrow: int
    loss: WeightLoss
    losses: dict[str, WeightLoss]


def cast_graph(
    model: onnx.ModelProto,
    kind: FloatType,
    *,
    keep: Mapping[str, str] | None = None,
    magnitudes: Mapping[str, float] | None = None,
    headroom: float = HEADROOM,
) -> TypedGraph:
    """Make a float32 graph compute in a narrow type wherever the rules allow.

    Args:
        model: the graph; it is not changed.
        kind: float16 or bfloat16.
        keep: nodes that stay float32 -> the reason.
        magnitudes: largest magnitude of values on images, for the overflow check.
        headroom: how many times a magnitude seen must fit into the type.

    Raises:
        PrecisionError: the opset cannot be raised to what the type needs, or nothing is left to narrow.
    """
    typed = load_typed(raise_opset(model, kind.opset))
    graph = typed.graph
    decisions = decide(graph, kind, keep=keep or {}, magnitudes=magnitudes or {}, headroom=headroom)
    if not any(node.op_type in rules.WEIGHTED for node in decisions.narrow):
        reasons = sorted({reason for name, reason in decisions.kept.items()})
        raise PrecisionError(f"no layer with weights can be {kind.name}: {'; '.join(reasons[:4])}")
    losses = _retype(graph, decisions, kind)
    result = ir.to_proto(typed)
    onnx.checker.check_model(result, full_check=True)
    total = sum(losses.values(), NO_LOSS)
    return TypedGraph(result, decisions.kept, len(decisions.narrow), total, losses)


def load_typed(model: onnx.ModelProto) -> ir.Model:
    """A model for editing, with the type of every value known."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def _retype(graph: ir.Graph, decisions: Decisions, kind: FloatType) -> dict[str, WeightLoss]:
    """Change types and insert Casts; returns what each narrow weight lost."""
    narrow_type = ir.DataType(kind.onnx_type)
    writer = _CastWriter(graph, kind)
    readers = [(node, float_inputs(node)) for node in ir.traversal.RecursiveGraphIterator(graph)]
    results = [value for value in graph.outputs if value.dtype == _FLOAT]
    for node in decisions.narrow:
        for value in node.outputs:
            if value.dtype == _FLOAT:
                value.dtype = narrow_type
    for node, inputs in readers:
        wanted = narrow_type if node in decisions.narrow else _FLOAT
        for place, value in inputs:
            if value.dtype != wanted:
                node.replace_input_with(place, writer.cast(value, wanted))
    for value in results:
        if value.dtype != _FLOAT:
            writer.restore_output(value)
    writer.drop_unread()
    return writer.losses


class _CastWriter:
    """Makes values of the other type, each once."""

    def __init__(self, graph: ir.Graph, kind: FloatType) -> None:
        self._graph, self._kind = graph, kind
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.losses: dict[str, WeightLoss] = {}

    def cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """The value in another type: a stored copy of a constant, else a Cast right behind its producer."""
        key = (value, wanted)
        if key not in self._made:
            constant = value.const_value
            self._made[key] = self._store(value) if constant is not None else self._insert(value, wanted)
        return self._made[key]

    def _store(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        array = value.const_value.numpy()
        self.losses[str(value.name)] = measure_loss(array, self._kind)
        name = f"{value.name}/{self._kind.name}"
        tensor = ir.tensor(array.astype(self._kind.dtype), name=name)
        stored = ir.Value(name=name, shape=value.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(stored)
        return stored

    def _insert(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        short = "float32" if wanted == _FLOAT else self._kind.name
        made = ir.Value(name=f"{value.name}/{short}", shape=value.shape, type=ir.TensorType(wanted))
        self._place(value, made, wanted)
        return made

    def restore_output(self, value: ir.Value) -> None:
        """Give a narrow output of the graph its float32 type back, under its own name."""
        name = str(value.name)
        value.name = f"{name}/{self._kind.name}"
        made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(_FLOAT))
        self._place(value, made, _FLOAT)
        outputs = self._graph.outputs
        outputs[list(outputs).index(value)] = made

    def _place(self, value: ir.Value, made: ir.Value, wanted: ir.DataType) -> None:
        node = ir.node("Cast", [value], {"to": wanted}, outputs=[made], name=f"{made.name}/Cast/node")
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)

    def drop_unread(self) -> None:
        """Forget float32 constants that nobody reads any more."""
        results = set(self._graph.outputs)
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and value not in results:
                del self._graph.initializers[name]
