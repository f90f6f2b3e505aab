"""How well label maps agree with the truth: confusion counts, IoU, and how sure a gain in mIoU is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def count_confusion(truth: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> Counts:
    """Count pixels by class: (classes, classes) int64, row = truth, column = label.

    Args:
        truth: (H, W) uint8, all below ``classes``.
        labels: (H, W) uint8, likewise.
        classes: how many there are.

    Raises:
        ValueError: if the two maps differ in size.
    """
    if truth.shape != labels.shape:
        raise ValueError(f"the labels are {labels.shape}, the truth is {truth.shape}: they must cover the same pixels")
    pairs = truth.astype(np.int64).ravel() * classes + labels.ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_ious(counts: Counts) -> NDArray[np.float64]:
    """Intersection over union by class, (classes,) float64; nan for a class that neither map has."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(-1) + counts.sum(-2) - hits
    ious: NDArray[np.float64] = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
    return ious


def mean_iou(counts: Counts) -> float:
    """Mean over the classes that occur, pixels pooled over all pictures, as PASCAL VOC counts it.

    Args:
        counts: (classes, classes), or (pictures, classes, classes) to be summed.
    """
    pooled = counts.reshape(-1, *counts.shape[-2:]).sum(0)
    return float(np.nanmean(class_ious(pooled)))


def bootstrap_gain(
    before: Sequence[Counts], after: Sequence[Counts], seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """The central 95 % of the gain in mIoU when the same pictures are drawn again and again with replacement.

    Args:
        before: one (classes, classes) confusion a picture.
        after: the same pictures, in the same order.
        seed: of the draws.
        draws: how many.

    Returns:
        (low, high), as fractions of 1.
    """
    rng = np.random.default_rng(seed)
    pairs = np.stack([np.stack(before), np.stack(after)])  # (2, pictures, classes, classes)
    gains = []
    for _ in range(draws):
        low, high = pairs[:, rng.integers(len(before), size=len(before))].sum(1)
        gains.append(mean_iou(high) - mean_iou(low))
    return float(np.quantile(gains, 0.025)), float(np.quantile(gains, 0.975))
