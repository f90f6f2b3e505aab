"""Convolution and Deconvolution, with `hole` and every fork's spelling of size, stride, pad and dilation.

Sizes: convolution out = floor((in + pads - (d (k - 1) + 1)) / s) + 1,
deconvolution out = s (in - 1) + d (k - 1) + 1 - pads.
`hole` (DeepLab v1) is dilation by another name. Sources: docs of BVLC's ConvolutionParameter; DeepLab v1's conv_layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..graph.net import Shape
from .base import ModuleSpec, Operator, Window, count, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


class _WindowedWeights(Operator):
    """What convolution and deconvolution share: the window's parameters, the weights, the batch axes."""

    bottom_range = (1, None)
    top_range = (1, None)
    maps_each_bottom = True
    least_axes: ClassVar[int] = 1
    """Fewest spatial axes."""

    def set_up(self) -> None:
        self.param = self.context.message.convolution_param
        if len(self.context.top_names) != len(self.bottoms):
            self.refuse(f"has {len(self.bottoms)} bottoms but {len(self.context.top_names)} tops; it needs one each")
        if any(blob.shape != self.bottoms[0].shape for blob in self.bottoms):
            self.refuse("its bottoms differ in shape")
        shape = self.bottoms[0].shape
        self.axis = self.bottom_axis(self.param.axis)
        self.spatial = shape[self.axis + 1 :]
        if not self.least_axes <= len(self.spatial) <= 3:
            self.refuse(
                f"runs over {self.least_axes} to 3 spatial axes, not {len(self.spatial)} "
                f"(bottom shape {shape}, axis {self.axis})"
            )
        self.channels = shape[self.axis]
        self.kernel = self._spatial("kernel_size", "kernel", None)
        self.stride = self._spatial("stride", "stride", 1)
        self.dilation = self._dilation()
        self.pad_begin, self.pad_end = self._pads()
        self.num_output = self.param.num_output
        self.groups = self._groups()
        self._check_sizes()

    def _spatial(self, field: str, prefix: str, default: int | None) -> tuple[int, ...]:
        """One value per spatial axis from `field` (repeated) or from `prefix`_h and `prefix`_w."""
        values = list(getattr(self.param, field))
        has_h, has_w = self.param.HasField(f"{prefix}_h"), self.param.HasField(f"{prefix}_w")
        if has_h or has_w:
            if values:
                self.refuse(f"give either {field} or {prefix}_h and {prefix}_w, not both")
            if len(self.spatial) != 2:
                self.refuse(f"{prefix}_h and {prefix}_w need two spatial axes, not {len(self.spatial)}")
            height, width = getattr(self.param, f"{prefix}_h"), getattr(self.param, f"{prefix}_w")
            return (height, width)
        if not values:
            if not self.spatial:
                return ()
            if default is None:
                self.refuse(f"has no {field}")
            return (default,) * len(self.spatial)
        if len(values) not in (1, len(self.spatial)):
            self.refuse(f"gives {field} {len(values)} times for {len(self.spatial)} spatial axes")
        return tuple(values) if len(values) == len(self.spatial) else (values[0],) * len(self.spatial)

    def _dilation(self) -> tuple[int, ...]:
        param = self.param
        named = [name for name in ("hole", "hole_h", "hole_w") if param.HasField(name)]
        if not named:
            return self._spatial_list("dilation")
        if param.dilation:
            self.refuse(f"gives both {named[0]} and dilation")
        if "hole" in named and len(named) > 1:
            self.refuse("give either hole, or hole_h and hole_w, not both")
        if "hole" not in named and len(named) != 2:
            self.refuse(f"gives {named[0]} alone; hole_h and hole_w belong together")
        if len(self.spatial) != 2:
            self.refuse("hole needs two spatial axes")
        return (param.hole, param.hole) if "hole" in named else (param.hole_h, param.hole_w)

    def _spatial_list(self, field: str) -> tuple[int, ...]:
        values = list(getattr(self.param, field))
        if len(values) not in (0, 1, len(self.spatial)):
            self.refuse(f"gives {field} {len(values)} times for {len(self.spatial)} spatial axes")
        values = values or [1]
        return tuple(values) if len(values) == len(self.spatial) else (values[0],) * len(self.spatial)

    def _pads(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(begin, end) padding; some forks pad each side by itself with pad_l, pad_r, pad_t and pad_b."""
        sides = [name for name in ("pad_t", "pad_l", "pad_b", "pad_r") if self.param.HasField(name)]
        if not sides:
            pads = self._spatial("pad", "pad", 0)
            return pads, pads
        if self.param.pad or self.param.HasField("pad_h") or self.param.HasField("pad_w"):
            self.refuse(f"give either pad or {', '.join(sides)}, not both")
        if len(self.spatial) != 2:
            self.refuse(f"{sides[0]} needs two spatial axes")
        return (self.param.pad_t, self.param.pad_l), (self.param.pad_b, self.param.pad_r)

    def _groups(self) -> int:
        return int(self.param.group)

    def _check_sizes(self) -> None:
        if self.num_output <= 0:
            self.refuse("num_output must be above 0")
        for what, values in (("kernel_size", self.kernel), ("stride", self.stride), ("dilation", self.dilation)):
            if any(value <= 0 for value in values):
                self.refuse(f"{what} {values} must be above 0")
        if self.groups <= 0 or self.channels % self.groups or self.num_output % self.groups:
            self.refuse(f"{self.groups} groups do not divide {self.channels} channels and {self.num_output} outputs")
        if any(size < 1 for size in self.output_size()):
            self.refuse(f"leaves nothing of a {self.spatial} plane: kernel {self.kernel}, dilation {self.dilation}")

    def output_size(self) -> tuple[int, ...]:
        raise NotImplementedError

    def top_shapes(self) -> tuple[Shape, ...]:
        lead = self.bottoms[0].shape[: self.axis]
        return ((*lead, self.num_output, *self.output_size()),) * len(self.bottoms)

    def weight_shapes(self) -> tuple[Shape, ...]:
        bias: tuple[Shape, ...] = ()
        if self.param.bias_term:
            bias = ((1, 1, 1, self.num_output) if self.context.dialect == "deeplab_v1" else (self.num_output,),)
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

    def _plane(self, values: Sequence[int]) -> tuple[int, int]:
        """The last two axes' values; a missing height or width is 1."""
        padded = (1, 1, *values)[-2:]
        return padded[0], padded[1]

    def _batch_folded(self, graph: OnnxGraph, value: Value) -> str:
        """The bottom with all axes before the channel folded into one batch axis."""
        if self.axis == 1:
            return value.name
        return graph.reshape(value.name, [-1, *value.shape[self.axis :]])

    def _batch_unfolded(self, graph: OnnxGraph, folded: str) -> str:
        """The result with the batch axes of the bottom put back."""
        return folded if self.axis == 1 else graph.reshape(folded, graph.top_shapes[0])

    def _emit_each(
        self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value], op_type: str, **extra: Any
    ) -> list[str]:
        weights = [graph.parameter(name, getattr(module, name)) for name in self._parameters()]
        tops = []
        for bottom in bottoms:
            folded = self._batch_folded(graph, bottom)
            result = graph.add(
                op_type,
                [folded, *weights],
                kernel_shape=list(self.kernel),
                strides=list(self.stride),
                dilations=list(self.dilation),
                pads=[*self.pad_begin, *self.pad_end],
                group=self.groups,
                **extra,
            )
            tops.append(self._batch_unfolded(graph, result))
        return tops


def _without_defaults(arguments: dict[str, Any], rank: int) -> dict[str, Any]:
    """Arguments that differ from torch's defaults; equal sizes along all axes as one number, for readable source."""
    defaults = {"stride": (1,) * rank, "padding": (0,) * rank, "dilation": (1,) * rank, "groups": 1, "bias": True}
    kept = {name: value for name, value in arguments.items() if defaults.get(name) != value}
    return {
        name: value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value for name, value in kept.items()
    }


@register_layer("Convolution")
class Convolution(_WindowedWeights):
    """Convolution over 0 to 3 spatial axes; weight (out, in/group, k...), bias (out).

    Over none it is the matrix alone, applied at every place of the axes before the channels.
    """

    least_axes = 0

    def _groups(self) -> int:
        if not self.spatial and self.param.group != 1:
            self.refuse(f"has {self.param.group} groups over no spatial axis; give `axis: 1`, or group 1")
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
        if not rank:
            features = {"in_features": self.channels, "out_features": self.num_output}
            return ModuleSpec("nn.Linear", features | {"bias": self.param.bias_term}, self._parameters())
        arguments = _without_defaults(arguments, rank)
        if symmetric and self.axis == 1:
            return ModuleSpec(f"nn.Conv{rank}d", arguments, self._parameters())
        if not symmetric:
            return ModuleSpec(
                "SidePaddedConv2d", {"sides": (*self.pad_begin, *self.pad_end), **arguments}, self._parameters()
            )
        return ModuleSpec(f"FoldedConv{rank}d", {"axis": self.axis, **arguments}, self._parameters())

    def window(self) -> Window:
        extent = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return Window(self._plane(extent), self._plane(self.stride), self._plane((0, *self.pad_begin)))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        if self.spatial:
            return self._emit_each(graph, module, bottoms, "Conv")
        weights = [graph.parameter(name, getattr(module, name)) for name in self._parameters()]
        tops = []
        for x in bottoms:
            rows = graph.add("Flatten", [x.name], axis=self.axis)
            product = graph.add("Gemm", [rows, *weights], transB=1)
            tops.append(graph.reshape(product, graph.top_shapes[0]))
        return tops


@register_layer("ConvolutionDepthwise", "DepthwiseConvolution")
class DepthwiseConvolution(Convolution):
    """The forks' depthwise layers: one group a channel, whatever `group` says."""

    least_axes = 1

    def _groups(self) -> int:
        return self.channels


@register_layer("Deconvolution")
class Deconvolution(_WindowedWeights):
    """Transposed convolution; weight (in, out/group, k...), bias (out)."""

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

    def module_spec(self) -> ModuleSpec:
        if self.pad_begin != self.pad_end:
            self.refuse("pads the sides of a deconvolution differently; no Caffe computes that")
        rank = len(self.spatial)
        arguments: dict[str, Any] = {
            "in_channels": self.channels,
            "out_channels": self.num_output,
            "kernel_size": self.kernel,
            "stride": self.stride,
            "padding": self.pad_begin,
            "groups": self.groups,
            "bias": self.param.bias_term,
            "dilation": self.dilation,
        }
        arguments = _without_defaults(arguments, rank)
        if self.axis == 1:
            return ModuleSpec(f"nn.ConvTranspose{rank}d", arguments, self._parameters())
        return ModuleSpec(f"FoldedConvTranspose{rank}d", {"axis": self.axis, **arguments}, self._parameters())

    def window(self) -> Window:
        extent = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return Window(self._plane(extent), self._plane(self.stride), self._plane((0, *self.pad_begin)), upsampling=True)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        return self._emit_each(graph, module, bottoms, "ConvTranspose")
