"""Undoing a pooling, in the spellings of the forks.

`Upsample` (SegNet, ENet): bottoms x and the mask of a Pooling (its second top). y = 0, y[mask] = x, in order, so that
the later of two values for one place wins. Size: upsample_h x upsample_w if both are given, else H * scale - pad_out_h
and W * scale - pad_out_w (scale 2 by default; pad_out_* need it to be 2).
`Unpooling` (DeconvNet): the same with unpool_size, or unpool_h and unpool_w; without a mask x goes to every stride-th
pixel. Its AVE and TILE add onto what the top held before, and are refused.
`UnPooling` (ParseNet): REP repeats each pixel, out_kernel_size times, or until the plane of a second bottom is covered.
`Upsample` with one bottom (YOLO ports): nearest neighbour, `scale` times.
`ResizeBilinear` (from TensorFlow): bilinear to output_height x output_width, corners aligned or, by default, output
pixel i at i * in / out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, Window, register_layer
from .resize import emit_bilinear

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


class _Upsampling(Operator):
    """What the layers of this file share: a 4-D bottom and a plane that grows."""

    allows_in_place = False

    def check_plane(self) -> None:
        """Refuse bottoms that are not (N, C, H, W)."""
        for blob in self.bottoms:
            if len(blob.shape) != 4:
                self.refuse(f'needs 4-D bottoms (N, C, H, W), "{blob.name}" is {blob.shape}')

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
        """Refuse a mask of another shape than x, or one whose indices cannot fit the top's plane."""
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
                f"its {out_height} x {out_width} plane cannot take the indices of a pooling over {height} x {width} "
                f'("{pooling.name}"); give the size the pooling came from'
            )


def _emit_scatter(graph: OnnxGraph, x: Value, index: str) -> str:
    """Zeros of the top's shape with x at the flat plane indices (N, C, H * W)."""
    batch, channels, height, width = graph.top_shapes[0]
    plane = graph.add("ConstantOfShape", [graph.shape_tensor([batch, channels, height * width])])
    values = graph.reshape(x.name, [0, 0, -1])
    scattered = graph.add("ScatterElements", [plane, index, values], axis=2)
    return graph.reshape(scattered, graph.top_shapes[0])


def _emit_repeat(graph: OnnxGraph, x: Value, shape: Shape) -> str:
    """Enlarge x to a shape of whole multiples of its height and width by repetition."""
    return graph.add(
        "Resize",
        [x.name, "", "", graph.shape_tensor(shape)],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


@register_layer("Upsample")
class Upsample(_Upsampling):
    """SegNet's max-unpooling (two bottoms), or a YOLO port's nearest-neighbour enlargement (one)."""

    bottom_range = (1, 2)

    def set_up(self) -> None:
        self.param = self.context.message.upsample_param
        self.check_plane()
        self.has_mask = len(self.bottoms) == 2
        self.size = self._size() if self.has_mask else None
        self.scale = self._scale() if self.size is None else (1, 1)
        self.trim = (0, 0)
        if self.has_mask and self.size is None:
            self.trim = (int(self.param.pad_out_h), int(self.param.pad_out_w))
            if any(trim and scale != 2 for trim, scale in zip(self.trim, self.scale, strict=True)):
                self.refuse("pad_out_h and pad_out_w need a scale of 2; give upsample_h and upsample_w instead")
        if self.has_mask:
            self.check_mask()

    def _size(self) -> tuple[int, int] | None:
        if not (self.param.HasField("upsample_h") and self.param.HasField("upsample_w")):
            return None
        size = self.param.upsample_h, self.param.upsample_w
        if min(size) <= 1:
            self.refuse(f"upsample_h and upsample_w {size} must be above 1")
        return size

    def _scale(self) -> tuple[int, int]:
        param = self.param
        by_axis = [param.HasField(name) for name in ("scale_h", "scale_w")]
        if any(by_axis) and (param.HasField("scale") or not all(by_axis)):
            self.refuse("give either scale, or scale_h and scale_w")
        if not self.has_mask and not any(by_axis) and not param.HasField("scale"):
            self.refuse("has one bottom, so it repeats pixels, but no scale; give scale, or a mask as second bottom")
        scale = (param.scale_h, param.scale_w) if all(by_axis) else (param.scale, param.scale)
        if min(scale) < (2 if self.has_mask else 1):
            self.refuse(f"scale {scale} must be above {1 if self.has_mask else 0}")
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
        index = graph.reshape(graph.add("Cast", [bottoms[1].name], to=7), [0, 0, -1])
        return [_emit_scatter(graph, x, index)]


@register_layer("Unpooling")
class Unpooling(_Upsampling):
    """DeconvNet's unpooling."""

    bottom_range = (1, 2)

    def set_up(self) -> None:
        self.param = self.context.message.unpooling_param
        self.check_plane()
        if self.param.unpool != 0:
            self.refuse("only MAX is supported: AVE and TILE add onto what the top held before; use a Deconvolution")
        self.kernel = self._pair("kernel_size", "kernel")
        self.stride = self._pair("stride", "stride")
        self.size = self._pair("unpool_size", "unpool")
        if any((self.param.pad, self.param.pad_h, self.param.pad_w)):
            self.refuse("pad must be 0, DeconvNet's Caffe has no other")
        if min(*self.kernel, *self.stride, *self.size) <= 0:
            self.refuse(f"kernel {self.kernel}, stride {self.stride} and size {self.size} must be above 0")
        if len(self.bottoms) == 2:
            self.check_mask()

    def _pair(self, field: str, prefix: str) -> tuple[int, int]:
        has_h, has_w = (self.param.HasField(f"{prefix}_{side}") for side in "hw")
        if has_h != has_w or (has_h and self.param.HasField(field)):
            self.refuse(f"give either {field}, or {prefix}_h and {prefix}_w")
        if has_h:
            return getattr(self.param, f"{prefix}_h"), getattr(self.param, f"{prefix}_w")
        if field != "stride" and not self.param.HasField(field):
            self.refuse(f"has no {field}")
        return (getattr(self.param, field),) * 2

    def grown(self) -> tuple[int, int]:
        return self.size

    def module_spec(self) -> ModuleSpec:
        if len(self.bottoms) == 2:
            return ModuleSpec("MaxUnpool", {"size": self.size})
        return ModuleSpec("StrideUnpool", {"size": self.size, "stride": self.stride})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if len(self.bottoms) == 2:
            index = graph.reshape(graph.add("Cast", [bottoms[1].name], to=7), [0, 0, -1])
            return [_emit_scatter(graph, x, index)]
        rows, columns = (self._positions(graph, x, axis) for axis in (0, 1))
        starts = graph.add("Mul", [rows, graph.constant(self.size[1], "int64")])
        plane = graph.add("Add", [graph.add("Unsqueeze", [starts, graph.constant([1], "int64")]), columns])
        shape = graph.shape_tensor([*x.shape[:2], x.shape[2] * x.shape[3]])
        index = graph.add("Expand", [graph.reshape(plane, [-1]), shape])
        return [_emit_scatter(graph, x, index)]

    def _positions(self, graph: OnnxGraph, x: Value, axis: int) -> str:
        """Where the rows (0) or columns (1) go: stride times their number, at most the last."""
        end = graph.add("Squeeze", [graph.size_tensor(x.shape[axis + 2])])
        numbers = graph.add("Range", [graph.constant(0, "int64"), end, graph.constant(1, "int64")])
        spread = graph.add("Mul", [numbers, graph.constant(self.stride[axis], "int64")])
        return graph.add("Min", [spread, graph.constant(self.size[axis] - 1, "int64")])


@register_layer("UnPooling")
class UnPooling(_Upsampling):
    """ParseNet's unpooling by repetition."""

    bottom_range = (1, 2)

    def set_up(self) -> None:
        self.param = self.context.message.unpooling_param
        self.check_plane()
        methods = self.param.DESCRIPTOR.enum_types_by_name["UnpoolMethod"].values_by_number
        if methods[self.param.unpool].name != "REP":
            self.refuse("only REP, repetition, is supported")
        self.scale = (self.param.out_kernel_size,) * 2
        if len(self.bottoms) == 1 and not 0 < self.param.out_kernel_size == self.param.out_stride:
            self.refuse("out_kernel_size and out_stride must be equal and above 0: its windows may not overlap")

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
    """Bilinear resize of a net brought over from TensorFlow."""

    def set_up(self) -> None:
        param = self.context.message.resize_bilinear_param
        self.check_plane()
        self.aligned = param.align_corners
        if param.data_format != "NCHW":
            self.refuse(f'data_format "{param.data_format}" is not Caffe\'s; give "NCHW"')
        self.size = param.output_height, param.output_width
        if min(self.size) < 1:
            self.refuse("give output_height and output_width above 0")

    def grown(self) -> tuple[int, int]:
        return self.size

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Interp" if self.aligned else "ResizeFromOrigin", {"size": self.size})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if self.aligned:
            return [emit_bilinear(graph, x.name, graph.top_shapes[0])]
        target = [x.name, "", "", graph.shape_tensor(graph.top_shapes[0])]
        return [graph.add("Resize", target, mode="linear", coordinate_transformation_mode="asymmetric")]
