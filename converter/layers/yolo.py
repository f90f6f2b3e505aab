"""Yolov3DetectionOutput and YoloDetectionOutput (the ports in eric612's MobileNet-YOLO): maps to rows of boxes.

Rows are (0, label, score, x1, y1, x2, y2): see the torch module. YOLO v3 scores every class of a box by itself and
keeps scores above the threshold; YOLO v2 keeps the best class of each box, by softmax, and scores from the threshold
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..graph.net import Shape
from .base import ModuleSpec, Operator, register_layer
from .suppression import emit_chosen, emit_column, emit_numbers, require_form, varying

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


@register_layer("Yolov3DetectionOutput")
class Yolov3DetectionOutput(Operator):
    """Decoding and non-maximum suppression of the YOLOv3 ports."""

    bottom_range: ClassVar[tuple[int, int | None]] = (1, None)
    allows_in_place = False
    chooses_boxes = True
    #: only the best class of a box counts
    one_label: ClassVar[bool] = False

    def set_up(self) -> None:
        param = self.param = self.context.message.yolov3_detection_output_param
        scales, boxes = len(self.bottoms), param.num_box
        if not param.HasField("num_classes"):
            self.refuse("has no num_classes")
        self.require_positive(num_box=boxes)
        if param.mask_group_num != scales or len(param.anchors_scale) != scales or len(param.mask) != scales * boxes:
            self.refuse(
                f"needs mask_group_num {scales}, {scales} anchors_scale and {scales * boxes} mask entries for {scales} "
                f"bottoms, has {param.mask_group_num}, {len(param.anchors_scale)} and {len(param.mask)}"
            )
        if max(param.mask) * 2 + 1 >= len(param.biases):
            self.refuse(f"mask {max(param.mask)} has no anchor: biases define only {len(param.biases) // 2}")
        self.check_maps()

    def check_maps(self) -> None:
        """Refuse bottoms that are not square maps of the boxes' codes."""
        boxes, classes = self.param.num_box, self.param.num_classes
        for blob in self.bottoms:
            shape = blob.shape
            if len(shape) != 4 or shape[2] != shape[3] or shape[1] != boxes * (5 + classes):
                self.refuse(f'needs square maps of {boxes} * (5 + {classes}) channels; "{blob.name}" is {shape}')

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((1, 1, varying(1, self.bottoms, self.context.name), 7),)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        require_form(self, graph, "standard")
        param = self.param
        # an overlap equal to the threshold drops a box, too
        overlap = float(np.nextafter(np.float32(param.nms_threshold), np.float32(-1)))
        if overlap < 0:
            self.refuse_export("needs an nms_threshold above 0 in ONNX")
        found = [
            self._emit_scale(graph, bottom, anchors, stride)
            for bottom, anchors, stride in zip(bottoms, module.anchors, module.strides, strict=True)
        ]
        boxes = graph.add("Concat", [part[0] for part in found], axis=0)
        scores = graph.add("Concat", [part[1] for part in found], axis=0)
        each_box = 1 if self.one_label else param.num_classes
        classes = graph.constant(each_box, "int64")
        count = graph.add("Shape", [scores])
        numbers = graph.add(
            "Range", [graph.constant(0, "int64"), graph.add("Squeeze", [count]), graph.constant(1, "int64")]
        )
        each = graph.add("Gather", [boxes, graph.add("Div", [numbers, classes])], axis=0)
        low = graph.slice(each, 1, 0, 2)
        proper = graph.add("Concat", [low, graph.add("Max", [low, graph.slice(each, 1, 2, 4)])], axis=1)
        kept = graph.add(
            "NonMaxSuppression",
            [
                graph.reshape(proper, [1, -1, 4]),
                graph.reshape(scores, [1, 1, -1]),
                count,
                graph.constant([min(overlap, 1.0)]),
                graph.constant([self._least_score()]),
            ],
        )
        if self.one_label:
            label = graph.add("Concat", [part[2] for part in found], axis=0)
        else:
            label = graph.add("Mod", [numbers, classes])
        label = graph.add("Add", [label, graph.constant(1, "int64")])
        image = graph.add("Mul", [numbers, graph.constant(0, "int64")])
        columns = [graph.reshape(column, [-1, 1]) for column in (image, label, scores)]
        return [emit_chosen(graph, [*columns, each], emit_column(graph, kept, 2), bottoms[0].shape[0])]

    def _least_score(self) -> float:
        """The score above which a box is kept."""
        return float(self.param.confidence_threshold)

    def _emit_scale(self, graph: OnnxGraph, codes: Value, anchors: Any, stride: int) -> tuple[str, str, str]:
        """Boxes (rows, 4) of a map by image, cell and anchor, their scores as a vector, and labels of the scores."""
        parts, side = 5 + self.param.num_classes, codes.shape[3]
        # (N, cells, anchors, parts)
        cells = graph.reshape(codes.name, [0, len(anchors), parts, -1])
        cells = graph.add("Transpose", [cells], perm=[0, 3, 1, 2])
        number = graph.reshape(emit_numbers(graph, codes.shape[2] * side), [-1, 1, 1])
        sides = graph.size_tensor(side)
        place = graph.add("Concat", [graph.add("Mod", [number, sides]), graph.add("Div", [number, sides])], axis=2)
        corner = graph.add("Cast", [place], to=1)
        width = graph.add("Cast", [sides], to=1)
        center = graph.add("Add", [corner, graph.add("Sigmoid", [graph.slice(cells, 3, 0, 2)])])
        center = graph.add("Div", [center, width])
        grown = graph.add("Mul", [graph.add("Exp", [graph.slice(cells, 3, 2, 4)]), graph.constant(anchors)])
        pixels = graph.add("Mul", [width, graph.constant(float(stride))])
        half = graph.add("Div", [graph.add("Div", [grown, pixels]), graph.constant(2.0)])
        boxes = graph.add("Concat", [graph.add("Sub", [center, half]), graph.add("Add", [center, half])], axis=3)
        scores, labels = graph.slice(cells, 3, 5, parts), ""
        if self.one_label:
            labels = graph.reshape(graph.add("ArgMax", [scores], axis=3, keepdims=0), [-1])
            scores = graph.reduce("ReduceMax", graph.add("Softmax", [scores], axis=3), [3])
        else:
            scores = graph.add("Sigmoid", [scores])
        scores = graph.add("Mul", [graph.add("Sigmoid", [graph.slice(cells, 3, 4, 5)]), scores])
        return graph.reshape(boxes, [-1, 4]), graph.reshape(scores, [-1]), labels

    def module_spec(self) -> ModuleSpec:
        param = self.param
        pairs = [(param.biases[2 * number], param.biases[2 * number + 1]) for number in param.mask]
        starts = range(0, len(pairs), param.num_box)
        arguments = {
            "classes": param.num_classes,
            "threshold": param.confidence_threshold,
            "nms_threshold": param.nms_threshold,
            "anchors": tuple(tuple(pairs[start : start + param.num_box]) for start in starts),
            "strides": tuple(param.anchors_scale),
        }
        return ModuleSpec("Yolov3DetectionOutput", arguments)


@register_layer("YoloDetectionOutput")
class YoloDetectionOutput(Yolov3DetectionOutput):
    """Decoding and non-maximum suppression of the YOLO v2 ports; two maps share their anchors, given in cells."""

    bottom_range = (1, 2)
    one_label = True

    def set_up(self) -> None:
        param = self.param = self.context.message.yolo_detection_output_param
        if not param.HasField("num_classes"):
            self.refuse("has no num_classes")
        self.require_positive(num_box=param.num_box, num_classes=param.num_classes)
        if len(param.biases) < 2 * param.num_box:
            self.refuse(f"has {len(param.biases)} biases; give {2 * param.num_box}, a width and a height for each box")
        self.check_maps()

    def _least_score(self) -> float:
        return float(np.nextafter(np.float32(self.param.confidence_threshold), np.float32(-np.inf)))

    def module_spec(self) -> ModuleSpec:
        param, scales = self.param, len(self.bottoms)
        anchors = tuple((param.biases[2 * number], param.biases[2 * number + 1]) for number in range(param.num_box))
        arguments = {
            "classes": param.num_classes,
            "threshold": param.confidence_threshold,
            "nms_threshold": param.nms_threshold,
            "anchors": (anchors,) * scales,
            "strides": (1,) * scales,
            "one_label": True,
        }
        return ModuleSpec("Yolov3DetectionOutput", arguments)
