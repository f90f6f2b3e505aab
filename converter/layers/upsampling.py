"""Unpooling and upsampling layers of the forks.

`Upsample` (SegNet, ENet): bottoms x and the mask of a Pooling (its second top). y = 0, y[mask] = x, in order; the later
of two values for one pixel wins. Size: upsample_h x upsample_w if both are given, else H * scale - pad_out_h and
W * scale - pad_out_w (scale 2 by default; pad_out_* need a scale of 2).
`Unpooling`: the same in other words. Size: unpool_size, or unpool_h and unpool_w (DeconvNet); else output_h and
output_w, or scale times the bottom's (FuseNet); else (H - 1) stride + kernel - 2 pad (CEDN). Its parameters are a
`pooling_param` in the layer proposed to BVLC (2015). Without a mask x goes to every stride-th pixel. AVE and TILE add
each value to all pixels of its window, AVE divided by the window's area: as on the GPU, where DecoupledNet ran;
DeconvNet's CPU code adds to the previous pass instead.
`UnPooling` (ParseNet): REP repeats each pixel out_kernel_size times, or until the plane of a second bottom is covered.
`Upsample` with one bottom (YOLO ports): nearest neighbor, `scale` times.
`ResizeBilinear` (from TensorFlow): bilinear to output_height x output_width, with aligned corners or, by default, with
output pixel i at i * in / out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.net import Shape
from .base import ModuleSpec, Operator, Window, given, register_layer
from .masks import emit_unpooled
from .resize import emit_bilinear

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


class _Upsampling(Operator):
    """Base of these layers: 4-D bottoms and a larger plane."""

    allows_in_place = False

    def grown(self) -> tuple[int, int]:
        """Height and width of the top."""
        raise NotImplementedError

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((*self.bottoms[0].shape[:2], *self.grown()),)

    def window(self) -> Window:
        height, width = (
            max(1, round(out / size)) for out, size in zip(self.grown(), self.bottoms[0].shape[2:], strict=True)
        )
        return Window((height, width), (height, width), (0, 0), upsampling=True)

    def check_mask(self) -> None:
        """Refuse a mask whose shape differs from x, or whose indices exceed the top's plane."""
        x, mask = self.bottoms
        if mask.shape != x.shape:
            self.refuse(f'the mask "{mask.name}" has shape {mask.shape}, "{x.name}" has {x.shape}; they must be equal')
        pooling = mask.producer
        if pooling is None or pooling.type != "Pooling":
            return
        height, width = pooling.bottoms[0].shape[2:]
        out_height, out_width = self.grown()
        if height * width > out_height * out_width:
            self.refuse(
                f"its {out_height} x {out_width} plane is too small for the indices of a pooling over "
                f'{height} x {width} ("{pooling.name}"); set the size to that of the pooling\'s bottom'
            )

    def emit_by_mask(self, graph: OnnxGraph, x: Value, mask: Value) -> list[str]:
        """Zeros of the top's shape with x at the flat plane indices of the mask."""
        kernel = self._find_tile(graph, x)
        if kernel is not None:
            return [emit_unpooled(graph, x, mask, kernel)]
        index = graph.reshape(graph.add("Cast", [mask.name], to=7), [0, 0, -1])
        return [_emit_scatter(graph, x, index)]

    def _find_tile(self, graph: OnnxGraph, x: Value) -> int | None:
        """The side of the windows of the mask's pooling, if they are known to cover the top's plane."""
        pooling = self.bottoms[1].producer
        if pooling is None or pooling.operator not in graph.tiled_planes:
            return None
        tile: int = pooling.operator.kernel[0]  # type: ignore[attr-defined]
        height, width = graph.top_shapes[0][2:]
        beyond = [count * tile - size for count, size in zip(x.shape[2:], (height, width), strict=True)]
        other_width = graph.tiled_planes[pooling.operator][1] - width
        covers = graph.is_certain(other_width, "==") and all(graph.is_certain(size, ">=") for size in beyond)
        return tile if covers else None


def _emit_scatter(graph: OnnxGraph, x: Value, index: str) -> str:
    """Zeros of the top's shape with x at the flat plane indices (N, C, H * W)."""
    batch, channels, height, width = graph.top_shapes[0]
    plane = graph.zeros(graph.shape_tensor([batch, channels, height * width]))
    values = graph.reshape(x.name, [0, 0, -1])
    scattered = graph.add("ScatterElements", [plane, index, values], axis=2)
    return graph.reshape(scattered, graph.top_shapes[0])


def _emit_repeat(graph: OnnxGraph, x: Value, shape: Shape) -> str:
    """Repeat pixels up to a shape whose height and width are multiples of x's."""
    return graph.add(
        "Resize",
        [x.name, "", "", graph.shape_tensor(shape)],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


@register_layer("Upsample")
class Upsample(_Upsampling):
    """SegNet's max unpooling (two bottoms), or the YOLO ports' nearest-neighbor upsampling (one bottom)."""

    bottom_range = (1, 2)

    def set_up(self) -> None:
        self.param = self.context.message.upsample_param
        self.require_planes()
        self.has_mask = len(self.bottoms) == 2
        self.size = self._size() if self.has_mask else None
        self.scale = self._scale() if self.size is None else (1, 1)
        self.trim = (0, 0)
        if self.has_mask and self.size is None:
            self.trim = (int(self.param.pad_out_h), int(self.param.pad_out_w))
            if any(trim and scale != 2 for trim, scale in zip(self.trim, self.scale, strict=True)):
                self.refuse("pad_out_h and pad_out_w need a scale of 2; set upsample_h and upsample_w instead")
        if self.has_mask:
            self.check_mask()

    def _size(self) -> tuple[int, int] | None:
        if not (self.param.HasField("upsample_h") and self.param.HasField("upsample_w")):
            return None
        size = self.param.upsample_h, self.param.upsample_w
        if min(size) <= 1:
            self.refuse(f"upsample_h and upsample_w must be above 1, not {size}")
        return size

    def _scale(self) -> tuple[int, int]:
        scale = self.read_pair(self.param, "scale")
        if scale is None and not self.has_mask:
            self.refuse("has neither a mask as second bottom nor a scale; give one of them")
        scale = scale or (self.param.scale,) * 2
        least = 2 if self.has_mask else 1
        if min(scale) < least:
            self.refuse(f"scale must be at least {least}, not {scale}")
        return scale

    def grown(self) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        height, width = (
            size * scale - trim
            for size, scale, trim in zip(self.bottoms[0].shape[2:], self.scale, self.trim, strict=True)
        )
        return height, width

    def module_spec(self) -> ModuleSpec:
        if not self.has_mask:
            return ModuleSpec("RepeatPixels", {"scale": self.scale})
        if self.size is not None:
            return ModuleSpec("MaxUnpool", {"size": self.size})
        return ModuleSpec("MaxUnpool", {"scale": self.scale} | ({"trim": self.trim} if any(self.trim) else {}))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if not self.has_mask:
            return [_emit_repeat(graph, x, graph.top_shapes[0])]
        return self.emit_by_mask(graph, x, bottoms[1])


@register_layer("Unpooling")
class Unpooling(_Upsampling):
    """Unpooling of DeconvNet, CEDN and FuseNet, by a mask (two bottoms), or by strides or windows (one bottom)."""

    bottom_range = (1, 2)

    def set_up(self) -> None:
        message = self.context.message
        as_pooling = message.HasField("pooling_param")
        self.param = message.pooling_param if as_pooling else message.unpooling_param
        self.require_planes()
        field = self.param.DESCRIPTOR.fields_by_name["pool" if as_pooling else "unpool"]
        self.method = field.enum_type.values_by_number[getattr(self.param, field.name)].name
        if self.method not in (("MAX",) if as_pooling else ("MAX", "AVE", "TILE")):
            self.refuse(f"{field.name}: {self.method} is not supported; use MAX, or AVE or TILE of unpooling_param")
        self.stride = self.read_pair(self.param, "stride") or (self.param.stride,) * 2
        self.pad = self.read_pair(self.param, "pad") or (0, 0)
        self.kernel = self.read_pair(self.param, "kernel_size", "kernel")
        self.size = None if as_pooling else self._read_size()
        if as_pooling and (self.kernel is None or len(self.bottoms) == 1):
            self.refuse("needs a kernel_size and a mask as second bottom if its parameters are a pooling_param")
        self.require_positive(stride=self.stride, kernel_size=self.kernel or (1,), size=self.size or (1,))
        self.has_mask = len(self.bottoms) == 2
        if self.has_mask and self.method != "MAX":
            self.refuse(f"unpool: {self.method} with a mask is not supported; it ignores the mask, remove that bottom")
        if any(self.pad) and (as_pooling or self.size is not None or (self.method == "MAX" and not self.has_mask)):
            self.refuse(
                "pad must be 0 with a given size, without a mask, as in DeconvNet's Caffe, or in a pooling_param"
            )
        if self.has_mask:
            self.check_mask()

    def _read_size(self) -> tuple[int, int] | None:
        """Height and width of the top, or None where they follow from the bottom's."""
        param = self.param
        size = self.read_pair(param, "unpool_size", "unpool")
        if size is not None and self.kernel is None:
            self.refuse("has no kernel_size")
        if size is None and param.HasField("output_h") and param.HasField("output_w"):
            size = param.output_h, param.output_w
        if size is None and param.HasField("scale"):
            self.require_positive(scale=param.scale)
            self.kernel = self.stride = (param.scale, param.scale)
        elif self.kernel is None and (size is None or self.method != "MAX"):
            self.refuse("has no size or window; give unpool_size, output_h and output_w, scale, or kernel_size")
        return size

    def grown(self) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        assert self.kernel is not None
        height, width = (
            (size - 1) * stride + kernel - 2 * pad
            for size, stride, kernel, pad in zip(
                self.bottoms[0].shape[2:], self.stride, self.kernel, self.pad, strict=True
            )
        )
        return height, width

    def module_spec(self) -> ModuleSpec:
        if self.method != "MAX":
            window = {"kernel": self.kernel, "stride": self.stride, "averages": self.method == "AVE"}
            return ModuleSpec("SpreadUnpool", window | given(size=self.size, pad=self.pad if any(self.pad) else None))
        if self.size is not None:
            arguments: dict[str, Any] = {"size": self.size}
        else:
            assert self.kernel is not None
            # the scale fits the last window, whose size differs from the stride's where the windows overlap
            trims = [
                stride - kernel + 2 * pad
                for stride, kernel, pad in zip(self.stride, self.kernel, self.pad, strict=True)
            ]
            arguments = {"scale": self.stride} | ({"trim": tuple(trims)} if any(trims) else {})
        if self.has_mask:
            return ModuleSpec("MaxUnpool", arguments)
        return ModuleSpec("StrideUnpool", {"size": self.grown(), "stride": self.stride})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if self.method != "MAX":
            return [self._emit_spread(graph, x)]
        if self.has_mask:
            return self.emit_by_mask(graph, x, bottoms[1])
        size = graph.top_shapes[0][2:]
        rows, columns = (self._positions(graph, x, axis) for axis in (0, 1))
        starts = graph.add("Mul", [rows, graph.size_tensor(size[1])])
        plane = graph.add("Add", [graph.add("Unsqueeze", [starts, graph.constant([1], "int64")]), columns])
        shape = graph.shape_tensor([*x.shape[:2], x.shape[2] * x.shape[3]])
        index = graph.add("Expand", [graph.reshape(plane, [-1]), shape])
        return [_emit_scatter(graph, x, index)]

    def _starts(self, graph: OnnxGraph, x: Value, axis: int) -> str:
        """Stride times the index of each row (axis 0) or column (axis 1)."""
        end = graph.add("Squeeze", [graph.size_tensor(x.shape[axis + 2])])
        numbers = graph.add("Range", [graph.constant(0, "int64"), end, graph.constant(1, "int64")])
        return graph.add("Mul", [numbers, graph.constant(self.stride[axis], "int64")])

    def _positions(self, graph: OnnxGraph, x: Value, axis: int) -> str:
        """Destinations of the rows (axis 0) or columns (axis 1): at most the last."""
        last = graph.size_tensor(graph.top_shapes[0][axis + 2] - 1)
        return graph.add("Min", [self._starts(graph, x, axis), last])

    def _emit_spread(self, graph: OnnxGraph, x: Value) -> str:
        """Add each value to all pixels of its window: a convolution transposed, cropped and padded to the top."""
        assert self.kernel is not None
        size, value = graph.top_shapes[0][2:], x.name
        if self.method == "AVE":
            for axis, shape in ((0, [-1, 1]), (1, [-1])):
                room = graph.add(
                    "Sub", [graph.size_tensor(size[axis] + 2 * self.pad[axis]), self._starts(graph, x, axis)]
                )
                extent = graph.add("Min", [room, graph.constant([self.kernel[axis]], "int64")])
                value = graph.add("Div", [value, graph.reshape(graph.add("Cast", [extent], to=1), shape)])
        ones = graph.constant(np.ones((x.shape[1], 1, *self.kernel), np.float32))
        attributes: dict[str, Any] = {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "group": int(x.shape[1]),
        }
        spread = graph.add("ConvTranspose", [value, ones], **attributes)
        ends = [
            size[axis] + self.pad[axis] - (x.shape[axis + 2] - 1) * self.stride[axis] - self.kernel[axis]
            for axis in (0, 1)
        ]
        pads = graph.shape_tensor([0, 0, -self.pad[0], -self.pad[1], 0, 0, *ends])
        return graph.add("Pad", [spread, pads], mode="constant")


@register_layer("UnPooling")
class UnPooling(_Upsampling):
    """ParseNet's unpooling by repeated pixels."""

    bottom_range = (1, 2)

    def set_up(self) -> None:
        self.param = self.context.message.unpooling_param
        self.require_planes()
        methods = self.param.DESCRIPTOR.enum_types_by_name["UnpoolMethod"].values_by_number
        if methods[self.param.unpool].name != "REP":
            self.refuse("supports unpool: REP only")
        self.scale = (self.param.out_kernel_size,) * 2
        if len(self.bottoms) == 1 and not 0 < self.param.out_kernel_size == self.param.out_stride:
            self.refuse("out_kernel_size and out_stride must be equal and above 0, so that its windows do not overlap")

    def grown(self) -> tuple[int, int]:
        plane = self.bottoms[0].shape[2:]
        if len(self.bottoms) == 1:
            return plane[0] * self.scale[0], plane[1] * self.scale[1]
        height, width = (
            wanted + (-(-wanted // size) * size - wanted) % 2
            for size, wanted in zip(plane, self.bottoms[1].shape[2:], strict=True)
        )
        return height, width

    def module_spec(self) -> ModuleSpec:
        if len(self.bottoms) == 1:
            return ModuleSpec("RepeatPixels", {"scale": self.scale})
        return ModuleSpec("RepeatToFit")

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if len(self.bottoms) == 1:
            return [_emit_repeat(graph, x, graph.top_shapes[0])]
        wanted = bottoms[1].shape[2:]
        covering = [(size + have - 1) // have * have for size, have in zip(wanted, x.shape[2:], strict=True)]
        result = _emit_repeat(graph, x, (*x.shape[:2], *covering))
        for axis, (size, cover) in enumerate(zip(wanted, covering, strict=True), 2):
            start = (cover - size) // 2
            result = graph.slice(result, axis, start, cover - start)
        return [result]


@register_layer("ResizeBilinear")
class ResizeBilinear(_Upsampling):
    """Bilinear resize of nets converted from TensorFlow."""

    def set_up(self) -> None:
        param = self.context.message.resize_bilinear_param
        self.require_planes()
        self.aligned = param.align_corners
        if param.data_format != "NCHW":
            self.refuse(f'data_format "{param.data_format}" is not supported; use "NCHW"')
        self.size = param.output_height, param.output_width
        self.require_positive(output_height=self.size[0], output_width=self.size[1])

    def grown(self) -> tuple[int, int]:
        return self.size

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Interp" if self.aligned else "ResizeFromOrigin", {"size": self.size})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if self.aligned:
            return [emit_bilinear(graph, x.name, x.shape[2:], graph.top_shapes[0])]
        target = [x.name, "", "", graph.shape_tensor(graph.top_shapes[0])]
        return [graph.add("Resize", target, mode="linear", coordinate_transformation_mode="asymmetric")]
