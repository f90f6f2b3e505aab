"""Convolution and Deconvolution, with every fork's fields for kernel, stride, pad and dilation.

Sizes: convolution out = floor((in + pads - (d (k - 1) + 1)) / s) + 1,
deconvolution out = s (in - 1) + d (k - 1) + 1 - pads.
`hole` (DeepLab v1) and `filter_stride` (ParseNet) are the same as dilation. Sources: docs of BVLC's
ConvolutionParameter; DeepLab v1's conv_layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..graph.net import Shape
from .base import ModuleSpec, Operator, Window, count, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


class _WindowedWeights(Operator):
    """Base of convolution and deconvolution: window parameters, weights, batch axes."""

    bottom_range = (1, None)
    top_range = (1, None)
    maps_each_bottom = True
    #: smallest number of spatial axes
    least_axes: ClassVar[int] = 1
    pads_each_side: ClassVar[bool] = False
    onnx_op: ClassVar[str]

    def set_up(self) -> None:
        self.param = self.context.message.convolution_param
        self.require_same_count(bottoms=self.bottoms, tops=self.context.top_names)
        if any(blob.shape != self.bottoms[0].shape for blob in self.bottoms):
            self.refuse(f"its bottoms have different shapes: {', '.join(str(blob.shape) for blob in self.bottoms)}")
        shape = self.bottoms[0].shape
        self.axis = self.bottom_axis(self.param.axis)
        self.spatial = shape[self.axis + 1 :]
        if not self.least_axes <= len(self.spatial) <= 3:
            self.refuse(f"needs {self.least_axes} to 3 spatial axes after axis {self.axis}, its bottom is {shape}")
        self.channels = shape[self.axis]
        self.kernel = self._spatial("kernel_size", "kernel", None)
        self.stride = self._spatial("stride", "stride", 1)
        self.dilation = self._dilation()
        self.pad_begin, self.pad_end = self._pads()
        self.num_output = self._outputs()
        self.groups = self._groups()
        self._check_sizes()

    def _spatial(self, field: str, prefix: str, default: int | None) -> tuple[int, ...]:
        """One value per spatial axis from `field` (repeated) or from `prefix`_h and `prefix`_w."""
        if not (self.param.HasField(f"{prefix}_h") or self.param.HasField(f"{prefix}_w")):
            return self._repeated(field, default)
        if getattr(self.param, field):
            self.refuse(f"give either {field} or {prefix}_h and {prefix}_w, not both")
        if len(self.spatial) != 2:
            self.refuse(f"{prefix}_h and {prefix}_w need two spatial axes, not {len(self.spatial)}")
        return getattr(self.param, f"{prefix}_h"), getattr(self.param, f"{prefix}_w")

    def _repeated(self, field: str, default: int | None) -> tuple[int, ...]:
        """One value per spatial axis from a repeated field that has one value, or one for each axis."""
        values, axes = list(getattr(self.param, field)), len(self.spatial)
        if not values and axes and default is None:
            self.refuse(f"has no {field}")
        values = values or [default]
        if len(values) not in (1, axes):
            self.refuse(f"has {len(values)} {field} values for {axes} spatial axes; give one, or one for each axis")
        return tuple(values) if len(values) == axes else tuple(values[:1]) * axes

    def _dilation(self) -> tuple[int, ...]:
        named = {name: self.read_pair(self.param, name) for name in ("hole", "filter_stride")}
        found: dict[str, tuple[int, ...]] = {name: pair for name, pair in named.items() if pair is not None}
        if self.param.dilation or not found:
            found["dilation"] = self._spatial("dilation", "dilation", 1)
        if len(found) > 1:
            self.refuse(f"has both {' and '.join(found)}; keep one")
        ((name, dilation),) = found.items()
        if name != "dilation" and len(self.spatial) != 2:
            self.refuse(f"{name} needs two spatial axes")
        return dilation

    def _pads(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(begin, end) padding; some forks pad each side separately with pad_l, pad_r, pad_t and pad_b."""
        sides = [name for name in ("pad_t", "pad_l", "pad_b", "pad_r") if self.param.HasField(name)]
        if not sides:
            pads = self._spatial("pad", "pad", 0)
            return pads, pads
        if self.param.pad or self.param.HasField("pad_h") or self.param.HasField("pad_w"):
            self.refuse(f"give either pad or {', '.join(sides)}, not both")
        if len(self.spatial) != 2:
            self.refuse(f"{sides[0]} needs two spatial axes")
        begin, end = (self.param.pad_t, self.param.pad_l), (self.param.pad_b, self.param.pad_r)
        if begin != end and not self.pads_each_side:
            self.refuse(f"cannot pad its sides differently, {begin} before and {end} after; make them equal")
        return begin, end

    def _groups(self) -> int:
        return int(self.param.group)

    def _outputs(self) -> int:
        return int(self.param.num_output)

    def _check_sizes(self) -> None:
        self.require_positive(
            num_output=self.num_output, kernel_size=self.kernel, stride=self.stride, dilation=self.dilation
        )
        if self.groups <= 0 or self.channels % self.groups or self.num_output % self.groups:
            self.refuse(f"{self.groups} groups do not divide {self.channels} channels and {self.num_output} outputs")
        if any(size < 1 for size in self.output_size()):
            window = f"kernel {self.kernel}, dilation {self.dilation} and pad {self.pad_begin}"
            self.refuse(f"its top would be empty with {window} on a {self.spatial} plane")

    def output_size(self) -> tuple[int, ...]:
        raise NotImplementedError

    def top_shapes(self) -> tuple[Shape, ...]:
        lead = self.bottoms[0].shape[: self.axis]
        return ((*lead, self.num_output, *self.output_size()),) * len(self.bottoms)

    def weight_shapes(self) -> tuple[Shape, ...]:
        bias: tuple[Shape, ...] = ()
        if self.param.bias_term:
            bias = ((1, 1, 1, self.num_output) if self.context.dialect.four_axis_blobs else (self.num_output,),)
        return (self.kernel_shape(), *bias)

    def kernel_shape(self) -> Shape:
        raise NotImplementedError

    def fillers(self) -> tuple[Any, ...]:
        return (self.param.weight_filler, self.param.bias_filler)[: len(self.weight_shapes())]

    def _parameters(self) -> tuple[str, ...]:
        return ("weight", "bias")[: len(self.weight_shapes())]

    def multiply_adds(self) -> int:
        per_output = count(self.kernel_shape()[1:])
        return per_output * sum(count(shape) for shape in self.top_shapes())

    def module_spec(self) -> ModuleSpec:
        rank = len(self.spatial)
        symmetric = self.pad_begin == self.pad_end
        arguments: dict[str, Any] = {
            "in_channels": self.channels,
            "out_channels": self.num_output,
            "kernel_size": self.kernel,
            "stride": self.stride,
            "padding": self.pad_begin if symmetric else (0,) * rank,
            "dilation": self.dilation,
            "groups": self.groups,
            "bias": self.param.bias_term,
        }
        arguments = _without_defaults(arguments, rank)
        if not symmetric:
            sides = {"sides": (*self.pad_begin, *self.pad_end)}
            return ModuleSpec("SidePaddedConv2d", sides | arguments, self._parameters())
        if self.axis == 1:
            return ModuleSpec(f"nn.{self.onnx_op}{rank}d", arguments, self._parameters())
        return ModuleSpec(f"Folded{self.onnx_op}{rank}d", {"axis": self.axis, **arguments}, self._parameters())

    def window(self) -> Window:
        extent = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        # the last two axes; a missing height or width is 1, its padding 0
        kernel, stride = (1, 1, *extent)[-2:], (1, 1, *self.stride)[-2:]
        pad = (0, 0, *self.pad_begin)[-2:]
        return Window(
            (kernel[0], kernel[1]), (stride[0], stride[1]), (pad[0], pad[1]), upsampling=self.onnx_op != "Conv"
        )

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        weights = [graph.parameter(name, getattr(module, name)) for name in self._parameters()]
        return [self._emit_one(graph, bottom, weights) for bottom in bottoms]

    def _emit_one(self, graph: OnnxGraph, bottom: Value, weights: Sequence[str]) -> str:
        """Nodes for one bottom; the axes before the channels are folded into one batch axis and restored."""
        x = bottom.name
        if self.axis != 1:
            x = graph.reshape(x, [-1, *bottom.shape[self.axis :]])
        begin, end = self.pad_begin, self.pad_end
        if self.onnx_op == "Conv" and set(self.kernel) == {1} and any((*begin, *end)):
            # OpenCV 5 reads outside the plane of a padded 1 x 1 convolution
            pads = graph.constant([0, 0, *begin, 0, 0, *end], "int64")
            x = graph.add("Pad", [x, pads, graph.constant(0.0)], mode="constant")
            begin = end = (0,) * len(begin)
        y = graph.add(
            self.onnx_op,
            [x, *weights],
            kernel_shape=list(self.kernel),
            strides=list(self.stride),
            dilations=list(self.dilation),
            pads=[*begin, *end],
            group=self.groups,
        )
        return y if self.axis == 1 else graph.reshape(y, graph.top_shapes[0])


def _without_defaults(arguments: dict[str, Any], rank: int) -> dict[str, Any]:
    """Arguments that differ from torch's defaults; sizes equal along all axes become one number."""
    defaults = {"stride": (1,) * rank, "padding": (0,) * rank, "dilation": (1,) * rank, "groups": 1, "bias": True}
    kept = {name: value for name, value in arguments.items() if defaults.get(name) != value}
    return {
        name: value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value for name, value in kept.items()
    }


@register_layer("Convolution")
class Convolution(_WindowedWeights):
    """Convolution over 0 to 3 spatial axes; weight (out, in/group, k...), bias (out).

    Over 0 axes it is a matrix product along the channels.
    """

    least_axes = 0
    pads_each_side = True
    onnx_op = "Conv"

    def _groups(self) -> int:
        if not self.spatial and self.param.group != 1:
            self.refuse(f"has {self.param.group} groups but no spatial axes; give `axis: 1`, or group 1")
        return super()._groups()

    def output_size(self) -> tuple[int, ...]:
        return tuple(
            (size + begin + end - (d * (k - 1) + 1)) // s + 1
            for size, k, s, d, begin, end in zip(
                self.spatial, self.kernel, self.stride, self.dilation, self.pad_begin, self.pad_end, strict=True
            )
        )

    def kernel_shape(self) -> Shape:
        return (self.num_output, self.channels // self.groups, *self.kernel)

    def module_spec(self) -> ModuleSpec:
        if self.spatial:
            return super().module_spec()
        arguments = {"in_features": self.channels, "out_features": self.num_output, "bias": self.param.bias_term}
        return ModuleSpec("nn.Linear", arguments, self._parameters())

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        if self.spatial:
            return super().emit(graph, module, bottoms)
        weights = [graph.parameter(name, getattr(module, name)) for name in self._parameters()]
        tops = []
        for x in bottoms:
            rows = graph.add("Flatten", [x.name], axis=self.axis)
            product = graph.add("Gemm", [rows, *weights], transB=1)
            tops.append(graph.reshape(product, graph.top_shapes[0]))
        return tops


@register_layer("ConvolutionDepthwise", "DepthwiseConvolution")
class DepthwiseConvolution(Convolution):
    """Depthwise layers: a group per channel; `group` is ignored, and by ConvolutionDepthwise `num_output`."""

    least_axes = 1

    def _outputs(self) -> int:
        return self.channels if self.context.type == "ConvolutionDepthwise" else super()._outputs()

    def _groups(self) -> int:
        return self.channels


@register_layer("Deconvolution")
class Deconvolution(_WindowedWeights):
    """Transposed convolution; weight (in, out/group, k...), bias (out)."""

    onnx_op = "ConvTranspose"

    def output_size(self) -> tuple[int, ...]:
        return tuple(
            s * (size - 1) + d * (k - 1) + 1 - begin - end
            for size, k, s, d, begin, end in zip(
                self.spatial, self.kernel, self.stride, self.dilation, self.pad_begin, self.pad_end, strict=True
            )
        )

    def kernel_shape(self) -> Shape:
        return (self.channels, self.num_output // self.groups, *self.kernel)

    def multiply_adds(self) -> int:
        return count(self.kernel_shape()[1:]) * sum(count(blob.shape) for blob in self.bottoms)
