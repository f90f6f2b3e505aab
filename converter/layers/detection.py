"""DetectionOutput (SSD) and Yolov3DetectionOutput: raw outputs to rows of (image, label, score, x1, y1, x2, y2).

Their suppression has no exact static ONNX form, so they run in torch; for ONNX, cut the net before them.
SSD: boxes decoded by code_type; for each class the scores above confidence_threshold, at most top_k, suppressed by
overlap; at most keep_top_k per image, in order of label and score. `save_output_param` only writes files; ignored.
YOLOv3 (the port in eric612's MobileNet-YOLO): see the torch module.
"""

from __future__ import annotations

from typing import Any

from ..graph.net import Shape
from .base import ModuleSpec, Operator, count, register_layer

_CODES = {1: "corner", 2: "center_size", 3: "corner_size"}


@register_layer("DetectionOutput")
class DetectionOutput(Operator):
    """SSD's decoding and non-maximum suppression."""

    bottom_range = (3, 3)
    allows_in_place = False

    def set_up(self) -> None:
        param = self.param = self.context.message.detection_output_param
        if not param.num_classes:
            self.refuse("has no num_classes")
        nms = param.nms_param
        if nms.nms_threshold < 0 or not 0 < nms.eta <= 1:
            self.refuse(f"needs nms_threshold >= 0 and 0 < eta <= 1, has {nms.nms_threshold:g} and {nms.eta:g}")
        locations, scores, priors = (blob.shape for blob in self.bottoms)
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
        return ((1, 1, 1, 7),)

    def module_spec(self) -> ModuleSpec:
        param, nms = self.param, self.param.nms_param
        arguments: dict[str, Any] = {
            "classes": param.num_classes,
            "code": _CODES[param.code_type],
            "threshold": param.confidence_threshold if param.HasField("confidence_threshold") else None,
            "nms_threshold": nms.nms_threshold,
            "top_k": nms.top_k if nms.HasField("top_k") else -1,
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


@register_layer("Yolov3DetectionOutput")
class Yolov3DetectionOutput(Operator):
    """Decoding and non-maximum suppression of the YOLOv3 ports."""

    bottom_range = (1, None)
    allows_in_place = False

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
        for blob in self.bottoms:
            shape = blob.shape
            if len(shape) != 4 or shape[2] != shape[3] or shape[1] != boxes * (5 + param.num_classes):
                channels = f"{boxes} * (5 + {param.num_classes})"
                self.refuse(f'needs square maps of {channels} channels; "{blob.name}" is {shape}')

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((1, 1, 1, 7),)

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
