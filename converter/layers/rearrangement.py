"""Layers that move pixels between plane and channels, or pad and crop the plane.

Im2col, SPP (BVLC); Padding (DeepLab v1); Reorg (the YOLO forks); ShuffleChannel (ShuffleNet).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.net import Shape
from .base import ModuleSpec, Operator, Window, count, given, register_layer
from .convolution import Convolution
from .pooling import LOWEST_FLOAT, STOCHASTIC

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: end of an ONNX Slice that keeps the rest of the axis
INT64_MAX = 2**63 - 1


@register_layer("Im2col")
class Im2col(Convolution):
    """The windows of a convolution as columns: (N, C, H, W) -> (N, C kh kw, OH, OW)."""

    allows_in_place = False
    least_axes = 1
    pads_each_side = False

    def set_up(self) -> None:
        if len(self.bottoms) != 1:
            self.refuse(f"has {len(self.bottoms)} bottoms but needs exactly 1")
        super().set_up()

    def _check_sizes(self) -> None:
        self.groups = self.channels
        self.num_output = self.channels * count(self.kernel)
        super()._check_sizes()

    def weight_shapes(self) -> tuple[Shape, ...]:
        return ()

    def multiply_adds(self) -> int:
        return 0

    def module_spec(self) -> ModuleSpec:
        arguments: dict[str, Any] = {
            "kernel_size": self.kernel,
            "stride": self.stride,
            "padding": self.pad_begin,
            "dilation": self.dilation,
        }
        return ModuleSpec("Im2col", arguments | ({"axis": self.axis} if self.axis != 1 else {}))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        # convolve each channel with the kernels that are 1 at one tap and 0 elsewhere
        taps = count(self.kernel)
        kernels = np.tile(np.eye(taps), (self.channels, 1)).reshape(-1, 1, *self.kernel)
        return [self._emit_one(graph, bottoms[0], [graph.constant(kernels)])]


@register_layer("SPP")
class SPP(Operator):
    """Spatial pyramid pooling of (N, C, H, W): levels of 1 x 1, 2 x 2, 4 x 4, ... bins, as (N, C sum(bins^2)).

    A level pools windows of ceil(size / bins) without overlap; half of the missing pixels is padded before, half after,
    an odd one before. Windows never reach past that padding, so AVE always divides by the whole window.
    A single level keeps its plane: (N, C, 1, 1).
    """

    allows_in_place = False

    def set_up(self) -> None:
        param, shape = self.context.message.spp_param, self.bottoms[0].shape
        self.levels = param.pyramid_height
        self.method = param.DESCRIPTOR.enum_types_by_name["PoolMethod"].values_by_number[param.pool].name
        if self.method == "STOCHASTIC":
            self.refuse(STOCHASTIC)
        self.require_planes()
        if not 1 <= self.levels <= 16:
            self.refuse(f"pyramid_height must be from 1 to 16, not {self.levels}")
        for bins in (2**level for level in range(self.levels)):
            kernels = [-(-size // bins) for size in shape[2:]]
            if any((k * bins - size + 1) // 2 >= k for k, size in zip(kernels, shape[2:], strict=True)):
                self.refuse(
                    f"a {shape[2]} x {shape[3]} plane does not fit {bins} x {bins} bins: the padding would be at least "
                    "one bin wide; use fewer levels or another size"
                )

    def top_shapes(self) -> tuple[Shape, ...]:
        batch, channels = self.bottoms[0].shape[:2]
        if self.levels == 1:
            return ((batch, channels, 1, 1),)
        return ((batch, channels * sum(4**level for level in range(self.levels))),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("SpatialPyramidPool", {"levels": self.levels, "method": self.method})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        levels = [self._emit_level(graph, bottoms[0], 2**level) for level in range(self.levels)]
        if self.levels == 1:
            return levels
        return [graph.add("Concat", [graph.add("Flatten", [level], axis=1) for level in levels], axis=1)]

    def _emit_level(self, graph: OnnxGraph, x: Value, bins: int) -> str:
        if bins == 1:
            return graph.add("GlobalMaxPool" if self.method == "MAX" else "GlobalAveragePool", [x.name])
        kernels: list[int] = []
        before, after = [0, 0], [0, 0]
        for axis in (2, 3):
            size = x.shape[axis]
            kernel = (size + (bins - 1)) // bins
            missing = kernel * bins - size
            kernels.append(kernel)
            before.append((missing + 1) // 2)
            after.append(missing // 2)
        fill = graph.constant(LOWEST_FLOAT if self.method == "MAX" else 0.0)
        padded = graph.add("Pad", [x.name, graph.shape_tensor([*before, *after]), fill], mode="constant")
        cells = graph.reshape(padded, [*x.shape[:2], bins, kernels[0], bins, kernels[1]])
        return graph.reduce("ReduceMax" if self.method == "MAX" else "ReduceMean", cells, [3, 5], keepdims=False)


@register_layer("Padding")
class Padding(Operator):
    """DeepLab v1's border: pad_beg and pad_end rows and columns of zeros; negative values crop."""

    allows_in_place = False

    def set_up(self) -> None:
        param, shape = self.context.message.padding_param, self.bottoms[0].shape
        self.begin, self.end = param.pad_beg, param.pad_end
        self.require_planes()
        if self.begin * self.end < 0:
            self.refuse(f"pad_beg {self.begin} and pad_end {self.end} must both pad (above 0) or both crop (below 0)")
        if any(size < 1 for size in self._plane()):
            self.refuse(f"pad_beg and pad_end crop all of a {shape[2]} x {shape[3]} plane")

    def _plane(self) -> tuple[int, int]:
        height, width = (size + self.begin + self.end for size in self.bottoms[0].shape[2:])
        return height, width

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((*self.bottoms[0].shape[:2], *self._plane()),)

    def window(self) -> Window:
        return Window((1, 1), (1, 1), (self.begin, self.begin))

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("nn.ZeroPad2d", {"padding": (self.begin, self.end) * 2})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0].name
        if self.begin < 0 or self.end < 0:
            starts, ends, axes = [-self.begin] * 2, [self.end or INT64_MAX] * 2, [2, 3]
            return [graph.add("Slice", [x, *(graph.constant(values, "int64") for values in (starts, ends, axes))])]
        pads = graph.constant([0, 0, self.begin, self.begin, 0, 0, self.end, self.end], "int64")
        return [graph.add("Pad", [x, pads, graph.constant(0.0)], mode="constant")]


@register_layer("Reorg")
class Reorg(Operator):
    """Darknet's reorg by `stride`, plane to channels, or channels to plane with `reverse`.

    Plane to channels is not the inverse of `reverse`: Darknet reads its input as (C / stride^2, H stride, W stride).
    """

    allows_in_place = False

    def set_up(self) -> None:
        param, shape = self.context.message.reorg_param, self.bottoms[0].shape
        self.stride, self.reverse = param.stride, param.reverse
        self.require_planes()
        self.require_positive(stride=self.stride)
        if shape[1] % self.stride**2:
            self.refuse(f"{shape[1]} channels are not a multiple of stride^2 = {self.stride**2}")
        if not self.reverse and any(size % self.stride for size in shape[2:]):
            self.refuse(f"the {shape[2]} x {shape[3]} plane is not a multiple of stride {self.stride}")

    def top_shapes(self) -> tuple[Shape, ...]:
        (batch, channels, height, width), s = self.bottoms[0].shape, self.stride
        if self.reverse:
            return ((batch, channels // s**2, height * s, width * s),)
        return ((batch, channels * s**2, height // s, width // s),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Reorg", {"stride": self.stride} | given(reverse=self.reverse))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x, s = bottoms[0], self.stride
        if self.reverse:
            return [graph.add("DepthToSpace", [x.name], blocksize=s, mode="DCR")]
        batch, channels, height, width = x.shape
        cells = graph.reshape(x.name, [batch, channels // s**2, height, s, width, s])
        moved = graph.add("Transpose", [cells], perm=[0, 3, 5, 1, 2, 4])
        return [graph.reshape(moved, graph.top_shapes[0])]


@register_layer("ShuffleChannel")
class ShuffleChannel(Operator):
    """Interleaves the channels of `group` groups."""

    allows_in_place = False

    def set_up(self) -> None:
        self.group, shape = self.context.message.shuffle_channel_param.group, self.bottoms[0].shape
        self.require_planes()
        if self.group < 1 or shape[1] % self.group:
            self.refuse(f"{self.group} groups do not divide {shape[1]} channels")

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("nn.ChannelShuffle", {"groups": self.group})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        batch, channels, height, width = x.shape
        groups = graph.reshape(x.name, [batch, self.group, channels // self.group, height, width])
        shuffled = graph.add("Transpose", [groups], perm=[0, 2, 1, 3, 4])
        return [graph.reshape(shuffled, graph.top_shapes[0])]
