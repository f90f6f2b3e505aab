"""Layers that combine blobs element by element, and Softmax.

Eltwise needs bottoms of equal shapes. SENet's Axpy and DeepLab v2's SpatialProduct broadcast one operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


@register_layer("Eltwise")
class Eltwise(Operator):
    """SUM (with a coefficient for each bottom), PROD or MAX of bottoms of the same shape.

    If the top overwrites the first bottom, Caffe's CPU code for SUM and MAX clears that bottom before reading it; this
    is reproduced, with a note. PROD keeps it. (Caffe's GPU code clears it for SUM only.)
    """

    bottom_range = (2, None)

    def set_up(self) -> None:
        param = self.context.message.eltwise_param
        self.operation = param.DESCRIPTOR.enum_types_by_name["EltwiseOp"].values_by_number[param.operation].name
        coefficients = list(param.coeff)
        for blob in self.bottoms[1:]:
            if blob.shape != self.bottoms[0].shape:
                shapes = f'"{blob.name}" {blob.shape} and "{self.bottoms[0].name}" {self.bottoms[0].shape}'
                self.refuse(f"has bottoms {shapes}; their shapes must be equal, Eltwise does not broadcast")
        if coefficients and self.operation == "PROD":
            self.refuse("has coeff, which is for SUM only; remove it")
        if coefficients and len(coefficients) != len(self.bottoms):
            self.refuse(f"has {len(coefficients)} coeff for {len(self.bottoms)} bottoms; give one for each or none")
        coefficients = coefficients or [1.0] * len(self.bottoms)
        self.loses_first = self.operation != "PROD" and self.context.top_names[0] == self.bottoms[0].name
        if self.loses_first:
            coefficients[0] = 0.0
        self.coefficients = tuple(coefficients)

    def notes(self) -> tuple[str, ...]:
        if not self.loses_first:
            return ()
        name = self.bottoms[0].name
        return (
            f'overwrites its bottom "{name}", which Caffe\'s CPU code clears before {self.operation} reads it: the '
            f'result ignores "{name}". Rename the top to include it',
        )

    def module_spec(self) -> ModuleSpec:
        if self.operation == "MAX":
            return ModuleSpec("EltwiseMax", {"skip": 1} if self.loses_first else {})
        if self.operation == "PROD":
            return ModuleSpec("EltwiseProduct")
        plain = all(coefficient == 1 for coefficient in self.coefficients)
        return ModuleSpec("EltwiseSum", {} if plain else {"coefficients": self.coefficients})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        names = [bottom.name for bottom in bottoms]
        if self.operation == "MAX":
            return [graph.add("Max", names[1:] if self.loses_first else names)]
        if self.operation == "PROD":
            return [_chain(graph, "Mul", names)]
        terms = [
            name if coefficient == 1 else graph.add("Mul", [name, graph.constant(coefficient)])
            for name, coefficient in zip(names, self.coefficients, strict=True)
            if coefficient != 0
        ]
        if not terms:
            return [graph.add("Expand", [graph.constant(0.0), graph.add("Shape", [names[0]])])]
        return [_chain(graph, "Add", terms)]


def _chain(graph: OnnxGraph, op_type: str, names: Sequence[str]) -> str:
    """Nodes of two inputs in a row, which round in Caffe's order."""
    result = names[0]
    for name in names[1:]:
        result = graph.add(op_type, [result, name])
    return result


@register_layer("Softmax")
class Softmax(Operator):
    """exp(x) / sum(exp(x)) along an axis (1 by default)."""

    def set_up(self) -> None:
        self.axis = self.bottom_axis(self.context.message.softmax_param.axis)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("nn.Softmax", {"dim": self.axis})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        return [graph.add("Softmax", [bottoms[0].name], axis=self.axis)]


@register_layer("Axpy")
class Axpy(Operator):
    """SENet's a x + y: a (N, C) or (N, C, 1, 1), x and y (N, C, ...)."""

    bottom_range = (3, 3)
    allows_in_place = False

    def set_up(self) -> None:
        a, x, y = (blob.shape for blob in self.bottoms)
        if x != y:
            self.refuse(f"has x of shape {x} and y of shape {y}; they must be equal")
        if len(a) < 2 or a[:2] != x[:2] or any(size != 1 for size in a[2:]):
            self.refuse(f"needs a factor with one value for each item and channel of {x}, has {a}")

    def top_shapes(self) -> tuple[Shape, ...]:
        return (self.bottoms[1].shape,)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Axpy")

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        a, x, y = bottoms
        factor = a.name
        if len(a.shape) != len(x.shape):
            factor = graph.reshape(factor, [0, 0] + [1] * (len(x.shape) - 2))
        return [graph.add("Add", [graph.add("Mul", [factor, x.name]), y.name])]


@register_layer("SpatialProduct")
class SpatialProduct(Operator):
    """DeepLab v2's attention: every channel of x (N, C, H, W) times a map (N, 1, H, W)."""

    bottom_range = (2, 2)

    def set_up(self) -> None:
        x, weight = (blob.shape for blob in self.bottoms)
        if len(x) < 2 or weight != (x[0], 1, *x[2:]):
            self.refuse(f"needs a map with one channel and the other axes of {x}, has {weight}")

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("EltwiseProduct")

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        return [graph.add("Mul", [bottom.name for bottom in bottoms])]
