"""Pooling with Caffe's rounding, clip and divisor.

Caffe's output size is ceil((in + 2p - k) / s) + 1; with padding, a last window that starts at or beyond in + p is
clipped. Rounding *down* over a plane padded by p before and by E after gives the same windows for every `in`:

    E = p + s - 1                   without the clip (no padding on either axis)
    E = min(k - 1, p + s - 1)       with it
    E = p                           if the layer rounds down (round_mode FLOOR, ceil_mode false)

A dilation d (naibaf7's Caffe) widens the window: k is d (k - 1) + 1 in these formulas.

So the attributes of the torch and ONNX operators do not depend on the size. The AVE divisor counts padding, but not the
overhang beyond in + p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, Window, count, register_layer
from .masks import MAX_KERNEL, emit_mask

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: Caffe's initial maximum, and so the result of a window wholly outside the plane
LOWEST_FLOAT = -3.4028234663852886e38
STOCHASTIC = "STOCHASTIC pooling is random and Caffe has no CPU code for it; use MAX or AVE"


@register_layer("Pooling")
class Pooling(Operator):
    """MAX, AVE and AVE_EXC_PAD pooling of (N, C, H, W); the second top of MAX is a mask of flat plane indices."""

    top_range = (1, 2)
    allows_in_place = False

    def set_up(self) -> None:
        param = self.param = self.context.message.pooling_param
        self.require_planes()
        self.method = param.DESCRIPTOR.enum_types_by_name["PoolMethod"].values_by_number[param.pool].name
        if self.method == "STOCHASTIC":
            self.refuse(STOCHASTIC)
        self.with_mask = len(self.context.top_names) == 2
        if self.with_mask and self.method != "MAX":
            self.refuse("only MAX pooling writes a mask as second top")
        self.global_pooling = param.global_pooling or self._has_one_bin()
        kernel = self.read_pair(param, "kernel_size", "kernel")
        self.stride, self.pad = self.read_pair(param, "stride") or (1, 1), self._read_pad()
        if self.global_pooling:
            if kernel:
                self.refuse("global_pooling has no kernel size; remove it")
            if self.pad != (0, 0) or self.stride != (1, 1):
                self.refuse("global_pooling needs pad 0 and stride 1")
        elif not kernel:
            self.refuse("has no kernel_size")
        self.kernel = kernel or self._plane
        self.dilation = self._read_dilation()
        self._check_sizes()

    @property
    def _plane(self) -> tuple[int, int]:
        return self.bottoms[0].shape[2], self.bottoms[0].shape[3]

    def _has_one_bin(self) -> bool:
        """Whether ParseNet's `bin_size: 1` asks for one bin over the whole plane."""
        bins = list(self.param.bin_size)
        if bins and bins != [1]:
            self.refuse(f"bin_size {', '.join(map(str, bins))} is not supported; only bin_size: 1 is")
        return bool(bins)

    def _read_pad(self) -> tuple[int, int]:
        """Padding of rows and columns; nets converted from TensorFlow state it for each side."""
        sides = ("pad_t", "pad_l", "pad_b", "pad_r")
        if not any(self.param.HasField(name) for name in sides):
            return self.read_pair(self.param, "pad") or (0, 0)
        if any(self.param.HasField(name) for name in ("pad", "pad_h", "pad_w")):
            self.refuse("give either pad, or pad_t, pad_l, pad_b and pad_r, not both")
        top, left, bottom, right = (getattr(self.param, name) for name in sides)
        if (top, left) != (bottom, right):
            self.refuse(
                f"pads {top} rows above and {bottom} below, {left} columns left and {right} right; only equal sides "
                "are supported: pad with a separate layer"
            )
        return top, left

    def _read_dilation(self) -> tuple[int, int]:
        values = list(self.param.dilation)
        if len(values) > 2:
            self.refuse(f"has {len(values)} dilation values for 2 spatial axes; give one, or one for each axis")
        dilation = (values[0], values[-1]) if values else (1, 1)
        if dilation != (1, 1) and (self.method != "MAX" or self.with_mask or self.global_pooling):
            self.refuse("dilation is supported for MAX pooling with a kernel_size and without a mask only")
        return dilation

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width that a window spans."""
        height, width = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))
        return height, width

    @property
    def rounds_up(self) -> bool:
        """Caffe's ceil, unless a fork's field selects floor."""
        param = self.param
        if param.HasField("ceil_mode"):
            return bool(param.ceil_mode)
        return not (param.torch_pooling or param.round_below or param.round_mode)

    @property
    def pad_end(self) -> tuple[int, int]:
        """E of the module docstring for each axis."""
        ends = []
        for k, s, p in zip(self.extent, self.stride, self.pad, strict=True):
            if not self.rounds_up or self.global_pooling:
                ends.append(p)
            else:
                ends.append(min(k - 1, p + s - 1) if any(self.pad) else p + s - 1)
        return ends[0], ends[1]

    def _check_sizes(self) -> None:
        self.require_positive(kernel_size=self.kernel, stride=self.stride, dilation=self.dilation)
        if any(p >= k for p, k in zip(self.pad, self.kernel, strict=True)):
            self.refuse(f"pad {self.pad} must be smaller than the kernel {self.kernel}")
        if any(size < 1 for size in self._pooled()):
            window = f"kernel {self.kernel}, stride {self.stride} and pad {self.pad}"
            self.refuse(f"its top would be empty with {window} on a {self._plane} plane")

    def _pooled(self) -> tuple[int, int]:
        height, width = (
            (size + p + end - k) // s + 1
            for size, k, s, p, end in zip(self._plane, self.extent, self.stride, self.pad, self.pad_end, strict=True)
        )
        return height, width

    def top_shapes(self) -> tuple[Shape, ...]:
        batch, channels = self.bottoms[0].shape[:2]
        return ((batch, channels, *self._pooled()),) * len(self.context.top_names)

    def window(self) -> Window:
        return Window(self.extent, self.stride, self.pad)

    def notes(self) -> tuple[str, ...]:
        sizes = zip(self._plane, self._pooled(), self.stride, strict=True)
        if any(self.pad) or all((windows - 1) * s < size for size, windows, s in sizes):
            return ()
        result = "the lowest float" if self.method == "MAX" else "0 or NaN (0 / 0)"
        return (f"has windows wholly outside its {self._plane} plane; their result is {result}, as in Caffe",)

    def _overhangs(self) -> bool:
        """Whether E is wider than ONNX's padding; if not dilated, a window may then lie wholly outside the plane."""
        return any(end >= k for end, k in zip(self.pad_end, self.kernel, strict=True))

    def _tiles(self) -> bool:
        """Whether the windows are square, lie side by side and cover the plane."""
        height, width = self.kernel
        tiles = self.stride == self.extent == self.kernel and self.pad == (0, 0) and self.rounds_up
        return tiles and 1 < height == width <= MAX_KERNEL

    def module_spec(self) -> ModuleSpec:
        if self.global_pooling and not self.with_mask:
            return ModuleSpec(
                "nn.AdaptiveMaxPool2d" if self.method == "MAX" else "nn.AdaptiveAvgPool2d", {"output_size": 1}
            )
        common: dict[str, Any] = {"kernel_size": self.kernel, "stride": self.stride}
        if self.extent != self.kernel:
            common["dilation"] = self.dilation
        torch_rule = all(2 * p <= k for p, k in zip(self.pad, self.kernel, strict=True)) and not self._overhangs()
        if torch_rule and not self.with_mask:
            common |= {"padding": self.pad, "ceil_mode": self.rounds_up}
            if self.method == "MAX":
                return ModuleSpec("nn.MaxPool2d", common)
            return ModuleSpec("nn.AvgPool2d", common | {"count_include_pad": self.method == "AVE"})
        common |= {"pad_begin": self.pad, "pad_end": self.pad_end}
        if self.global_pooling:
            common["kernel_size"] = None
        if self.method == "MAX":
            return ModuleSpec("MaxPoolWithMask2d" if self.with_mask else "MaxPool2d", common)
        return ModuleSpec("AveragePool2d", common | {"count_padding": self.method == "AVE"})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if self.global_pooling and not self.with_mask:
            return [graph.add("GlobalMaxPool" if self.method == "MAX" else "GlobalAveragePool", [x.name])]
        if self.method == "MAX":
            return self._emit_max(graph, x)
        return [self._emit_average(graph, x)]

    def _pad(self, graph: OnnxGraph, x: str, begin: Sequence[int], end: Sequence[int], value: float) -> str:
        pads = graph.constant([0, 0, *begin, 0, 0, *end], "int64")
        return graph.add("Pad", [x, pads, graph.constant(value)], mode="constant")

    def _emit_max(self, graph: OnnxGraph, x: Value) -> list[str]:
        attributes: dict[str, Any] = {"kernel_shape": list(self.kernel), "strides": list(self.stride)}
        if self.extent != self.kernel:
            attributes["dilations"] = list(self.dilation)
        if self.global_pooling and (x.is_dynamic(2) or x.is_dynamic(3)):
            self.refuse_export("of the whole plane with a mask needs a fixed size; export with a fixed size")
        if self._overhangs():
            if self.with_mask:
                self.refuse_export("has a mask and windows outside the plane, which ONNX lacks; run it in torch")
            padded = self._pad(graph, x.name, self.pad, self.pad_end, LOWEST_FLOAT)
            return [graph.add("MaxPool", [padded], **attributes)]
        attributes["pads"] = [*self.pad, *self.pad_end]
        if not self.with_mask:
            return [graph.add("MaxPool", [x.name], **attributes)]
        if self._tiles():
            graph.tiled_planes[self] = x.shape[2:]
            pooled = graph.add("MaxPool", [x.name], **attributes)
            return [pooled, emit_mask(graph, x, graph.top_shapes[0][2:], self.kernel[0], LOWEST_FLOAT)]
        pooled, flat = graph.add_multiple("MaxPool", [x.name], 2, **attributes)
        # ONNX counts over the whole tensor, Caffe within one (n, c) plane
        plane = graph.size_tensor(count(x.shape[2:]))
        mask = graph.add("Cast", [graph.add("Mod", [flat, plane])], to=1)
        return [pooled, mask]

    def _emit_average(self, graph: OnnxGraph, x: Value) -> str:
        attributes: dict[str, Any] = {"kernel_shape": list(self.kernel), "strides": list(self.stride)}
        if self._overhangs():
            padded = self._pad(graph, x.name, self.pad, self.pad_end, 0.0)
            area = self.kernel[0] * self.kernel[1]
            if area > 1:
                # ONNX Runtime before 1.32 joins Pad and AveragePool, then refuses the pads: keep them apart
                scaled = graph.add("Mul", [padded, graph.constant(float(area))])
                total = graph.add("AveragePool", [scaled], **attributes)
            else:
                bounds = [0, 0], [2**31 - 1] * 2, [2, 3], self.stride
                total = graph.add("Slice", [padded, *(graph.constant(values, "int64") for values in bounds)])
            extents = [self._emit_extents(graph, x, axis) for axis in (0, 1)]
            return graph.add("Div", [total, graph.add("Mul", extents)])
        if self.method == "AVE" and any(self.pad):
            # the divisor counts padding but not the overhang
            if self.pad_end == self.pad and (x.is_dynamic(2) or x.is_dynamic(3)):
                return graph.add("AveragePool", [x.name], pads=[*self.pad] * 2, count_include_pad=1, **attributes)
            # Pad explicitly, then exclude the rest. OpenCV 4 ignores count_include_pad, and reads static shapes only.
            padded = self._pad(graph, x.name, self.pad, self.pad, 0.0)
            rest = [end - p for end, p in zip(self.pad_end, self.pad, strict=True)]
            return graph.add("AveragePool", [padded], pads=[0, 0, *rest], count_include_pad=0, **attributes)
        return graph.add("AveragePool", [x.name], pads=[*self.pad, *self.pad_end], count_include_pad=0, **attributes)

    def _emit_extents(self, graph: OnnxGraph, x: Value, axis: int) -> str:
        """Extent of each window within the plane along an axis, shaped to broadcast over rows and columns.

        As in Caffe, it is 0 (a result of 0 / 0) or negative for windows that begin at or beyond the plane's end.
        """
        kernel, stride = self.kernel[axis], self.stride[axis]
        end = graph.add("Squeeze", [graph.size_tensor(graph.top_shapes[0][axis + 2])])
        places = graph.add("Range", [graph.constant(0, "int64"), end, graph.constant(1, "int64")])
        start = graph.add("Mul", [places, graph.constant(stride, "int64")])
        stop = graph.add(
            "Min", [graph.add("Add", [start, graph.constant(kernel, "int64")]), graph.size_tensor(x.shape[axis + 2])]
        )
        extent = graph.add("Cast", [graph.add("Sub", [stop, start])], to=1)
        return graph.reshape(extent, [-1, 1] if axis == 0 else [1, -1])
