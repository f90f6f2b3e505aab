"""Labels against the truth: confusion, IoU, boundaries, data sets, and the search for the CRF's parameters."""

from __future__ import annotations

from .bootstrap import bootstrap_gain, bootstrap_mean_iou
from .confusion import (
    VOID,
    ConfusionMatrix,
    Counts,
    class_accuracies,
    class_ious,
    count_confusion,
    frequency_weighted_iou,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
)

__all__ = [
    "VOID",
    "ConfusionMatrix",
    "Counts",
    "bootstrap_gain",
    "bootstrap_mean_iou",
    "class_accuracies",
    "class_ious",
    "count_confusion",
    "frequency_weighted_iou",
    "mean_accuracy",
    "mean_iou",
    "pixel_accuracy",
]
