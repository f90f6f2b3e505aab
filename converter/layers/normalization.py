"""LRN, MVN and SSD's Normalize.

LRN across channels: y = x (k + alpha/n sum_n x^2)^-beta, zero padded. Within a channel: y = x (1 + alpha mean_{n x n}
x^2)^-beta; there Caffe ignores k and divides by n * n at the border too. n is odd.
MVN: y = (x - mean) / (std + eps) with biased std, for each (n, c) or for each n (across_channels), eps 1e-9;
normalize_variance: false subtracts the mean only.
Normalize: y = x / sqrt(sum x^2 + eps) * scale, over each item (across_spatial, the default) or each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, count, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


@register_layer("LRN")
class LRN(Operator):
    """Local response normalization of (N, C, H, W)."""

    def set_up(self) -> None:
        param = self.param = self.context.message.lrn_param
        self.require_planes()
        if param.local_size % 2 != 1:
            self.refuse(f"local_size must be odd, not {param.local_size}")
        self.within = param.norm_region == 1

    def multiply_adds(self) -> int:
        window = self.param.local_size ** (2 if self.within else 1)
        return count(self.bottoms[0].shape) * int(window)

    def module_spec(self) -> ModuleSpec:
        param = self.param
        arguments = {"size": param.local_size, "alpha": param.alpha, "beta": param.beta}
        if self.within:
            return ModuleSpec("LRNWithinChannel", arguments)
        return ModuleSpec("LRNAcrossChannels", {**arguments, "k": param.k})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        param, x = self.param, bottoms[0].name
        if not self.within:
            return [graph.add("LRN", [x], size=param.local_size, alpha=param.alpha, beta=param.beta, bias=param.k)]
        pad = param.local_size // 2
        squares = graph.add("Mul", [x, x])
        window = [param.local_size] * 2
        pads = graph.constant([0, 0, pad, pad, 0, 0, pad, pad], "int64")
        padded = graph.add("Pad", [squares, pads, graph.constant(0.0)], mode="constant")
        average = graph.add("AveragePool", [padded], kernel_shape=window)  # OpenCV 4 ignores count_include_pad
        base = graph.add("Add", [graph.add("Mul", [average, graph.constant(param.alpha)]), graph.constant(1.0)])
        return [graph.add("Mul", [x, graph.add("Pow", [base, graph.constant(-param.beta)])])]


@register_layer("MVN")
class MVN(Operator):
    """Zero mean and unit variance for each channel, or each item."""

    adds_per_value = 2

    def set_up(self) -> None:
        self.param = self.context.message.mvn_param
        shape = self.bottoms[0].shape
        if not 1 <= len(shape) <= 4:
            self.refuse(f"needs a bottom of 1 to 4 axes, has {shape}")
        self.first_axis = min(1 if self.param.across_channels else 2, len(shape))

    def module_spec(self) -> ModuleSpec:
        eps = self.param.eps if self.param.normalize_variance else None
        return ModuleSpec("MVN", {"first_axis": self.first_axis, "eps": eps})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        axes = list(range(self.first_axis, len(x.shape)))
        if not axes:
            # the mean of a single value is the value
            return [graph.add("Sub", [x.name, x.name])]
        centered = graph.add("Sub", [x.name, graph.reduce("ReduceMean", x.name, axes)])
        if not self.param.normalize_variance:
            return [centered]
        variance = graph.reduce("ReduceMean", graph.add("Mul", [centered, centered]), axes)
        deviation = graph.add("Add", [graph.add("Sqrt", [variance]), graph.constant(self.param.eps)])
        return [graph.add("Div", [centered, deviation])]


@register_layer("Normalize")
class Normalize(Operator):
    """SSD's (and ParseNet's) L2 normalization with a learned scale."""

    adds_per_value = 2

    def set_up(self) -> None:
        self.param = self.context.message.norm_param
        shape = self.bottoms[0].shape
        if not 2 <= len(shape) <= 4:
            self.refuse(f"needs a bottom of 2 to 4 axes (N, C, H, W), has {shape}")
        self.channels = shape[1]

    def weight_shapes(self) -> tuple[Shape, ...]:
        return ((),) if self.param.channel_shared else ((self.channels,),)

    def fillers(self) -> tuple[Any, ...]:
        return (self.filler_or(self.param, "scale_filler", 1.0),)

    def module_spec(self) -> ModuleSpec:
        shape = () if self.param.channel_shared else (self.channels, *(1,) * (len(self.bottoms[0].shape) - 2))
        arguments = {"across_spatial": self.param.across_spatial, "shape": shape, "eps": self.param.eps}
        return ModuleSpec("Normalize", arguments, ("weight",))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0].name
        axes = list(range(1, len(bottoms[0].shape))) if self.param.across_spatial else [1]
        total = graph.reduce("ReduceSum", graph.add("Mul", [x, x]), axes)
        norm = graph.add("Sqrt", [graph.add("Add", [total, graph.constant(self.param.eps)])])
        return [graph.add("Mul", [graph.add("Div", [x, norm]), graph.parameter("weight", module.weight)])]
