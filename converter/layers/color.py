"""ColorConv of the colorization forks: sRGB to CIE L*a*b*.

The constants are the fork's: the sRGB matrix to XYZ, a white point of 0.95074 where D65 has 0.95047, and rounded
thresholds of the two piecewise functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .base import ModuleSpec, Operator, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: values of `input` and `output`, as documented in the published net
BGR, LAB = 0, 3
#: rows: X, Y, Z over the white point; columns: blue, green, red
XYZ_OF_BGR = (
    np.array([[0.1804375, 0.3575761, 0.4124564], [0.0721750, 0.7151522, 0.2126729], [0.9503041, 0.1191920, 0.0193339]])
    / np.array([[0.95074], [1.0], [1.08883]])
).astype(np.float32)


@register_layer("ColorConv")
class ColorConv(Operator):
    """(N, 3, H, W), BGR from 0 to 255 -> L from 0 to 100, a and b around 0."""

    allows_in_place = False

    def set_up(self) -> None:
        param, shape = self.context.message.color_conv_param, self.bottoms[0].shape
        if (param.input, param.output) != (BGR, LAB):
            self.refuse(f"only input {BGR} (BGR) to output {LAB} (Lab) is known, not {param.input} to {param.output}")
        if len(shape) != 4 or shape[1] != 3:
            self.refuse(f"needs a bottom (N, 3, H, W), has {shape}")

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("LabOfBGR")

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        v = graph.add("Div", [bottoms[0].name, graph.constant(255.0)])
        is_curved = graph.add("Greater", [v, graph.constant(0.04045)])
        curved = self._power(graph, graph.add("Div", [self._shift(graph, v, 0.055), graph.constant(1.055)]), 2.4)
        linear = graph.add("Where", [is_curved, curved, graph.add("Div", [v, graph.constant(12.92)])])
        xyz = graph.add("Conv", [linear, graph.constant(XYZ_OF_BGR.reshape(3, 3, 1, 1))], kernel_shape=[1, 1])
        scaled = self._shift(graph, graph.add("Mul", [xyz, graph.constant(903.3)]), 16.0)
        is_root = graph.add("Greater", [xyz, graph.constant(0.008867)])
        root = self._power(graph, xyz, 1 / 3)
        f = graph.add("Where", [is_root, root, graph.add("Div", [scaled, graph.constant(116.0)])])
        x, y, z = graph.add_multiple("Split", [f, graph.constant([1, 1, 1], "int64")], 3, axis=1)
        lightness = self._shift(graph, graph.add("Mul", [y, graph.constant(116.0)]), -16.0)
        a = graph.add("Mul", [graph.add("Sub", [x, y]), graph.constant(500.0)])
        b = graph.add("Mul", [graph.add("Sub", [y, z]), graph.constant(200.0)])
        return [graph.add("Concat", [lightness, a, b], axis=1)]

    @staticmethod
    def _shift(graph: OnnxGraph, x: str, by: float) -> str:
        return graph.add("Add", [x, graph.constant(by)])

    @staticmethod
    def _power(graph: OnnxGraph, x: str, exponent: float) -> str:
        """max(x, 0) to a power; the caller replaces the result where x is not positive."""
        positive = graph.add("Max", [x, graph.constant(0.0)])
        return graph.add("Pow", [positive, graph.constant(exponent)])
