"""Deciding for every node whether it computes in the narrow type, by the rules of `rules`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from . import rules
from .float_types import FloatType, measure_loss

_FLOAT = ir.DataType.FLOAT
_PIXEL_ARITHMETIC = rules.MOVES | {"Cast", "Sub", "Mul", "Add", "Div"}
_COUNT_ARITHMETIC = rules.MOVES | {"Add", "Sub", "Mul", "Div", "Floor", "Mod", "Min", "Max", "Neg", "Abs", "Clip"}


@dataclass(frozen=True)
class Decisions:
    """What was decided about the nodes of a graph.

    Attributes:
        narrow: the nodes that compute in the narrow type.
        kept: name of each node that stays float32 by a rule of its own -> the reason. Nodes that only move values are
            not listed: they go with what they move.
    """

    narrow: frozenset[ir.Node]
    kept: dict[str, str]


def decide(
    graph: ir.Graph,
    kind: FloatType,
    *,
    keep: Mapping[str, str],
    magnitudes: Mapping[str, float],
    headroom: float,
) -> Decisions:
    """Decide about every node of a float32 graph.

    Args:
        graph: the graph, its values' types known.
        kind: the narrow type.
        keep: names of nodes that stay -> reason.
        magnitudes: the largest magnitude seen of values by name; those not named are not checked.
        headroom: how many times the magnitude seen must fit into the type.
    """
    pixels, counts = _find_pixels(graph), _find_counts(graph)
    tail = _find_tail(graph)
    narrow: set[ir.Node] = set()
    kept: dict[str, str] = {}

    def find_reason(node: ir.Node) -> str | None:
        """Why a node stays; the numbers are those of `rules`."""
        op = node.op_type
        if str(node.name) in keep:  # 2
            return keep[str(node.name)]
        if op in rules.BODIES:  # 3
            return rules.BODIES[op]
        if node in pixels:  # 4
            return rules.REASON_PIXELS
        if node in counts:  # 5
            return rules.REASON_COUNTS
        if op not in rules.NARROW and op not in rules.MOVES:  # 6
            return rules.WIDE.get(op, rules.REASON_UNKNOWN)
        too_large = _find_overflow(node, kind, magnitudes, headroom)
        if too_large is not None:  # 7
            return too_large
        if op in rules.NARROW and node in tail:  # 9
            return rules.REASON_TAIL
        return None

    for node in graph:
        if not has_floats(node):  # 1
            continue
        reason = find_reason(node)
        if node.op_type in rules.MOVES:  # 8
            if reason is None and _moves_narrow(node, narrow):
                narrow.add(node)
        elif reason is None:
            narrow.add(node)
        else:
            kept[str(node.name)] = reason
    return Decisions(frozenset(narrow), kept)


def float_inputs(node: ir.Node) -> list[tuple[int, ir.Value]]:
    """The float32 inputs whose type a node's own type decides, with their places."""
    fixed = rules.FIXED_INPUTS.get(node.op_type, ())
    return [
        (place, value)
        for place, value in enumerate(node.inputs)
        if value is not None and value.dtype == _FLOAT and place not in fixed
    ]


def has_floats(node: ir.Node) -> bool:
    """Whether a node reads or writes float32 tensors, itself or in its bodies."""
    return bool(float_inputs(node)) or any(value.dtype == _FLOAT for value in node.outputs)


def _moves_narrow(node: ir.Node, narrow: set[ir.Node]) -> bool:
    producers = [value.producer() for _, value in float_inputs(node) if value.producer() is not None]
    return bool(producers) and all(producer in narrow for producer in producers)


def _find_overflow(node: ir.Node, kind: FloatType, magnitudes: Mapping[str, float], headroom: float) -> str | None:
    inputs = [value for _, value in float_inputs(node)]
    for value in inputs:
        if value.const_value is not None:
            loss = measure_loss(value.const_value.numpy(), kind)
            if loss.overflowing:
                return f"{loss.overflowing} values of {value.name} exceed {kind.largest:g}, up to {loss.largest:.3g}"
    for value in (*inputs, *(value for value in node.outputs if value.dtype == _FLOAT)):
        seen = magnitudes.get(str(value.name), 0.0)
        if not seen * headroom <= kind.largest:
            return f"{value.name} reaches {seen:.3g} on the images, too near to {kind.largest:g}"
    return None


def _find_pixels(graph: ir.Graph) -> set[ir.Node]:
    """Arithmetic on nothing but the image (an 8-bit input) and constants."""
    values = {value for value in graph.inputs if value.dtype == ir.DataType.UINT8}
    return _follow(graph, values, _PIXEL_ARITHMETIC)


def _find_counts(graph: ir.Graph) -> set[ir.Node]:
    """Casts of integers to float, the image's apart, and arithmetic on nothing but those and constants."""
    first = [
        node
        for node in graph
        if node.op_type == "Cast"
        and node.outputs[0].dtype == _FLOAT
        and node.inputs[0] is not None
        and node.inputs[0].dtype not in (_FLOAT, ir.DataType.UINT8)
    ]
    return set(first) | _follow(graph, {node.outputs[0] for node in first}, _COUNT_ARITHMETIC)


def _follow(graph: ir.Graph, values: set[ir.Value], allowed: frozenset[str]) -> set[ir.Node]:
    """The nodes of allowed operators whose data come from these values, others found so, and constants alone."""
    found: set[ir.Node] = set()
    for node in graph:
        read = [
            value
            for value in node.inputs
            if value is not None and value.const_value is None and (value.dtype == _FLOAT or value in values)
        ]
        if node.op_type in allowed and read and all(value in values for value in read):
            found.add(node)
            values.update(node.outputs)
    return found


def _find_tail(graph: ir.Graph) -> set[ir.Node]:
    """What lies between the last weighted layer and the outputs, where that is nothing but `rules.TAIL`."""
    found: set[ir.Node] = set()
    waiting = [value.producer() for value in graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in found or node.op_type not in rules.TAIL:
            continue
        found.add(node)
        moved = node.inputs if node.op_type == "Concat" else node.inputs[:1]  # the others are sizes and places
        waiting += [value.producer() for value in moved if value is not None]
    return found
