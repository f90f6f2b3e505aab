"""ROIPooling (Fast R-CNN), PSROIPooling (R-FCN) and Proposal (Faster R-CNN).

ROIPooling: region corners times spatial_scale, rounded; the region, both ends included, is split into pooled_h x
pooled_w cells, each from floor to ceil; the top is the maximum of a cell, 0 if it is empty. In ONNX it is MaxRoiPool.
PSROIPooling: corners rounded first, the far ones plus 1, times spatial_scale; cell (i, j) of channel c averages channel
(c * group_size + i) * group_size + j. In ONNX, the rows of a cell are a matrix of zeros and ones times the features.
Proposal (the C++ layer of PVANet and mini-caffe): see the torch module; the number of boxes depends on the data.
`rpn.proposal_layer.ProposalLayer` (py-faster-rcnn's Python layer) is the same with the settings of its TEST phase,
except that it leaves small boxes out.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.net import Shape
from .anchors import MAX_BOXES, MAX_SIZE
from .base import ModuleSpec, Operator, count, given, register_layer
from .suppression import (
    FLOAT,
    INT64,
    emit_best,
    emit_column,
    emit_numbers,
    emit_suppression,
    require_form,
    smaller,
    varying,
)

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


class _Pooling(Operator):
    """A layer that reads features and regions."""

    bottom_range = (2, 2)
    allows_in_place = False

    def check_bottoms(self) -> None:
        """Refuse features that are not 4-D and regions that are not (R, 5)."""
        features, regions = (blob.shape for blob in self.bottoms)
        if len(features) != 4:
            self.refuse(f"needs features (N, C, H, W), has {features}")
        if not regions or count(regions[1:]) != 5:
            self.refuse(f"needs regions (R, 5), rows of (item, x1, y1, x2, y2), has {regions}")


@register_layer("ROIPooling")
class ROIPooling(_Pooling):
    """Maximum over each cell of every region."""

    def set_up(self) -> None:
        self.param = self.context.message.roi_pooling_param
        self.check_bottoms()
        self.size = self.param.pooled_h, self.param.pooled_w
        self.require_positive(pooled_h=self.size[0], pooled_w=self.size[1])

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((self.bottoms[1].shape[0], self.bottoms[0].shape[1], *self.size),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("ROIPool", {"size": self.size, "scale": self.param.spatial_scale})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        features, regions = bottoms
        rows = regions.name if len(regions.shape) == 2 else graph.reshape(regions.name, [-1, 5])
        attributes = {"pooled_shape": list(self.size), "spatial_scale": self.param.spatial_scale}
        return [graph.add_multiple("MaxRoiPool", [features.name, rows], 1, **attributes)[0]]


@register_layer("PSROIPooling")
class PSROIPooling(_Pooling):
    """Position-sensitive average over each cell of every region."""

    def set_up(self) -> None:
        self.param = self.context.message.psroi_pooling_param
        self.check_bottoms()
        channels, grid = self.param.output_dim, self.param.group_size
        self.require_positive(output_dim=channels, group_size=grid, spatial_scale=self.param.spatial_scale)
        if self.bottoms[0].shape[1] != channels * grid * grid:
            self.refuse(f"needs features of {channels} * {grid}^2 channels, has {self.bottoms[0].shape[1]}")

    def top_shapes(self) -> tuple[Shape, ...]:
        grid = self.param.group_size
        return ((self.bottoms[1].shape[0], self.param.output_dim, grid, grid),)

    def module_spec(self) -> ModuleSpec:
        param = self.param
        arguments = {"channels": param.output_dim, "grid": param.group_size, "scale": param.spatial_scale}
        return ModuleSpec("PositionSensitiveROIPool", arguments)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x, grid, channels = bottoms[0], self.param.group_size, self.param.output_dim
        regions = graph.reshape(bottoms[1].name, [-1, 5])
        batch, _, height, width = x.shape
        item = graph.add("Cast", [graph.slice(regions, 1, 0, 1)], to=INT64)
        # (R, 1, N, 1): the item of a region
        is_own = graph.add(
            "Equal", [graph.reshape(item, [-1, 1, 1, 1]), graph.reshape(emit_numbers(graph, batch), [-1, 1])]
        )
        rows, row_count = self._emit_cells(graph, regions, 1, height)
        columns, column_count = self._emit_cells(graph, regions, 0, width)
        rows = graph.add("Mul", [graph.reshape(rows, [-1, grid, 1, height]), graph.add("Cast", [is_own], to=FLOAT)])
        # (grid of rows, 1, R, N H) by (grid, grid, N H, channels W): sums over the rows of each cell
        rows = graph.add("Transpose", [graph.reshape(rows, [-1, grid, batch * height])], perm=[1, 0, 2])
        maps = graph.reshape(x.name, [batch, channels, grid, grid, height, width])
        maps = graph.add("Transpose", [maps], perm=[2, 3, 0, 4, 1, 5])
        maps = graph.reshape(maps, [grid, grid, batch * height, channels * width])
        sums = graph.add("MatMul", [graph.reshape(rows, [grid, 1, -1, batch * height]), maps])
        sums = graph.reshape(sums, [grid, grid, -1, channels, width])
        # (1, grid of columns, R, 1, W)
        columns = graph.reshape(graph.add("Transpose", [columns], perm=[1, 0, 2]), [1, grid, -1, 1, width])
        total = graph.reduce("ReduceSum", graph.add("Mul", [sums, columns]), [4], keepdims=False)
        total = graph.add("Transpose", [total], perm=[2, 3, 0, 1])
        area = graph.add(
            "Mul", [graph.reshape(row_count, [-1, 1, grid, 1]), graph.reshape(column_count, [-1, 1, 1, grid])]
        )
        return [graph.add("Div", [total, graph.add("Max", [area, graph.constant(1.0)])])]

    def _emit_cells(self, graph: OnnxGraph, regions: str, axis: int, size: int) -> tuple[str, str]:
        """The pixels (R, grid, size) of each cell along an axis (0: columns) as ones, and their number (R, grid)."""
        grid, scale = self.param.group_size, graph.constant(self.param.spatial_scale)
        near, far = (_emit_round(graph, graph.slice(regions, 1, axis + side, axis + side + 1)) for side in (1, 3))
        start = graph.add("Mul", [near, scale])
        end = graph.add("Mul", [graph.add("Add", [far, graph.constant(1.0)]), scale])
        extent = graph.add("Max", [graph.add("Sub", [end, start]), graph.constant(0.1)])
        extent = graph.add("Div", [extent, graph.constant(float(grid))])
        edges = graph.constant(np.arange(grid + 1))
        places = graph.add("Add", [graph.add("Mul", [extent, edges]), start])
        limit, zero = graph.add("Cast", [graph.size_tensor(size)], to=FLOAT), graph.constant(0.0)
        first = graph.add("Floor", [graph.slice(places, 1, 0, grid)])
        last = graph.add("Ceil", [graph.slice(places, 1, 1, grid + 1)])
        first, last = (graph.add("Min", [graph.add("Max", [edge, zero]), limit]) for edge in (first, last))
        pixels = graph.add("Cast", [emit_numbers(graph, size)], to=FLOAT)
        from_first = graph.add("GreaterOrEqual", [pixels, graph.reshape(first, [-1, grid, 1])])
        to_last = graph.add("Less", [pixels, graph.reshape(last, [-1, grid, 1])])
        inside = graph.add("Cast", [graph.add("And", [from_first, to_last])], to=FLOAT)
        return inside, graph.add("Max", [graph.add("Sub", [last, first]), zero])


def _emit_round(graph: OnnxGraph, x: str) -> str:
    """Round to whole numbers, halves away from 0."""
    whole = graph.add("Floor", [graph.add("Add", [graph.add("Abs", [x]), graph.constant(0.5)])])
    return graph.add("Mul", [graph.add("Sign", [x]), whole])


@register_layer("Proposal")
class Proposal(Operator):
    """Boxes that are likely to contain an object."""

    bottom_range = (3, 3)
    top_range = (1, 2)
    allows_in_place = False
    chooses_boxes = True

    def set_up(self) -> None:
        self.param = self.context.message.proposal_param
        self.anchors = self._anchors()
        self.check_bottoms()

    def check_bottoms(self) -> None:
        """Refuse bottoms that do not match the anchors."""
        param = self.param
        scores, codes, im_info = (blob.shape for blob in self.bottoms)
        if len(scores) != 4 or scores[0] != 1:
            self.refuse(f"needs scores of one image (1, 2 A, H, W), has {scores}")
        if scores[1] != 2 * len(self.anchors) or codes != (1, 4 * len(self.anchors), *scores[2:]):
            self.refuse(f"has {len(self.anchors)} anchors, which do not match scores {scores} and boxes {codes}")
        if count(im_info) < 3:
            self.refuse(f"needs im_info (height, width, scale), has shape {im_info}")
        for field in ("feat_stride", "pre_nms_topn", "post_nms_topn"):
            self.require_positive(**{field: getattr(param, field)})

    def _anchors(self) -> tuple[tuple[float, float, float, float], ...]:
        param = self.param
        if not param.ratio or not param.scale or not all(0 < v <= MAX_SIZE for v in (*param.ratio, *param.scale)):
            self.refuse(f"needs a ratio and a scale, all above 0 and at most {MAX_SIZE:,}")
        if len(param.ratio) * len(param.scale) > MAX_BOXES:
            self.refuse(f"has more than {MAX_BOXES:,} anchors; give fewer ratios or scales")
        center = 0.5 * (param.base_size - 1)
        anchors = []
        for ratio in param.ratio:
            width = math.floor(math.sqrt(param.base_size**2 / ratio) + 0.5)
            height = math.floor(width * ratio + 0.5)
            for scale in param.scale:
                half = 0.5 * (width * scale - 1), 0.5 * (height * scale - 1)
                anchors.append((center - half[0], center - half[1], center + half[0], center + half[1]))
        return tuple(anchors)

    def top_shapes(self) -> tuple[Shape, ...]:
        rows = varying(self.param.post_nms_topn, self.bottoms, self.context.name)
        return ((rows, 5), (rows,))[: len(self.context.top_names)]

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        require_form(self, graph, "standard", "tensorrt")  # TensorRT has NonMaxSuppression
        anchors, (rows, columns) = len(self.anchors), bottoms[0].shape[2:]
        total = rows * columns * anchors
        boxes, info = self._emit_boxes(graph, bottoms, (rows, columns))
        score = graph.slice(bottoms[0].name, 1, anchors, 2 * anchors)
        score = graph.reshape(graph.add("Transpose", [score], perm=[0, 2, 3, 1]), [-1])
        size = graph.add("Add", [self._emit_extent(graph, boxes), graph.constant(1.0)])
        least = graph.add("Mul", [graph.slice(info, 0, 2, 3), graph.constant(float(module.min_size))])
        is_large = graph.add("GreaterOrEqual", [graph.reduce("ReduceMin", size, [1], keepdims=False), least])
        drops = module.drops_small
        score = graph.add("Where", [is_large, score, graph.constant(-np.inf if drops else 0.0)])
        before = smaller(total, module.before)
        score, order = emit_best(graph, score, before, 0)
        boxes = graph.add("Gather", [boxes, order], axis=0)
        one = graph.constant([0.0, 0.0, 1.0, 1.0])  # both ends of a box count
        kept = emit_suppression(
            graph,
            graph.reshape(graph.add("Add", [boxes, one]), [1, -1, 4]),
            graph.reshape(score, [1, 1, -1]),
            before,
            module.after,
            module.nms_threshold,
            None,
        )
        places = emit_column(graph, kept, 2)
        if drops:  # a limit of NonMaxSuppression would do, but OpenCV 5 takes none below 0
            is_large = graph.add("Greater", [score, graph.constant(-np.inf)])
            places = graph.select_rows(places, graph.add("Gather", [is_large, places]))
        item = graph.add("Mul", [graph.slice(boxes, 1, 0, 1), graph.constant(0.0)])
        table = graph.add("Concat", [item, boxes], axis=1)
        tops = [graph.add("Gather", [table, places], axis=0), graph.add("Gather", [score, places])]
        return tops[: len(self.context.top_names)]

    def _emit_extent(self, graph: OnnxGraph, boxes: str) -> str:
        return graph.add("Sub", [graph.slice(boxes, 1, 2, 4), graph.slice(boxes, 1, 0, 2)])

    def _emit_boxes(self, graph: OnnxGraph, bottoms: Sequence[Value], plane: Shape) -> tuple[str, str]:
        """Decoded and clipped boxes (H W A, 4), and im_info as a vector."""
        stride = graph.constant(float(self.module_spec().arguments["stride"]))
        y, x = (graph.add("Mul", [graph.add("Cast", [emit_numbers(graph, size)], to=FLOAT), stride]) for size in plane)
        shape = graph.shape_tensor([*plane, 1])
        x = graph.add("Expand", [graph.reshape(x, [1, -1, 1]), shape])
        y = graph.add("Expand", [graph.reshape(y, [-1, 1, 1]), shape])
        shift = graph.reshape(graph.add("Concat", [x, y, x, y], axis=2), [-1, 1, 4])
        boxes = graph.reshape(graph.add("Add", [shift, graph.constant(np.array(self.anchors))]), [-1, 4])
        code = graph.reshape(bottoms[1].name, [len(self.anchors), 4, *plane])
        code = graph.reshape(graph.add("Transpose", [code], perm=[2, 3, 0, 1]), [-1, 4])
        size = graph.add("Add", [self._emit_extent(graph, boxes), graph.constant(1.0)])
        two = graph.constant(2.0)
        center = graph.add("Add", [graph.slice(boxes, 1, 0, 2), graph.add("Div", [size, two])])
        center = graph.add("Add", [center, graph.add("Mul", [graph.slice(code, 1, 0, 2), size])])
        half = graph.add("Div", [graph.add("Mul", [graph.add("Exp", [graph.slice(code, 1, 2, 4)]), size]), two])
        corners = graph.add("Concat", [graph.add("Sub", [center, half]), graph.add("Add", [center, half])], axis=1)
        info = graph.reshape(bottoms[2].name, [-1])
        far = graph.add("Gather", [info, graph.constant([1, 0, 1, 0], "int64")])
        limited = graph.add("Min", [corners, graph.add("Sub", [far, graph.constant(1.0)])])
        return graph.add("Max", [limited, graph.constant(0.0)]), info

    def module_spec(self) -> ModuleSpec:
        param = self.param
        arguments = {
            "anchors": self.anchors,
            "stride": param.feat_stride,
            "min_size": param.min_size,
            "before": param.pre_nms_topn,
            "after": param.post_nms_topn,
            "nms_threshold": param.nms_thresh,
        }
        return ModuleSpec("Proposal", arguments | given(with_scores=len(self.context.top_names) == 2))


@register_layer("Python:rpn.proposal_layer.ProposalLayer")
class PythonProposal(Proposal):
    """py-faster-rcnn's ProposalLayer, whose code is published with it, in its TEST phase; PVANet's also has ratios."""

    #: ratios and scales of its generate_anchors; settings of its config.py for TEST
    RATIOS, SCALES, BASE_SIZE = (0.5, 1.0, 2.0), (8.0, 16.0, 32.0), 16
    BEFORE, AFTER, OVERLAP, LEAST_SIZE = 6000, 300, 0.7, 16

    def set_up(self) -> None:
        text = self.context.message.python_param.param_str
        try:
            options = _read_yaml(text)
            self.stride = int(options.pop("feat_stride"))
            scales, ratios = (
                [float(value) for value in options.pop(name, default)]
                for name, default in (("scales", self.SCALES), ("ratios", self.RATIOS))
            )
        except (ValueError, SyntaxError, KeyError, TypeError, AttributeError, MemoryError, RecursionError):
            self.refuse(f"needs param_str \"'feat_stride': 16\", has {text[:60]!r}")
        if unknown := options.keys() - {"num_classes"}:
            self.refuse(f"has {min(unknown)!r} in its param_str; feat_stride, scales and ratios are supported")
        param = self.param = type(self.context.message.proposal_param)()
        param.ratio.extend(ratios)
        param.scale.extend(scales)
        param.base_size, param.feat_stride, param.min_size = self.BASE_SIZE, self.stride, self.LEAST_SIZE
        param.pre_nms_topn, param.post_nms_topn, param.nms_thresh = self.BEFORE, self.AFTER, self.OVERLAP
        self.anchors = self._anchors()
        self.check_bottoms()

    def module_spec(self) -> ModuleSpec:
        spec = super().module_spec()
        return ModuleSpec(spec.class_name, {**spec.arguments, "drops_small": True})

    def notes(self) -> tuple[str, ...]:
        return (
            f"computed as py-faster-rcnn's TEST phase does: {self.BEFORE} boxes before and {self.AFTER} after "
            f"suppression at {self.OVERLAP}, at least {self.LEAST_SIZE} pixels wide and high",
        )


def _read_yaml(text: str) -> dict[Any, Any]:
    """Options in the YAML of published `param_str`, lines or a mapping in braces; raises what `literal_eval` raises."""
    text = text.replace("!!python/tuple", "").strip()
    if not text.startswith("{"):
        text = f"{{{','.join(line for line in text.splitlines() if line.strip())}}}"
    options = ast.literal_eval(re.sub(r"([{,]\s*)([a-z_]+)\s*:", r"\1'\2':", text))
    if not isinstance(options, dict):
        raise ValueError("not a mapping")
    return options
