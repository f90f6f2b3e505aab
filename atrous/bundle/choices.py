"""Closed sets of names in the manifest, in a module light enough for `atrous --help`."""

from __future__ import annotations

from typing import Literal, get_args

Head = Literal["scores", "labels", "lowres"]
Precision = Literal["fp16", "bf16", "int8", "fp8"]
ColorOrder = Literal["BGR", "RGB"]

Detection = Literal["standard", "tensorrt", "opencv", "cut"]

Task = Literal["segment", "classify", "regress", "points", "image", "colorize", "map"]
PointOrder = Literal["xy", "xxyy", "xy-pixels", "xxyy-pixels"]

HEADS: tuple[str, ...] = get_args(Head)
DETECTIONS: tuple[str, ...] = get_args(Detection)
OPENCV_FORM: Detection = "opencv"
#: forms with nodes that only one engine has
ENGINE_FORMS: tuple[Detection, ...] = ("tensorrt", OPENCV_FORM)
VARIANTS: tuple[str, ...] = get_args(Precision)
PRECISIONS: tuple[str, ...] = ("fp32", *VARIANTS)
COLOR_ORDERS: tuple[str, ...] = get_args(ColorOrder)
TASKS: tuple[str, ...] = get_args(Task)
POINT_ORDERS: tuple[str, ...] = get_args(PointOrder)
