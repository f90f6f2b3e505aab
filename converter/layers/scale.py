"""Scale and Bias: multiply by, or add, a parameter blob or a second bottom along some axes.

With one bottom the blob's shape is bottom.shape[axis : axis + num_axes] (num_axes 0: one scalar, -1: to the end); with
two, the second bottom is the operand, its shape must equal the first's from `axis` on, and num_axes is not used. Scale
with bias_term has a second blob of the factor's shape. Sources: docs of BVLC's ScaleParameter and BiasParameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


class _AlongAxes(Operator):
    """Position of the operand (factor or addend) within the bottom's axes."""

    bottom_range = (1, 2)
    adds_per_value = 1
    param: Any

    def find_operand(self) -> None:
        """Set `operand` (its shape) and `trailing` (the number of the bottom's axes after it)."""
        shape = self.bottoms[0].shape
        self.from_bottom = len(self.bottoms) == 2
        if self.from_bottom:
            self.operand = self.bottoms[1].shape
            axis = self.bottom_axis(self.param.axis) if self.operand else 0
        else:
            axis = self.bottom_axis(self.param.axis)
            end = len(shape) if self.param.num_axes == -1 else axis + self.param.num_axes
            if self.param.num_axes < -1 or end > len(shape):
                self.refuse(f"num_axes {self.param.num_axes} from axis {axis} is out of range for the bottom {shape}")
            self.operand = shape[axis:end]
        self.trailing = len(shape) - axis - len(self.operand)
        if self.trailing < 0 or shape[axis : axis + len(self.operand)] != self.operand:
            self.refuse(f"its second bottom {self.operand} does not equal {shape} from axis {axis} on; check `axis`")

    @property
    def broadcast_shape(self) -> Shape:
        """The operand's shape, then ones for the axes after it."""
        return (*self.operand, *(1,) * self.trailing)

    def operand_value(self, graph: OnnxGraph, value: Value) -> str:
        """The second bottom, unsqueezed so that it broadcasts."""
        if not self.trailing or not self.operand:
            return value.name
        axes = range(len(self.operand), len(self.operand) + self.trailing)
        return graph.add("Unsqueeze", [value.name, graph.constant(list(axes), "int64")])


@register_layer("Scale")
class Scale(_AlongAxes):
    """y = x * factor (+ bias)."""

    def set_up(self) -> None:
        self.param = self.context.message.scale_param
        self.find_operand()

    def weight_shapes(self) -> tuple[Shape, ...]:
        return (self.operand,) * (int(not self.from_bottom) + int(self.param.bias_term))

    def fillers(self) -> tuple[Any, ...]:
        factor = () if self.from_bottom else (self.filler_or(self.param, "filler", 1.0),)
        return (*factor, *((self.param.bias_filler,) if self.param.bias_term else ()))

    def module_spec(self) -> ModuleSpec:
        bias = bool(self.param.bias_term)
        if self.from_bottom:
            arguments = {"trailing": self.trailing, "bias_shape": self.broadcast_shape if bias else None}
            return ModuleSpec("ScaleByBottom", arguments, ("bias",) if bias else ())
        return ModuleSpec("Scale", {"shape": self.broadcast_shape, "bias": bias}, ("weight", "bias")[: 1 + bias])

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        factor = self.operand_value(graph, bottoms[1]) if self.from_bottom else graph.parameter("weight", module.weight)
        scaled = graph.add("Mul", [bottoms[0].name, factor])
        if module.bias is None:
            return [scaled]
        return [graph.add("Add", [scaled, graph.parameter("bias", module.bias)])]


@register_layer("Bias")
class Bias(_AlongAxes):
    """y = x + addend."""

    def set_up(self) -> None:
        self.param = self.context.message.bias_param
        self.find_operand()

    def weight_shapes(self) -> tuple[Shape, ...]:
        return () if self.from_bottom else (self.operand,)

    def fillers(self) -> tuple[Any, ...]:
        return () if self.from_bottom else (self.param.filler,)

    def module_spec(self) -> ModuleSpec:
        if self.from_bottom:
            return ModuleSpec("BiasByBottom", {"trailing": self.trailing})
        return ModuleSpec("Bias", {"shape": self.broadcast_shape}, ("bias",))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        addend = self.operand_value(graph, bottoms[1]) if self.from_bottom else graph.parameter("bias", module.bias)
        return [graph.add("Add", [bottoms[0].name, addend])]
