"""Pooling, with Caffe's rounding up, its clip and its divisor.

Caffe's output size is ceil((in + 2p - k) / s) + 1, less the last window where padding is on and that window starts at
or beyond in + p. The same windows come from rounding *down* over a plane padded by p before and by E after:

    E = p + s - 1                   without the clip (no padding on either axis)
    E = min(k - 1, p + s - 1)       with it
    E = p                           where the layer rounds down (round_mode FLOOR, ceil_mode false)

since floor((in + p + E - k) / s) + 1 equals the rule above for every `in`. So pooling has static attributes whatever
the size, in torch and in ONNX. The AVE divisor counts padding but not the overhang beyond in + p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, Window, count, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: Caffe starts a maximum here; a window wholly outside the plane keeps it.
LOWEST_FLOAT = -3.4028234663852886e38


@register_layer("Pooling")
class Pooling(Operator):
    """MAX, AVE and AVE_EXC_PAD pooling of (N, C, H, W); MAX may write a mask of flat plane indices as second top."""

    top_range = (1, 2)
    allows_in_place = False

    def set_up(self) -> None:
        param = self.param = self.context.message.pooling_param
        if len(self.bottoms[0].shape) != 4:
            self.refuse(f"needs a 4-D bottom (N, C, H, W), not {self.bottoms[0].shape}")
        self.method = param.DESCRIPTOR.enum_types_by_name["PoolMethod"].values_by_number[param.pool].name
        if self.method == "STOCHASTIC":
            self.refuse("stochastic pooling is random and has no CPU implementation in Caffe; use MAX or AVE")
        self.with_mask = len(self.context.top_names) == 2
        if self.with_mask and self.method != "MAX":
            self.refuse("only MAX pooling writes a mask as second top")
        self.global_pooling = param.global_pooling or self._has_one_bin()
        if self.global_pooling:
            if any(param.HasField(name) for name in ("kernel_size", "kernel_h", "kernel_w")):
                self.refuse("global_pooling takes no kernel size")
            self.kernel = self._plane
            self.stride, self.pad = self._pair("stride", 1), self._read_pad()
            if self.pad != (0, 0) or self.stride != (1, 1):
                self.refuse("global_pooling needs pad 0 and stride 1")
        else:
            self.kernel = self._pair("kernel_size", None, "kernel")
            self.stride, self.pad = self._pair("stride", 1), self._read_pad()
        self._check_sizes()

    @property
    def _plane(self) -> tuple[int, int]:
        return self.bottoms[0].shape[2], self.bottoms[0].shape[3]

    def _has_one_bin(self) -> bool:
        """ParseNet's `bin_size: 1`, one bin over the whole plane."""
        bins = list(self.param.bin_size)
        if bins and bins != [1]:
            self.refuse(
                f"bin_size {', '.join(map(str, bins))}: how ParseNet cuts more than one bin is not known; give 1"
            )
        return bool(bins)

    def _read_pad(self) -> tuple[int, int]:
        """The padding of rows and columns, also where a converter from TensorFlow wrote one for each side."""
        sides = ("pad_t", "pad_l", "pad_b", "pad_r")
        if not any(self.param.HasField(name) for name in sides):
            return self._pair("pad", 0)
        if any(self.param.HasField(name) for name in ("pad", "pad_h", "pad_w")):
            self.refuse("give either pad, or pad_t, pad_l, pad_b and pad_r, not both")
        top, left, bottom, right = (getattr(self.param, name) for name in sides)
        if (top, left) != (bottom, right):
            self.refuse(
                f"pads {top} rows above and {bottom} below, {left} columns before and {right} behind; pooling is "
                "converted with equal sides only: pad the other side by a layer of its own"
            )
        return top, left

    def _pair(self, field: str, default: int | None, prefix: str = "") -> tuple[int, int]:
        prefix = prefix or field
        has_h, has_w = (self.param.HasField(f"{prefix}_{side}") for side in "hw")
        if has_h != has_w:
            self.refuse(f"gives only one of {prefix}_h and {prefix}_w")
        if has_h and self.param.HasField(field):
            self.refuse(f"give either {field}, or {prefix}_h and {prefix}_w, not both")
        if has_h:
            return getattr(self.param, f"{prefix}_h"), getattr(self.param, f"{prefix}_w")
        if default is None and not self.param.HasField(field):
            self.refuse(f"has no {field}")
        value: Any = getattr(self.param, field) if self.param.HasField(field) else default
        return value, value

    @property
    def rounds_up(self) -> bool:
        """Caffe's ceil rule, unless a fork's field asks for floor."""
        if self.param.HasField("ceil_mode"):
            return bool(self.param.ceil_mode)
        return bool(self.param.round_mode == 0)

    @property
    def pad_end(self) -> tuple[int, int]:
        """E of the module docstring, per axis."""
        ends = []
        for k, s, p in zip(self.kernel, self.stride, self.pad, strict=True):
            if not self.rounds_up or self.global_pooling:
                ends.append(p)
            else:
                ends.append(min(k - 1, p + s - 1) if any(self.pad) else p + s - 1)
        return ends[0], ends[1]

    def _check_sizes(self) -> None:
        if any(value <= 0 for value in (*self.kernel, *self.stride)):
            self.refuse(f"kernel {self.kernel} and stride {self.stride} must be above 0")
        if any(p >= k for p, k in zip(self.pad, self.kernel, strict=True)):
            self.refuse(f"pad {self.pad} must be smaller than the kernel {self.kernel}")
        if any(size < 1 for size in self._pooled()):
            self.refuse(f"leaves nothing of a {self._plane} plane with kernel {self.kernel} and stride {self.stride}")

    def _pooled(self) -> tuple[int, int]:
        height, width = (
            (size + p + end - k) // s + 1
            for size, k, s, p, end in zip(self._plane, self.kernel, self.stride, self.pad, self.pad_end, strict=True)
        )
        return height, width

    def top_shapes(self) -> tuple[Shape, ...]:
        batch, channels = self.bottoms[0].shape[:2]
        return ((batch, channels, *self._pooled()),) * len(self.context.top_names)

    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.pad)

    def notes(self) -> tuple[str, ...]:
        sizes = zip(self._plane, self._pooled(), self.stride, strict=True)
        if any(self.pad) or all((windows - 1) * s < size for size, windows, s in sizes):
            return ()
        result = "the lowest float" if self.method == "MAX" else "0, or 0 / 0,"
        return (f"has windows wholly outside its {self._plane} plane, which are {result} there as in Caffe",)

    def _overhangs(self) -> bool:
        """Whether a window may lie wholly outside the plane (stride beyond kernel, no padding)."""
        return any(end >= k for end, k in zip(self.pad_end, self.kernel, strict=True))

    def module_spec(self) -> ModuleSpec:
        if self.global_pooling and not self.with_mask:
            return ModuleSpec(
                "nn.AdaptiveMaxPool2d" if self.method == "MAX" else "nn.AdaptiveAvgPool2d", {"output_size": 1}
            )
        common: dict[str, Any] = {"kernel_size": self.kernel, "stride": self.stride}
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
        from ...errors import ExportError

        attributes: dict[str, Any] = {"kernel_shape": list(self.kernel), "strides": list(self.stride)}
        if self.global_pooling and (x.is_dynamic(2) or x.is_dynamic(3)):
            raise ExportError("global pooling with a mask needs a fixed size", layer=self.context.name)
        if self._overhangs():
            if self.with_mask:
                raise ExportError("a mask of windows outside the plane has no ONNX form", layer=self.context.name)
            return [
                graph.add("MaxPool", [self._pad(graph, x.name, self.pad, self.pad_end, LOWEST_FLOAT)], **attributes)
            ]
        attributes["pads"] = [*self.pad, *self.pad_end]
        if not self.with_mask:
            return [graph.add("MaxPool", [x.name], **attributes)]
        pooled, flat = graph.add_multiple("MaxPool", [x.name], 2, **attributes)
        # ONNX counts over the whole tensor, Caffe within one (n, c) plane.
        plane = graph.size_tensor(count(x.shape[2:]))
        mask = graph.add("Cast", [graph.add("Mod", [flat, plane])], to=1)
        return [pooled, mask]

    def _emit_average(self, graph: OnnxGraph, x: Value) -> str:
        attributes: dict[str, Any] = {"kernel_shape": list(self.kernel), "strides": list(self.stride)}
        if self._overhangs():
            padded = self._pad(graph, x.name, self.pad, self.pad_end, 0.0)
            area = graph.constant(float(self.kernel[0] * self.kernel[1]))
            total = graph.add("Mul", [graph.add("AveragePool", [padded], **attributes), area])
            extents = [self._emit_extents(graph, x, axis) for axis in (0, 1)]
            return graph.add("Div", [total, graph.add("Mul", extents)])
        if self.method == "AVE" and any(self.pad):
            # Padding counts in the divisor, the overhang does not: pad for real, then exclude the rest.
            padded = self._pad(graph, x.name, self.pad, self.pad, 0.0)
            rest = [end - p for end, p in zip(self.pad_end, self.pad, strict=True)]
            return graph.add("AveragePool", [padded], pads=[0, 0, *rest], count_include_pad=0, **attributes)
        return graph.add("AveragePool", [x.name], pads=[*self.pad, *self.pad_end], count_include_pad=0, **attributes)

    def _emit_extents(self, graph: OnnxGraph, x: Value, axis: int) -> str:
        """How much of the plane each window has along an axis, for a product over rows and columns.

        Caffe lets a window begin at the plane's end (0 / 0) or beyond (0 by a negative number), and so it stays.
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
