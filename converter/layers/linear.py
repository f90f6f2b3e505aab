"""InnerProduct and Embed: layers whose weight is one matrix.

InnerProduct flattens its bottom from `axis` on to K values and multiplies by an (N, K) weight, or (K, N) with
`transpose`. DeepLab v1 has neither field; its blobs are always 4-D: weight (1, 1, N, K), bias (1, 1, 1, N), top
(num, N, 1, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, Window, count, given, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: ONNX element type
INT64 = 7


class _Matrix(Operator):
    """A weight, and a bias with `bias_term`."""

    allows_in_place = False
    param: Any

    def fillers(self) -> tuple[Any, ...]:
        return (self.param.weight_filler, self.param.bias_filler)[: len(self.parameters)]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Attributes of the module, in the order of the blobs."""
        return ("weight", "bias") if self.param.bias_term else ("weight",)


@register_layer("InnerProduct")
class InnerProduct(_Matrix):
    """A fully connected layer over all axes from `axis` on."""

    def set_up(self) -> None:
        self.param = self.context.message.inner_product_param
        self.always_4d = self.context.dialect.four_axis_blobs
        shape = self.bottoms[0].shape
        self.axis = self.bottom_axis(self.param.axis)
        self.inputs, self.outputs = count(shape[self.axis :]), self.param.num_output
        if self.outputs <= 0 or self.inputs <= 0:
            self.refuse(f"has {self.inputs} inputs and {self.outputs} outputs; both must be above 0")

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((*self.bottoms[0].shape[: self.axis], self.outputs, *((1, 1) if self.always_4d else ())),)

    def weight_shapes(self) -> tuple[Shape, ...]:
        matrix = (self.inputs, self.outputs) if self.param.transpose else (self.outputs, self.inputs)
        lead: Shape = (1, 1) if self.always_4d else ()
        bias = ((*lead, *lead[:1], self.outputs),) if self.param.bias_term else ()
        return ((*lead, *matrix), *bias)

    def multiply_adds(self) -> int:
        return count(self.weight_shapes()[0]) * count(self.bottoms[0].shape[: self.axis])

    def window(self) -> Window | None:
        shape = self.bottoms[0].shape
        return Window((shape[2], shape[3]), (1, 1), (0, 0)) if len(shape) == 4 and self.axis <= 2 else None

    def module_spec(self) -> ModuleSpec:
        arguments: dict[str, Any] = {"in_features": self.inputs, "out_features": self.outputs}
        if not self.param.bias_term:
            arguments["bias"] = False
        last = self.axis == len(self.bottoms[0].shape) - 1
        if last and not self.param.transpose and not self.always_4d:
            return ModuleSpec("nn.Linear", arguments, self.parameters)
        arguments |= {"axis": self.axis} if self.axis != 1 else {}
        optional = given(transpose=self.param.transpose, trailing_axes=2 * self.always_4d)
        return ModuleSpec("InnerProduct", arguments | optional, self.parameters)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        is_matrix = self.axis == 1 and len(x.shape) == 2
        rows = x.name if is_matrix else graph.add("Flatten", [x.name], axis=self.axis)
        weights = [graph.parameter(name, getattr(module, name)) for name in self.parameters]
        product = graph.add("Gemm", [rows, *weights], transB=0 if self.param.transpose else 1)
        trailing = (1, 1) if self.always_4d else ()
        if self.axis == 1 and not trailing:
            return [product]
        return [graph.reshape(product, graph.top_shapes[0])]


@register_layer("Embed")
class Embed(_Matrix):
    """Row int(x) of an (input_dim, num_output) table as a new last axis, plus a bias."""

    def set_up(self) -> None:
        self.param = self.context.message.embed_param
        self.require_positive(input_dim=self.param.input_dim, num_output=self.param.num_output)

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((*self.bottoms[0].shape, self.param.num_output),)

    def weight_shapes(self) -> tuple[Shape, ...]:
        table = (self.param.input_dim, self.param.num_output)
        return (table, (self.param.num_output,)) if self.param.bias_term else (table,)

    def module_spec(self) -> ModuleSpec:
        arguments: dict[str, Any] = {"input_dim": self.param.input_dim, "num_output": self.param.num_output}
        if not self.param.bias_term:
            arguments["bias"] = False
        return ModuleSpec("Embed", arguments, self.parameters)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        indices = graph.add("Cast", [bottoms[0].name], to=INT64)
        rows = graph.add("Gather", [graph.parameter("weight", module.weight), indices], axis=0)
        if not self.param.bias_term:
            return [rows]
        return [graph.add("Add", [rows, graph.parameter("bias", module.bias)])]
