"""Evaluation: confusion counts, IoU, boundary bands, datasets, and the search for the CRF's parameters."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bootstrap import bootstrap_gain, bootstrap_mean_iou, take_parts
    from .confusion import VOID, ConfusionMatrix, Counts, class_ious, count_confusion, mean_iou

__all__ = [
    "VOID",
    "ConfusionMatrix",
    "Counts",
    "bootstrap_gain",
    "bootstrap_mean_iou",
    "class_ious",
    "count_confusion",
    "mean_iou",
    "take_parts",
]
_OF_BOOTSTRAP = ("bootstrap_gain", "bootstrap_mean_iou", "take_parts")


def __getattr__(name: str) -> object:
    """Import a public name at its first use: `--help` reads names of datasets from here and needs no NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(".bootstrap" if name in _OF_BOOTSTRAP else ".confusion", __name__)
    value: object = getattr(module, name)
    globals()[name] = value
    return value
