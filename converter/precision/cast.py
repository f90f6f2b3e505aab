"""FP16 and BF16: a float32 graph with explicit narrow types.

1. `rules.decide` chooses narrow or float32 for every node, with a reason for each that stays.
2. Weights of narrow nodes are stored in the narrow type; a weight that both kinds read is stored twice.
3. Where the types of a value and its readers differ, one Cast right behind the value serves all those readers,
   including those in the bodies of Scan, Loop and If.
4. Inputs and outputs of the graph keep their names and types.
5. ONNX's full checker, which infers every type anew, accepts the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ...errors import PrecisionError
from .float_types import FloatType, WeightLoss, measure_loss
from .graph import add_constant, load_typed, raise_opset, remove_unread
from .images import Array
from .rules import WEIGHTED, Decisions, decide, float_inputs

_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class BuiltGraph:
    """A graph in another precision, the nodes left alone with the reason, and the losses of weights that were cast."""

    model: onnx.ModelProto
    kept: dict[str, str]
    loss: WeightLoss | None = None


def cast_graph(
    model: onnx.ModelProto,
    kind: FloatType,
    *,
    keep: Mapping[str, str] | None = None,
    magnitudes: Mapping[str, float] | None = None,
) -> BuiltGraph:
    """Return a copy of a float32 graph that computes in a narrow type wherever the rules allow.

    `keep` maps nodes that stay float32 to the reason, `magnitudes` values to the largest magnitude observed, for the
    overflow check. Raises PrecisionError if the opset cannot be raised to what the type needs, or no weighted layer can
    be narrow.
    """
    typed = load_typed(raise_opset(model, kind.opset))
    decisions = decide(typed.graph, kind, keep=keep or {}, magnitudes=magnitudes or {})
    if not any(node.op_type in WEIGHTED for node in decisions.narrow):
        reasons = sorted(set(decisions.kept.values()))
        raise PrecisionError(f"no layer with weights can be {kind.name}: {'; '.join(reasons[:4])}")
    loss = _retype(typed.graph, decisions, kind)
    result = ir.to_proto(typed)
    onnx.checker.check_model(result, full_check=True)
    return BuiltGraph(result, decisions.kept, loss)


def _retype(graph: ir.Graph, decisions: Decisions, kind: FloatType) -> WeightLoss:
    """Change types and insert Casts; returns the losses of the narrow weights."""
    narrow_type = ir.DataType.from_numpy(kind.dtype)
    stored: list[Array] = []
    made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def cast(value: ir.Value, wanted: ir.DataType, name: str) -> ir.Value:
        """Return the value in another type: a stored copy of a constant, else a Cast right behind its producer."""
        if value.const_value is not None:
            stored.append(value.const_value.numpy())
            return add_constant(graph, name, stored[-1].astype(kind.dtype))
        result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(wanted))
        node = ir.node("Cast", [value], {"to": wanted}, outputs=[result], name=f"{name}/Cast/node")
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(producer, node)
        return result

    readers = [(node, float_inputs(node)) for node in ir.traversal.RecursiveGraphIterator(graph)]
    for node in decisions.narrow:
        for value in node.outputs:
            if value.dtype == _FLOAT:
                value.dtype = narrow_type
    for node, inputs in readers:
        wanted = narrow_type if node in decisions.narrow else _FLOAT
        for place, value in inputs:
            if value.dtype == wanted:
                continue
            if (value, wanted) not in made:
                short = "float32" if wanted == _FLOAT else kind.name
                made[value, wanted] = cast(value, wanted, f"{value.name}/{short}")
            node.replace_input_with(place, made[value, wanted])
    for place, value in enumerate(list(graph.outputs)):
        if value.dtype == narrow_type:
            name = str(value.name)
            value.name = f"{name}/{kind.name}"
            graph.outputs[place] = cast(value, _FLOAT, name)
    remove_unread(graph)
    return measure_loss(stored, kind)
