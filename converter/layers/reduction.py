"""Layers that reduce axes or select along them: Reduction, ArgMax, MaskCreate, BatchReindex, Filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from ..graph.sizes import at_run_time
from .base import ModuleSpec, Operator, count, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: ONNX element types
FLOAT, INT64, BOOL = 1, 7, 9


@register_layer("Reduction")
class Reduction(Operator):
    """coeff times SUM, ASUM, SUMSQ or MEAN of all axes from `axis` to the last."""

    allows_in_place = False

    def set_up(self) -> None:
        param = self.context.message.reduction_param
        self.operation = param.DESCRIPTOR.enum_types_by_name["ReductionOp"].values_by_number[param.operation].name
        self.axis, self.coeff = self.bottom_axis(param.axis), param.coeff

    def top_shapes(self) -> tuple[Shape, ...]:
        return (self.bottoms[0].shape[: self.axis],)

    def module_spec(self) -> ModuleSpec:
        arguments = {"operation": self.operation, "axis": self.axis}
        return ModuleSpec("Reduction", arguments | ({"coeff": self.coeff} if self.coeff != 1 else {}))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0].name
        if self.operation == "ASUM":
            x = graph.add("Abs", [x])
        elif self.operation == "SUMSQ":
            x = graph.add("Mul", [x, x])
        axes = range(self.axis, len(bottoms[0].shape))
        reduced = graph.reduce("ReduceMean" if self.operation == "MEAN" else "ReduceSum", x, axes, keepdims=False)
        return [graph.add("Mul", [reduced, graph.constant(self.coeff)]) if self.coeff != 1 else reduced]


@register_layer("ArgMax")
class ArgMax(Operator):
    """The indices of the `top_k` largest values, as floats; of equal values the larger index comes first.

    1. With `axis`: along it; the top has size top_k there and holds indices or, with `out_max_val`, values.
    2. Without: over all axes after the batch. The top is (N, 1, top_k), or (N, 2, top_k) with the values in a second
       row, then axes of size 1 up to the bottom's number of axes.
    3. DeepLab v1, which has no `axis`: over the channels of each pixel, (N, top_k, H, W); `out_max_val` appends the
       values as top_k more channels.
    """

    allows_in_place = False

    def set_up(self) -> None:
        param, shape = self.context.message.argmax_param, self.bottoms[0].shape
        self.top_k, self.with_values = param.top_k, param.out_max_val
        self.per_pixel = self.context.dialect.argmax_per_pixel and not param.HasField("axis")
        self.axis: int | None = None
        if param.HasField("axis") or self.per_pixel:
            self.axis = self.bottom_axis(param.axis if param.HasField("axis") else 1)
        choices = count(shape[1:]) if self.axis is None else shape[self.axis]
        if not 1 <= self.top_k <= choices:
            self.refuse(f"top_k {self.top_k} must be from 1 to {choices}, the number of values")

    @property
    def output(self) -> str:
        """Content of the top: the module's argument "indices", "values" or "both"."""
        if not self.with_values:
            return "indices"
        return "both" if self.axis is None or self.per_pixel else "values"

    def top_shapes(self) -> tuple[Shape, ...]:
        shape, rows = list(self.bottoms[0].shape), 2 if self.output == "both" else 1
        if self.axis is None:
            return ((shape[0], rows, self.top_k, *(1,) * (len(shape) - 3)),)
        shape[self.axis] = self.top_k * rows
        return (tuple(shape),)

    def module_spec(self) -> ModuleSpec:
        given = {"axis": (self.axis, None), "top_k": (self.top_k, 1), "output": (self.output, "indices")}
        return ModuleSpec("ArgMax", {name: value for name, (value, default) in given.items() if value != default})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if self.axis is None:
            candidates, axis = graph.reshape(x.name, [0, 1, -1]), 2
        else:
            candidates, axis = x.name, self.axis
        if self.top_k == 1:
            place = graph.add("ArgMax", [candidates], axis=axis, keepdims=1, select_last_index=1)
            values = graph.reduce("ReduceMax", candidates, [axis]) if self.with_values else ""
        else:
            values, place = self._emit_top_k(graph, x, candidates, axis)
        indices = graph.add("Cast", [place], to=FLOAT)
        result = {"indices": indices, "values": values}.get(self.output)
        result = result or graph.add("Concat", [indices, values], axis=1)
        extra = len(x.shape) - 3
        if self.axis is None and extra > 0:
            result = graph.reshape(result, [0, 0, 0, *(1,) * extra])
        return [result]

    def _emit_top_k(self, graph: OnnxGraph, x: Value, candidates: str, axis: int) -> tuple[str, str]:
        """(values, indices): TopK puts the smaller of two tied indices first, so it gets the axis reversed."""
        bounds = [graph.constant([bound], "int64") for bound in (-1, -(2**63), axis, -1)]
        backwards = graph.add("Slice", [candidates, *bounds])
        top_k = graph.constant([self.top_k], "int64")
        values, place = graph.add_multiple("TopK", [backwards, top_k], 2, axis=axis, largest=1, sorted=1)
        length = count(x.shape[1:]) if self.axis is None else x.shape[axis]
        return values, graph.add("Sub", [graph.size_tensor(length - 1), place])


@register_layer("MaskCreate")
class MaskCreate(ArgMax):
    """LIP's ArgMax over the channels: (N, num_cls, H, W) -> (N, 1, H, W); the larger index wins ties."""

    def set_up(self) -> None:
        shape, classes = self.bottoms[0].shape, self.context.message.mask_create_param.num_cls
        if len(shape) != 4 or shape[1] != classes:
            self.refuse(f"needs a bottom with num_cls = {classes} channels (N, {classes}, H, W), has {shape}")
        self.axis, self.top_k, self.with_values, self.per_pixel = 1, 1, False, False


@register_layer("BatchReindex")
class BatchReindex(Operator):
    """Items of bottom 0 selected by the indices in bottom 1 (M): top (M, ...)."""

    bottom_range = (2, 2)
    allows_in_place = False

    def set_up(self) -> None:
        if len(self.bottoms[1].shape) != 1 or not self.bottoms[0].shape:
            shapes = f"{self.bottoms[0].shape} and {self.bottoms[1].shape}"
            self.refuse(f"needs items (N, ...) and a 1-D list of indices, has {shapes}")

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((self.bottoms[1].shape[0], *self.bottoms[0].shape[1:]),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("BatchReindex")

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        indices = graph.add("Cast", [bottoms[1].name], to=INT64)
        return [graph.add("Gather", [bottoms[0].name, indices], axis=0)]


@register_layer("Filter")
class Filter(Operator):
    """Keeps the items of each bottom whose value in the last bottom, the selector (N, 1, ...), is not 0.

    Their number is known only at run time; the shapes of the tops assume that all items are kept.
    """

    bottom_range = (2, None)
    top_range = (1, None)
    allows_in_place = False

    def set_up(self) -> None:
        *blobs, selector = (blob.shape for blob in self.bottoms)
        if len(self.context.top_names) != len(blobs):
            self.refuse(f"has {len(self.context.top_names)} tops for {len(blobs)} bottoms to filter; give one for each")
        if not selector or any(size != 1 for size in selector[1:]):
            self.refuse(f"needs a selector with one value for each item, has {selector}")
        for shape in blobs:
            if shape[:1] != selector[:1]:
                self.refuse(f"its selector has {selector[0]} items, but a bottom has shape {shape}")
        self.kept = at_run_time(selector[0], self.context.name)

    def top_shapes(self) -> tuple[Shape, ...]:
        return tuple((self.kept, *blob.shape[1:]) for blob in self.bottoms[:-1])

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Filter")

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        *blobs, selector = bottoms
        if not all(bottom.is_dynamic(0) for bottom in bottoms):
            self.refuse_export("keeps a varying number of items, but the net's batch is fixed; run it in torch")
        kept = graph.add("Cast", [graph.reshape(selector.name, [-1])], to=BOOL)
        return [graph.select_rows(blob.name, kept) for blob in blobs]
