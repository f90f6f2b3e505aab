"""Layers without bottoms that belong to the computation: constant DummyData, and Parameter.

DummyData: one shape for all tops or one for each, as `shape` or as num, channels, height and width; one filler for all,
one for each, or none (0). Layers that read files are replaced by inputs earlier, in `converter.graph`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


@register_layer("DummyData")
class DummyData(Operator):
    """Constant blobs."""

    bottom_range = (0, 0)
    top_range = (1, None)

    def set_up(self) -> None:
        self.shapes = self._shapes()
        self.values = self._values()

    def _shapes(self) -> tuple[Shape, ...]:
        param, tops = self.context.message.dummy_data_param, len(self.context.top_names)
        shapes = [tuple(shape.dim) for shape in param.shape]
        legacy = [list(getattr(param, name)) for name in ("num", "channels", "height", "width")]
        if any(legacy):
            if shapes:
                self.refuse("has both shape and num, channels, height and width; keep one of them")
            if any(len(sizes) not in (1, tops) for sizes in legacy):
                self.refuse(f"needs one num, channels, height and width, or one for each of its {tops} tops")
            columns = [sizes if len(sizes) == tops else sizes * tops for sizes in legacy]
            return tuple(zip(*columns, strict=True))
        if len(shapes) not in (1, tops):
            self.refuse(f"has {len(shapes)} shapes for {tops} tops; give one, or one for each top")
        return tuple(shapes) if len(shapes) == tops else tuple(shapes) * tops

    def _values(self) -> tuple[float, ...]:
        fillers, tops = self.context.message.dummy_data_param.data_filler, len(self.context.top_names)
        if len(fillers) not in (0, 1, tops):
            self.refuse(f"has {len(fillers)} fillers for {tops} tops; give one, one for each top, or none")
        for filler in fillers:
            if filler.type != "constant":
                self.refuse(f'has a random "{filler.type}" filler; use an Input layer instead')
        values = [filler.value for filler in fillers] or [0.0]
        return tuple(values) if len(values) == tops else tuple(values) * tops

    def top_shapes(self) -> tuple[Shape, ...]:
        return self.shapes

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Constant", {"shapes": self.shapes, "values": self.values})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        from onnx import helper

        tops = []
        for shape, value in zip(self.shapes, self.values, strict=True):
            fill = helper.make_tensor("value", 1, [1], [value])
            tops.append(graph.add("ConstantOfShape", [graph.constant(list(shape), "int64")], value=fill))
        return tops


@register_layer("Parameter")
class Parameter(Operator):
    """A learned blob."""

    bottom_range = (0, 0)

    def set_up(self) -> None:
        self.shape: Shape = tuple(self.context.message.parameter_param.shape.dim)

    def top_shapes(self) -> tuple[Shape, ...]:
        return (self.shape,)

    def weight_shapes(self) -> tuple[Shape, ...]:
        return (self.shape,)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Parameter", {"shape": self.shape}, ("value",))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        return [graph.add("Identity", [graph.parameter("value", module.value)])]
