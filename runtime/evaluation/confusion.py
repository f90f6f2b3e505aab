"""How well label maps agree with the truth: confusion counts and what is computed from them.

Let n[t, l] be the number of pixels of true class t that were labelled l, pooled over all images; pixels whose truth is
the void (255) count nowhere. Then, as in Long et al. (2015) and in PASCAL VOC's development kit:

====================  ==============================================================================================
pixel accuracy        sum_c n[c, c] / sum n
mean accuracy         mean over classes of n[c, c] / sum_l n[c, l]
IoU of a class        n[c, c] / (sum_l n[c, l] + sum_t n[t, c] - n[c, c])
mean IoU              mean of that over classes
frequency-weighted    sum_c (sum_l n[c, l] / sum n) IoU[c]
====================  ==============================================================================================

Classes that are absent: one that neither truth nor labels hold has no IoU (nan) and no part in a mean; one that is
labelled somewhere but true nowhere has the IoU 0 and counts. The background is a class like any other. On a whole
published split every class occurs, and the mean is the development kit's; on a few images it is a mean over fewer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError

Counts = npt.NDArray[np.int64]
LabelMap = npt.NDArray[np.uint8]

VOID = 255
"""The label of pixels that are not judged, in every data set once it is loaded."""

MAX_CLASSES = 256


def count_confusion(truth: npt.NDArray[Any], labels: npt.NDArray[Any], classes: int, *, void: int = VOID) -> Counts:
    """Count pixels by class: (classes, classes) int64, row = truth, column = label.

    Args:
        truth: uint8 of any shape, below `classes` or `void`.
        labels: uint8 of the same shape, below `classes` wherever the truth is not void.
        classes: how many there are, at most 256.
        void: the true label of pixels that are not counted.

    Raises:
        InputError: if the two differ in shape or are not uint8, or a label is beyond the classes.
    """
    if truth.shape != labels.shape:
        raise InputError(f"the labels are {labels.shape}, the truth is {truth.shape}: they must cover the same pixels")
    if truth.dtype != np.uint8 or labels.dtype != np.uint8:
        raise InputError(f"labels and truth must be uint8, got {labels.dtype} and {truth.dtype}")
    if not 1 <= classes <= MAX_CLASSES:
        raise InputError(f"labels of a byte know 1 to {MAX_CLASSES} classes, not {classes}")
    judged = truth != void
    true, found = truth[judged], labels[judged]  # (pixels,)
    for name, values in (("the truth", true), ("the labels", found)):
        if values.size and (highest := int(values.max())) >= classes:
            raise InputError(
                f"{name} hold {highest}, beyond the {classes} classes 0 to {classes - 1}"
                + (f" and void, {void}" if name == "the truth" else "")
                + ": compare label maps of the same classes"
            )
    pairs = true.astype(np.intp) * classes + found
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64, copy=False)


def class_ious(counts: Counts) -> npt.NDArray[np.float64]:
    """Intersection over union by class, (..., classes) float64 of (..., classes, classes); nan where there is none."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return _divide(hits, counts.sum(-1) + counts.sum(-2) - hits)


def class_accuracies(counts: Counts) -> npt.NDArray[np.float64]:
    """Share of each true class that was found, (..., classes) float64; nan for a class that is true nowhere."""
    return _divide(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1))


def mean_iou(counts: Counts) -> float:
    """Mean over the classes that occur, pixels pooled over all pictures; nan if no pixel was judged.

    Args:
        counts: (classes, classes), or (pictures, classes, classes) to be summed.
    """
    return _mean(class_ious(_pool(counts)))


def mean_accuracy(counts: Counts) -> float:
    """Mean of the class accuracies, for counts as `mean_iou` takes them."""
    return _mean(class_accuracies(_pool(counts)))


def pixel_accuracy(counts: Counts) -> float:
    """Share of the judged pixels that carry their true label, for counts as `mean_iou` takes them."""
    pooled = _pool(counts)
    return float(_divide(np.trace(pooled), pooled.sum()))


def frequency_weighted_iou(counts: Counts) -> float:
    """IoU weighted with the share of each class in the truth, for counts as `mean_iou` takes them."""
    pooled = _pool(counts)
    shares = _divide(pooled.sum(-1), pooled.sum())
    # A class that nobody has adds nothing, though its IoU is nan.
    return float(np.sum(shares * np.nan_to_num(class_ious(pooled)))) if pooled.any() else float("nan")


class ConfusionMatrix:
    """Counts that grow image by image.

    Attributes:
        counts: (classes, classes) int64, row = truth, column = label.
        images: how many label maps were added.
        ignored: how many pixels were void.
    """

    def __init__(self, classes: int, *, void: int = VOID) -> None:
        """Start from zero; raises InputError for a number of classes that bytes cannot tell apart."""
        if not 1 <= classes <= MAX_CLASSES:
            raise InputError(f"labels of a byte know 1 to {MAX_CLASSES} classes, not {classes}")
        self.void = void
        self.counts: Counts = np.zeros((classes, classes), np.int64)
        self.images = 0
        self.ignored = 0

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.counts)

    def add(self, labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Counts:
        """Add one image and return its own counts; arguments and errors are `count_confusion`'s."""
        counts = count_confusion(truth, labels, self.classes, void=self.void)
        self.add_counts(counts)
        self.ignored += truth.size - int(counts.sum())
        return counts

    def add_counts(self, counts: Counts) -> None:
        """Add an image whose (classes, classes) counts were taken elsewhere."""
        if counts.shape != self.counts.shape:
            raise InputError(f"counts of {counts.shape} do not fit {self.classes} classes")
        self.counts += counts
        self.images += 1

    @property
    def class_ious(self) -> npt.NDArray[np.float64]:
        """(classes,) float64; nan for a class that nobody has."""
        return class_ious(self.counts)

    @property
    def class_accuracies(self) -> npt.NDArray[np.float64]:
        """(classes,) float64; nan for a class that is true nowhere."""
        return class_accuracies(self.counts)

    @property
    def mean_iou(self) -> float:
        """Mean IoU, a fraction of 1."""
        return mean_iou(self.counts)

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy, a fraction of 1."""
        return mean_accuracy(self.counts)

    @property
    def pixel_accuracy(self) -> float:
        """Pixel accuracy, a fraction of 1."""
        return pixel_accuracy(self.counts)

    @property
    def frequency_weighted_iou(self) -> float:
        """Frequency-weighted IoU, a fraction of 1."""
        return frequency_weighted_iou(self.counts)


def _pool(counts: Counts) -> Counts:
    pooled: Counts = counts.reshape(-1, *counts.shape[-2:]).sum(0)
    return pooled


def _divide(part: Any, whole: Any) -> npt.NDArray[np.float64]:
    quotient: npt.NDArray[np.float64] = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=quotient, where=np.asarray(whole) > 0)
    return quotient


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
