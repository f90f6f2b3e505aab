"""DetectionOutput (SSD): raw outputs to rows of (image, label, score, x1, y1, x2, y2).

Boxes decoded by code_type; for each class the scores above confidence_threshold, at most top_k, suppressed by overlap;
at most keep_top_k per image, in order of label and score. `save_output_param` only writes files; ignored.
In ONNX it is NonMaxSuppression and TopK (`suppression.py`); only `eta` below 1 has no such form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bundle.choices import ENGINE_FORMS, OPENCV_FORM
from ..graph.net import Shape
from .base import ModuleSpec, Operator, count, register_layer
from .suppression import (
    FLOAT,
    emit_best,
    emit_chosen,
    emit_numbers,
    emit_suppression,
    require_form,
    smaller,
    varying,
)

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

_CODES = {1: "corner", 2: "center_size", 3: "corner_size"}


@register_layer("DetectionOutput")
class DetectionOutput(Operator):
    """SSD's decoding and non-maximum suppression; a fourth bottom is the image that Caffe draws on, and is not read."""

    bottom_range = (3, 4)
    allows_in_place = False
    chooses_boxes = True

    def set_up(self) -> None:
        param = self.param = self.context.message.detection_output_param
        if not param.num_classes:
            self.refuse("has no num_classes")
        nms = param.nms_param
        if nms.nms_threshold < 0 or not 0 < nms.eta <= 1:
            self.refuse(f"needs nms_threshold >= 0 and 0 < eta <= 1, has {nms.nms_threshold:g} and {nms.eta:g}")
        locations, scores, priors = (blob.shape for blob in self.bottoms[:3])
        if len(priors) < 3 or priors[1] != 2 or priors[2] % 4:
            self.refuse(f"needs priors (1, 2, K * 4) as third bottom, has {priors}")
        boxes = priors[2] // 4
        sets = 1 if param.share_location else param.num_classes
        for shape, wanted, what in (
            (locations, boxes * sets * 4, "locations"),
            (scores, boxes * param.num_classes, "scores"),
        ):
            if count(shape[1:]) != wanted:
                self.refuse(f"needs {wanted} {what} for {boxes} priors and {param.num_classes} classes, has {shape}")

    def top_shapes(self) -> tuple[Shape, ...]:
        # the number of detections depends on the data; Caffe states the same shape
        return ((1, 1, varying(1, self.bottoms, self.context.name), 7),)

    @property
    def _top_k(self) -> int:
        """The candidates of a class, at most; -1 for all."""
        nms = self.param.nms_param
        return int(nms.top_k) if nms.HasField("top_k") else -1

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        require_form(self, graph, "standard", *ENGINE_FORMS)
        if self.param.nms_param.eta < 1:
            self.refuse_export("with eta below 1 has no ONNX form; it runs in torch only")
        if graph.detection != "standard":
            return [self._emit_engine_form(graph, bottoms)]
        param, nms = self.param, self.param.nms_param
        labels = [label for label in range(param.num_classes) if label != param.background_label_id]
        batch, priors = bottoms[0].shape[0], bottoms[2].shape[2] // 4
        candidates = smaller(priors, self._top_k)
        if not labels or 0 in (param.keep_top_k, self._top_k):
            nothing = [graph.constant(np.zeros((1, 7)))]
            return [emit_chosen(graph, nothing, graph.constant(np.zeros(0), "int64"), batch)]
        boxes = self._emit_boxes(graph, *(bottom.name for bottom in bottoms[::2]))
        # (N, classes, priors)
        scores = graph.reshape(bottoms[1].name, [0, -1, param.num_classes])
        scores = graph.add("Transpose", [scores], perm=[0, 2, 1])
        scores = graph.add("Gather", [scores, graph.constant(labels, "int64")], axis=1)
        scores, order = emit_best(graph, scores, candidates, 2)
        groups = batch * len(labels)
        if param.share_location:
            # (N, 1, priors, 4); the first of a group's boxes
            starts = graph.add("Mul", [emit_numbers(graph, batch), graph.size_tensor(priors)])
            starts = graph.reshape(starts, [-1, 1, 1])
        else:
            boxes = graph.add("Gather", [boxes, graph.constant(labels, "int64")], axis=1)
            starts = graph.add("Mul", [emit_numbers(graph, groups), graph.size_tensor(priors)])
            starts = graph.reshape(starts, [-1, len(labels), 1])
        order = graph.add("Add", [order, starts])
        boxes = graph.add("Gather", [graph.reshape(boxes, [-1, 4]), graph.reshape(order, [-1])], axis=0)
        least = param.confidence_threshold if param.HasField("confidence_threshold") else None
        kept = emit_suppression(
            graph,
            graph.reshape(boxes, [groups, candidates, 4]),
            graph.reshape(scores, [groups, 1, candidates]),
            candidates,
            candidates,
            nms.nms_threshold,
            least,
        )
        scores = graph.reshape(scores, [-1])
        # OpenCV 5 crashes on no rows and keeps the first number of rows in arithmetic: a row for the place behind the
        # candidates, and places from a table
        behind = graph.reshape(graph.shape_tensor([groups, 0, 0]), [1, 3])
        kept = graph.add("Concat", [kept, behind], axis=0)
        table = graph.reshape(emit_numbers(graph, (groups + 1) * candidates), [groups + 1, 1, candidates])
        places = graph.add("GatherND", [table, kept])
        places = self._emit_choice(graph, places, scores, batch, len(labels) * candidates)
        numbers = emit_numbers(graph, groups * candidates)
        group = graph.add("Div", [numbers, graph.size_tensor(candidates)])
        image = graph.add("Div", [group, graph.constant(len(labels), "int64")])
        label = graph.add("Mod", [group, graph.constant(len(labels), "int64")])
        label = graph.add("Gather", [graph.constant(labels, "int64"), label])
        columns = [graph.reshape(column, [-1, 1]) for column in (image, label, scores)]
        return [emit_chosen(graph, [*columns, boxes], places, batch)]

    def _emit_engine_form(self, graph: OnnxGraph, bottoms: Sequence[Value]) -> str:
        """The node of an engine, for decoded boxes: engines know fewer codes than Caffe, under other names."""
        if self.param.keep_top_k < 1 or self.param.nms_param.nms_threshold == 0 or self._top_k == 0:
            self.refuse_export(
                "needs keep_top_k, top_k and nms_threshold above 0 in the form of an engine; use --detection standard"
            )
        boxes = self._emit_boxes(graph, *(bottom.name for bottom in bottoms[::2]))
        # (N, priors, sets, 4)
        boxes = graph.add("Transpose", [boxes], perm=[0, 2, 1, 3])
        emit = self._emit_opencv if graph.detection == OPENCV_FORM else self._emit_tensorrt
        return emit(graph, boxes, bottoms)

    def _emit_opencv(self, graph: OnnxGraph, boxes: str, bottoms: Sequence[Value]) -> str:
        """OpenCV's layer; it adds the boxes to priors of 0. Rows that it leaves free are 0."""
        param, nms = self.param, self.param.nms_param
        graph.foreign.add("DetectionOutput")
        has_background = 0 <= param.background_label_id < param.num_classes
        return graph.add(
            "DetectionOutput",
            [
                graph.reshape(boxes, [0, -1]),
                graph.reshape(bottoms[1].name, [0, -1]),
                graph.add("Mul", [graph.slice(bottoms[2].name, 1, 0, 1), graph.constant(0.0)]),
            ],
            num_classes=param.num_classes,
            share_location=int(param.share_location),
            # -1 would name the boxes that all classes share
            background_label_id=param.background_label_id if has_background else param.num_classes,
            nms_threshold=float(nms.nms_threshold),
            top_k=self._top_k,
            keep_top_k=param.keep_top_k,
            code_type="CORNER",
            variance_encoded_in_target=1,
            confidence_threshold=float(param.confidence_threshold)
            if param.HasField("confidence_threshold")
            else float(np.finfo(np.float32).min),
            # by label, then score, as in Caffe
            group_by_classes=1,
        )

    def _emit_tensorrt(self, graph: OnnxGraph, boxes: str, bottoms: Sequence[Value]) -> str:
        """NVIDIA's plug-in; rows that it leaves free have the label -1, as Caffe's row of an image without boxes."""
        param, nms, batch, most = self.param, self.param.nms_param, bottoms[0].shape[0], self.param.keep_top_k
        graph.foreign.add("EfficientNMS_TRT")
        number, corners, score, label = graph.add_multiple(
            "EfficientNMS_TRT",
            # (N, priors, 4) or (N, priors, classes, 4), and (N, priors, classes)
            [
                graph.reshape(boxes, [0, -1, 4]) if param.share_location else boxes,
                graph.reshape(bottoms[1].name, [0, -1, param.num_classes]),
            ],
            4,
            plugin_version="1",
            background_class=param.background_label_id,
            max_output_boxes=most,
            score_threshold=float(param.confidence_threshold) if param.HasField("confidence_threshold") else 0.0,
            iou_threshold=float(min(nms.nms_threshold, 1.0)),
            score_activation=0,
            box_coding=0,
        )
        is_used = graph.add("Less", [graph.constant(np.arange(most), "int32"), number])
        label = graph.add("Where", [is_used, label, graph.constant(-1, "int32")])
        images = graph.add("Mul", [label, graph.constant(0, "int32")])
        own = graph.add("Cast", [graph.reshape(emit_numbers(graph, batch), [-1, 1])], to=6)
        columns = [graph.add("Add", [images, own]), label, score]
        rows = graph.add(
            "Concat",
            [graph.reshape(graph.add("Cast", [column], to=1), [-1, most, 1]) for column in columns] + [corners],
            axis=2,
        )
        return graph.reshape(rows, [1, 1, -1, 7])

    def _emit_choice(self, graph: OnnxGraph, places: str, scores: str, batch: int, each: int) -> str:
        """Places in order of image, label and rank: at most keep_top_k of each image's `each` candidates.

        One of the given places is that behind all candidates.
        """
        total = batch * each
        lowest = graph.constant([-np.inf])
        nothing = graph.add("Expand", [lowest, graph.size_tensor(total + 1)])
        found = graph.add("Gather", [graph.add("Concat", [scores, lowest], axis=0), places])
        kept = graph.slice(graph.add("ScatterElements", [nothing, places, found], axis=0), 0, 0, total)
        if self.param.keep_top_k < 0:
            return graph.reshape(graph.add("NonZero", [graph.add("Greater", [kept, lowest])]), [-1])
        best, order = emit_best(graph, graph.reshape(kept, [-1, each]), smaller(each, self.param.keep_top_k), 1)
        starts = graph.add("Mul", [emit_numbers(graph, batch), graph.size_tensor(each)])
        order = graph.reshape(graph.add("Add", [order, graph.reshape(starts, [-1, 1])]), [-1])
        exists = graph.reshape(graph.add("Cast", [graph.add("Greater", [best, lowest])], to=FLOAT), [-1])
        marked = graph.add("ScatterElements", [graph.zeros(graph.size_tensor(total)), order, exists], axis=0)
        return graph.reshape(graph.add("NonZero", [marked]), [-1])

    def _emit_boxes(self, graph: OnnxGraph, locations: str, priors: str) -> str:
        """Decoded boxes (N, sets, priors, 4)."""
        param = self.param
        sets = 1 if param.share_location else param.num_classes
        codes = graph.reshape(locations, [0, -1, sets, 4])
        codes = graph.add("Transpose", [codes], perm=[0, 2, 1, 3])
        first = graph.add("Gather", [priors, graph.constant(0, "int64")], axis=0)
        both = graph.reshape(first, [2, -1, 4])
        anchors, variances = (graph.add("Gather", [both, graph.constant(row, "int64")], axis=0) for row in (0, 1))
        shift = codes if param.variance_encoded_in_target else graph.add("Mul", [codes, variances])
        low, high = graph.slice(anchors, 1, 0, 2), graph.slice(anchors, 1, 2, 4)
        size = graph.add("Sub", [high, low])
        code = _CODES[param.code_type]
        if code == "corner":
            boxes = graph.add("Add", [anchors, shift])
        elif code == "corner_size":
            sizes = graph.add("Concat", [size, size], axis=1)
            boxes = graph.add("Add", [anchors, graph.add("Mul", [shift, sizes])])
        else:
            two = graph.constant(2.0)
            middle = graph.add("Div", [graph.add("Add", [low, high]), two])
            center = graph.add("Add", [middle, graph.add("Mul", [graph.slice(shift, 3, 0, 2), size])])
            grown = graph.add("Mul", [graph.add("Exp", [graph.slice(shift, 3, 2, 4)]), size])
            half = graph.add("Div", [grown, two])
            boxes = graph.add("Concat", [graph.add("Sub", [center, half]), graph.add("Add", [center, half])], axis=3)
        return graph.add("Clip", [boxes, graph.constant(0.0), graph.constant(1.0)]) if param.clip else boxes

    def module_spec(self) -> ModuleSpec:
        param, nms = self.param, self.param.nms_param
        arguments: dict[str, Any] = {
            "classes": param.num_classes,
            "code": _CODES[param.code_type],
            "threshold": param.confidence_threshold if param.HasField("confidence_threshold") else None,
            "nms_threshold": nms.nms_threshold,
            "top_k": self._top_k,
            "keep_top_k": param.keep_top_k,
            "background": param.background_label_id,
        }
        optional = {
            "eta": (nms.eta, 1),
            "share_location": (param.share_location, True),
            "scale_by_variance": (not param.variance_encoded_in_target, True),
            "clip": (param.clip, False),
        }
        arguments |= {name: value for name, (value, default) in optional.items() if value != default}
        return ModuleSpec("DetectionOutput", arguments)
