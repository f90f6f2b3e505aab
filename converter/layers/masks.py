"""Pooling masks and unpooling by comparison: TensorRT has no MaxPool that writes indices.

For k x k windows side by side (the stride is the kernel, no padding, rounded up), as SegNet, ENet and DeconvNet have.
SpaceToDepth turns the plane, padded at its end to whole windows, into k * k planes (N, C, h, w), one for each place
i * k + j inside a window. They are scanned in this order, as Caffe does:

    largest, chosen = (value, place) where value > largest, so that the first of equal values wins
    mask     = the pixel's index in the plane, y * W + x, as float32: first index of the window + i * W + j
    unpooled = for each place, the value where the mask chooses it, else 0; DepthToSpace makes one plane of them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.net import Shape
from ..graph.sizes import Size

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: larger windows are not written out place by place
MAX_KERNEL = 4


def emit_mask(graph: OnnxGraph, x: Value, windows: Shape, kernel: int, lowest: float) -> str:
    """The mask (N, C, h, w) of a pooling into h x w `windows`; those at the end are filled up with `lowest`."""
    missing = [count * kernel - size for count, size in zip(windows, x.shape[2:], strict=True)]
    values = x.name
    if not all(graph.is_certain(size, "==") for size in missing):
        pads = graph.shape_tensor([0, 0, 0, 0, 0, 0, *missing])
        values = graph.add("Pad", [values, pads, graph.constant(lowest)], mode="constant")
    planes = graph.add("SpaceToDepth", [values], blocksize=kernel)
    largest, *others = graph.add_multiple("Split", [planes], kernel * kernel, axis=1, **_parts(graph, kernel))
    chosen, *steps = _emit_steps(graph, kernel, x.shape[3])
    for number, (value, step) in enumerate(zip(others, steps, strict=True), 1):
        is_larger = graph.add("Greater", [value, largest])
        chosen = graph.add("Where", [is_larger, step, chosen])
        if number < len(others):
            largest = graph.add("Where", [is_larger, value, largest])
    return graph.add("Add", [chosen, _emit_first(graph, windows, kernel, x.shape[3])])


def emit_unpooled(graph: OnnxGraph, x: Value, mask: Value, kernel: int) -> str:
    """The values of windows, (N, C, h, w), at the pixels of a mask in a plane of the current top's size, else 0."""
    sides = graph.top_shapes[0][2:]
    chosen = graph.add("Sub", [mask.name, _emit_first(graph, x.shape[2:], kernel, sides[1])])
    planes = [
        graph.add("Where", [graph.add("Equal", [chosen, step]), x.name, graph.constant(0.0)])
        for step in _emit_steps(graph, kernel, sides[1])
    ]
    result = graph.add("DepthToSpace", [graph.add("Concat", planes, axis=1)], blocksize=kernel)
    for axis, (count, size) in enumerate(zip(x.shape[2:], sides, strict=True), 2):
        if not graph.is_certain(count * kernel - size, "=="):
            result = graph.slice(result, axis, 0, size)
    return result


def _parts(graph: OnnxGraph, kernel: int) -> dict[str, Any]:
    """The number of parts, which Split has as an attribute since opset 18."""
    return {"num_outputs": kernel * kernel} if graph.opset >= 18 else {}


def _emit_steps(graph: OnnxGraph, kernel: int, width: int) -> list[str]:
    """Each place's distance from its window's first pixel, i * W + j: (1,) float32."""
    distances = (width * i + j for i in range(kernel) for j in range(kernel))
    return [graph.add("Cast", [graph.size_tensor(distance)], to=1) for distance in distances]


def _emit_first(graph: OnnxGraph, windows: Shape, kernel: int, width: int) -> str:
    """Index of the first pixel of each window in a plane of this width: (h, w) float32."""
    rows, columns = (_emit_count(graph, count) for count in windows)
    starts = graph.add("Mul", [graph.reshape(rows, [-1, 1]), graph.size_tensor(width * kernel)])
    steps = graph.add("Mul", [columns, graph.constant(kernel, "int64")])
    return graph.add("Cast", [graph.add("Add", [starts, steps])], to=1)


def _emit_count(graph: OnnxGraph, size: int) -> str:
    """0 to size - 1, int64."""
    if not isinstance(size, Size):
        return graph.constant(np.arange(size), "int64")
    end = graph.add("Squeeze", [graph.size_tensor(size)])
    return graph.add("Range", [graph.constant(0, "int64"), end, graph.constant(1, "int64")])
