"""Non-maximum suppression in standard ONNX operators, in Caffe's order.

TopK orders the candidates, the smaller index first among equal scores, as Caffe's stable sort does. NonMaxSuppression
then keeps the order, as its own ties go to the smaller index. Boxes without area, inverted ones among them, overlap
nothing in Caffe; NonMaxSuppression would turn an inverted one around, and OpenCV 5 keeps one box without area alone, so
they become squares side by side far away. Two boxes of infinite area have the overlap NaN, and Caffe drops the second;
NonMaxSuppression would keep it, so such boxes become one large square.

What differs: where more than `keep_top_k` boxes of an image have exactly equal scores, Caffe's choice is that of GCC's
unstable sort (`modules/sorting.py`); in ONNX it is the smaller label, then the better box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.net import Blob
from ..graph.sizes import Size, at_least, found_at_run_time

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph
    from .base import Operator

INT64 = 7
FLOAT = 1
#: corner of the largest square of which two areas have a finite sum in float32
_FAR = 6.5e18
#: larger than any number of boxes, and float32 still distinguishes all whole numbers below it
_MOST = 2**23
#: y of the squares that overlap nothing
_ASIDE = -1e6


def require_form(operator: Operator, graph: OnnxGraph, *forms: str) -> None:
    """Refuse to export a layer that decodes boxes in a form that it lacks."""
    if graph.detection == "cut":
        operator.refuse_export("is left out, as --detection cut asks")
    if graph.detection not in forms:
        operator.refuse_export(f"has no form for --detection {graph.detection}")


def varying(bound: int, bottoms: Sequence[Blob], key: str) -> Any:
    """A size that depends on the data and is stated as `bound`; equal keys are one size."""
    sizes: list[Any] = [size for blob in bottoms for size in blob.shape]
    owner = next((size for size in sizes if isinstance(size, Size)), None)
    return bound if owner is None else found_at_run_time(owner.trace, bound, key)


def smaller(size: Any, limit: int) -> Any:
    """The smaller of a size and a number; a negative number sets none."""
    return size if limit < 0 else size + limit - at_least(size, limit)


def emit_best(graph: OnnxGraph, scores: str, number: int, axis: int) -> tuple[str, str]:
    """The `number` largest values along an axis, largest first, and their int64 indices."""
    values, places = graph.add_multiple("TopK", [scores, graph.size_tensor(number)], 2, axis=axis, largest=1, sorted=1)
    return values, places


def emit_suppression(
    graph: OnnxGraph, boxes: str, scores: str, number: int, most: int, overlap: float, least_score: float | None
) -> str:
    """Rows (group, 0, index) of the boxes kept in each group, int64: by group, then from the highest score down.

    Args:
        graph: the graph.
        boxes: (groups, K, 4), corners x1 y1 x2 y2.
        scores: (groups, 1, K), in descending order.
        number: K.
        most: number of boxes to keep at most in each group.
        overlap: a box is dropped if its overlap with a better one is larger.
        least_score: boxes of this score or less are dropped; None keeps all.
    """
    size = graph.add("Sub", [graph.slice(boxes, 2, 2, 4), graph.slice(boxes, 2, 0, 2)])
    is_endless = graph.add("Equal", [graph.reduce("ReduceProd", size, [2]), graph.constant(np.inf)])
    proper = graph.add("Where", [is_endless, graph.constant([-_FAR, -_FAR, _FAR, _FAR]), boxes])
    starts = graph.add("Cast", [graph.reshape(emit_numbers(graph, number), [-1, 1])], to=FLOAT)
    aside = graph.add("Mul", [starts, graph.constant([2.0, 0.0, 2.0, 0.0])])
    aside = graph.add("Add", [aside, graph.constant([0.0, _ASIDE, 1.0, _ASIDE + 1])])
    is_flat = graph.add("LessOrEqual", [graph.reduce("ReduceMin", size, [2]), graph.constant(0.0)])
    proper = graph.add("Where", [is_flat, aside, proper])
    limits = [graph.size_tensor(most), graph.constant([min(overlap, 1.0)])]
    if least_score is not None:
        limits.append(graph.constant([least_score]))
    else:
        # OpenCV 5 drops scores of 0 and less; the order of the boxes says as much
        ranks = graph.reshape(graph.add("Sub", [graph.constant(float(_MOST)), starts]), [1, 1, -1])
        scores = graph.add("Expand", [ranks, graph.add("Shape", [scores])])
    return graph.add("NonMaxSuppression", [proper, scores, *limits])


def emit_column(graph: OnnxGraph, rows: str, column: int) -> str:
    """A column of a matrix, as a vector."""
    return graph.add("Gather", [rows, graph.constant(column, "int64")], axis=1)


def emit_numbers(graph: OnnxGraph, size: int) -> str:
    """0 to size - 1, int64."""
    if not isinstance(size, Size):
        return graph.constant(np.arange(size), "int64")
    end = graph.add("Squeeze", [graph.size_tensor(size)])
    return graph.add("Range", [graph.constant(0, "int64"), end, graph.constant(1, "int64")])


def emit_chosen(graph: OnnxGraph, columns: Sequence[str], places: str, batch: int) -> str:
    """Rows of a table as (1, 1, R, 7); where there are none, a row for each image: its number, then -1.

    Only Gather reads the places: in arithmetic OpenCV 5 keeps the number of places of its first run.

    Args:
        graph: the graph.
        columns: matrices side by side, of 7 columns together.
        places: the rows to keep, int64.
        batch: number of images.
    """
    table = graph.add("Concat", [graph.add("Cast", [column], to=FLOAT) for column in columns], axis=1)
    rows = graph.add("Gather", [table, places], axis=0)
    images = graph.add("Cast", [graph.reshape(emit_numbers(graph, batch), [-1, 1])], to=FLOAT)
    nothing = graph.add("Expand", [graph.constant(np.full((1, 6), -1)), graph.shape_tensor([batch, 6])])
    empty = graph.add("Concat", [images, nothing], axis=1)
    is_empty = graph.add("Equal", [graph.add("Shape", [places]), graph.constant([0], "int64")])
    count = graph.add("Where", [is_empty, graph.size_tensor(batch), graph.constant([0], "int64")])
    zero = graph.constant([0], "int64")
    filler = graph.add("Slice", [empty, zero, count, zero])
    return graph.reshape(graph.add("Concat", [rows, filler], axis=0), [1, 1, -1, 7])
