"""Layers that join, split, reshape and reorder axes: Concat, Slice, Split, Flatten, Reshape, Squeeze, Permute, Tile.

`concat_dim` and `slice_dim` are the old names of `axis`.
Sources: the layers of BVLC Caffe; Permute of SSD; Squeeze of the TensorFlow-to-Caffe forks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, count, given, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


def _read_axis(operator: Operator, param: Any, old_name: str) -> int:
    """`axis`, or its unsigned predecessor `old_name`."""
    if not param.HasField(old_name):
        return operator.bottom_axis(param.axis)
    if param.HasField("axis"):
        operator.refuse(f"has both axis and {old_name}; keep axis")
    return operator.bottom_axis(getattr(param, old_name))


@register_layer("Concat")
class Concat(Operator):
    """Concatenation along `axis`; all other sizes are equal."""

    bottom_range = (1, None)
    allows_in_place = False

    def set_up(self) -> None:
        self.axis = _read_axis(self, self.context.message.concat_param, "concat_dim")
        first = self.bottoms[0]
        for blob in self.bottoms[1:]:
            if len(blob.shape) != len(first.shape) or any(
                a != b for axis, (a, b) in enumerate(zip(blob.shape, first.shape, strict=True)) if axis != self.axis
            ):
                shapes = f'"{blob.name}" {blob.shape} and "{first.name}" {first.shape}'
                self.refuse(f"has bottoms {shapes}; they may differ along axis {self.axis} only")

    def top_shapes(self) -> tuple[Shape, ...]:
        shape = list(self.bottoms[0].shape)
        shape[self.axis] = sum(blob.shape[self.axis] for blob in self.bottoms)
        return (tuple(shape),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Concat", {"axis": self.axis})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        return [graph.add("Concat", [bottom.name for bottom in bottoms], axis=self.axis)]


@register_layer("Slice")
class Slice(Operator):
    """The parts of `axis` between `slice_point`s, or equal parts, one per top."""

    top_range = (1, None)
    allows_in_place = False

    def set_up(self) -> None:
        param = self.context.message.slice_param
        self.axis = _read_axis(self, param, "slice_dim")
        self.parts, self.points = len(self.context.top_names), tuple(param.slice_point)
        size = self.bottoms[0].shape[self.axis]
        if not self.points:
            if size % self.parts:
                self.refuse(f"axis {self.axis} of size {size} has no {self.parts} equal parts; give slice_point")
            return
        if len(self.points) != self.parts - 1:
            self.refuse(f"has {len(self.points)} slice_point for {self.parts} tops; give {self.parts - 1}")
        if self.parts > size:
            self.refuse(f"has {self.parts} tops for axis {self.axis} of size {size}; each needs at least one value")
        bounds = (0, *self.points)
        if any(left >= right for left, right in zip(bounds, self.points, strict=False)) or self.points[-1] > size:
            self.refuse(f"slice_point {self.points} must increase and lie within axis {self.axis} of size {size}")

    def top_shapes(self) -> tuple[Shape, ...]:
        shape, size = self.bottoms[0].shape, self.bottoms[0].shape[self.axis]
        points = self.points or tuple(size // self.parts * part for part in range(1, self.parts))
        bounds = (0, *points, size)
        return tuple((*shape[: self.axis], end - start, *shape[self.axis + 1 :]) for start, end in pairwise(bounds))

    def module_spec(self) -> ModuleSpec:
        if self.parts == 1:
            return ModuleSpec("nn.Identity")
        parts = {"points": self.points} if self.points else {"parts": self.parts}
        return ModuleSpec("Slice", {"axis": self.axis, **parts})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        if self.parts == 1:
            return [bottoms[0].name]
        lengths = [shape[self.axis] for shape in graph.top_shapes]
        return graph.add_multiple("Split", [bottoms[0].name, graph.shape_tensor(lengths)], self.parts, axis=self.axis)


@register_layer("Split")
class Split(Operator):
    """One blob under several names, for consumers that modify it in place."""

    top_range = (1, None)
    allows_in_place = False

    def module_spec(self) -> ModuleSpec:
        copies = len(self.context.top_names)
        return ModuleSpec("nn.Identity") if copies == 1 else ModuleSpec("Split", {"copies": copies})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        return [bottoms[0].name] * len(self.context.top_names)


class _Reshaping(Operator):
    """Replaces `num_axes` axes from `axis` on by `dims`; the values keep their order in memory."""

    allows_in_place = False
    dims: tuple[int, ...]
    axis: int
    num_axes: int

    @property
    def end(self) -> int:
        """The first axis after the replaced ones."""
        return len(self.bottoms[0].shape) if self.num_axes == -1 else self.axis + self.num_axes

    def top_shapes(self) -> tuple[Shape, ...]:
        shape = self.bottoms[0].shape
        inner = [shape[self.axis + index] if dim == 0 else dim for index, dim in enumerate(self.dims)]
        if -1 in inner:
            known = -count([*shape[: self.axis], *inner, *shape[self.end :]])
            if known == 0 or count(shape) % known:
                self.refuse(f"cannot infer the -1 of {self.dims}: {count(shape)} values are not a multiple of {known}")
            inner[inner.index(-1)] = count(shape) // known
        top = (*shape[: self.axis], *inner, *shape[self.end :])
        if count(top) != count(shape):
            self.refuse(f"cannot reshape {shape}, {count(shape)} values, to {top}, {count(top)} values")
        return (top,)

    def module_spec(self) -> ModuleSpec:
        axes = {"num_axes": self.num_axes} if self.num_axes != -1 else {}
        return ModuleSpec("Reshape", {"dims": self.dims} | given(axis=self.axis) | axes)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        # ONNX reads 0 and -1 as Caffe, but OpenCV 5, which joins two Reshape, takes a 0 from the input of the first:
        # sizes that are not open are written out. The axes after the replaced ones may move, so a 0 cannot copy them.
        sizes = [
            x.shape[axis] if size == 0 and not x.is_dynamic(axis) else size
            for axis, size in enumerate([*(0,) * self.axis, *self.dims])
        ]
        return [graph.reshape(x.name, [*sizes, *x.shape[self.end :]])]


@register_layer("Reshape")
class Reshape(_Reshaping):
    """Replaces `num_axes` axes from `axis` on (-1: after the last) by `shape`, where 0 copies and -1 infers."""

    def set_up(self) -> None:
        param = self.context.message.reshape_param
        self.dims, self.num_axes = tuple(param.shape.dim), param.num_axes
        axes = len(self.bottoms[0].shape)
        self.axis = param.axis if param.axis >= 0 else axes + param.axis + 1
        if not 0 <= self.axis <= axes:
            self.refuse(f"axis {param.axis} is out of range for the {axes}-D blob {self.bottoms[0].shape}")
        if self.num_axes < -1 or self.end > axes:
            self.refuse(f"num_axes {self.num_axes} from axis {self.axis} is out of range for {self.bottoms[0].shape}")
        if self.dims.count(-1) > 1 or min(self.dims, default=0) < -1:
            self.refuse(f"shape {self.dims} may contain sizes, 0 to copy, and one -1 to infer")
        if any(dim == 0 and self.axis + index >= axes for index, dim in enumerate(self.dims)):
            self.refuse(f"shape {self.dims} copies an axis (0) that the bottom {self.bottoms[0].shape} does not have")


@register_layer("Flatten")
class Flatten(_Reshaping):
    """Merges axes `axis` to `end_axis`; an end_axis just before axis inserts an axis of size 1.

    DeepLab v1's Flatten has no fields and keeps four axes: (N, C H W, 1, 1).
    """

    def set_up(self) -> None:
        param = self.context.message.flatten_param
        if self.context.dialect.four_axis_blobs:
            self.dims, self.axis, self.num_axes = (-1, 1, 1), 1, -1
            return
        self.axis, last = self.bottom_axis(param.axis), self.bottom_axis(param.end_axis)
        if last < self.axis - 1:
            self.refuse(f"end_axis {param.end_axis} is before axis {param.axis}")
        self.dims, self.num_axes = (-1,), last - self.axis + 1

    def module_spec(self) -> ModuleSpec:
        if len(self.dims) > 1 or self.num_axes == 0:
            return super().module_spec()
        last = self.end - 1
        whole = last == len(self.bottoms[0].shape) - 1
        return ModuleSpec("nn.Flatten", {"start_dim": self.axis} | ({} if whole else {"end_dim": last}))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        if self.dims == (-1,) and self.axis == 1 and self.end == len(bottoms[0].shape):
            return [graph.add("Flatten", [bottoms[0].name], axis=1)]
        return super().emit(graph, module, bottoms)


@register_layer("Squeeze")
class Squeeze(Operator):
    """Removes the listed axes of size 1, or all axes of size 1."""

    allows_in_place = False

    def set_up(self) -> None:
        shape = self.bottoms[0].shape
        self.axes = sorted({self.bottom_axis(axis) for axis in self.context.message.squeeze_param.axis})
        if not self.axes:  # otherwise the sizes of other axes do not matter and may vary
            self.axes = [axis for axis, size in enumerate(shape) if size == 1]
        for axis in self.axes:
            if shape[axis] != 1:
                self.refuse(f"axis {axis} of {shape} has size {shape[axis]}; only axes of size 1 can be removed")

    def top_shapes(self) -> tuple[Shape, ...]:
        return (tuple(size for axis, size in enumerate(self.bottoms[0].shape) if axis not in self.axes),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Squeeze", {"axes": tuple(self.axes)})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        return [graph.add("Squeeze", [x.name, graph.constant(self.axes, "int64")]) if self.axes else x.name]


@register_layer("Permute")
class Permute(Operator):
    """Axis i of the top is axis order[i] of the bottom; unlisted axes follow in their original order."""

    allows_in_place = False

    def set_up(self) -> None:
        listed = list(self.context.message.permute_param.order)
        axes = len(self.bottoms[0].shape)
        if any(axis >= axes for axis in listed):
            self.refuse(f"order {listed} has an axis out of range for the {axes}-D bottom")
        if len(set(listed)) != len(listed):
            self.refuse(f"order {listed} has an axis twice; list each at most once")
        self.order = (*listed, *(axis for axis in range(axes) if axis not in listed))

    def top_shapes(self) -> tuple[Shape, ...]:
        return (tuple(self.bottoms[0].shape[axis] for axis in self.order),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Permute", {"order": self.order})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        return [graph.add("Transpose", [bottoms[0].name], perm=list(self.order))]


@register_layer("Tile")
class Tile(Operator):
    """Repeats the bottom `tiles` times along `axis`."""

    allows_in_place = False

    def set_up(self) -> None:
        param = self.context.message.tile_param
        self.axis, self.tiles = self.bottom_axis(param.axis), param.tiles
        self.require_positive(tiles=self.tiles)

    def top_shapes(self) -> tuple[Shape, ...]:
        return (
            tuple(size * (self.tiles if axis == self.axis else 1) for axis, size in enumerate(self.bottoms[0].shape)),
        )

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Tile", {"axis": self.axis, "tiles": self.tiles})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        repeats = [self.tiles if axis == self.axis else 1 for axis in range(len(bottoms[0].shape))]
        return [graph.add("Tile", [bottoms[0].name, graph.constant(repeats, "int64")])]
