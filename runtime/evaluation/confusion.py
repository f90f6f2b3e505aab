"""Confusion counts of label maps, and the figures computed from them.

With n[t, l] the number of pixels of true class t labeled l, pooled over all images, void pixels excluded, as in
Long et al. (2015) and in PASCAL VOC's development kit:

====================  ==============================================================================================
pixel accuracy        sum_c n[c, c] / sum n
mean accuracy         mean over classes of n[c, c] / sum_l n[c, l]
IoU of a class        n[c, c] / (sum_l n[c, l] + sum_t n[t, c] - n[c, c])
mean IoU              mean of that over classes
frequency-weighted    sum_c (sum_l n[c, l] / sum n) IoU[c]
====================  ==============================================================================================

A class that occurs in neither truth nor labels has no IoU (nan) and is left out of the mean; a class that is labeled
but never true has IoU 0. The background is a class like any other. On a whole published split all classes occur, and
the mean is that of the development kit; on a few images it is a mean over fewer classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError

Counts = npt.NDArray[np.int64]
LabelMap = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

VOID = 255
"""The label of pixels that are not evaluated, in every dataset once it is loaded."""

MAX_CLASSES = 256


def count_confusion(truth: npt.NDArray[Any], labels: npt.NDArray[Any], classes: int, *, void: int = VOID) -> Counts:
    """Count pixels by class: (classes, classes) int64, row = truth, column = label.

    Args:
        truth: uint8 of any shape, below `classes` or `void`.
        labels: uint8 of the same shape, below `classes` wherever the truth is not void.
        classes: number of classes, at most 256.
        void: the true label of pixels that are not counted.

    Raises:
        InputError: if the two differ in shape or are not uint8, or a label is not a class.
    """
    if truth.shape != labels.shape:
        raise InputError(f"the labels are {labels.shape}, the truth is {truth.shape}: they must cover the same pixels")
    if truth.dtype != np.uint8 or labels.dtype != np.uint8:
        raise InputError(f"labels and truth must be uint8, got {labels.dtype} and {truth.dtype}")
    _check_number(classes)
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


def class_ious(counts: Counts) -> Floats:
    """Intersection over union by class, (classes,) of (classes, classes); nan for a class that does not occur."""
    hits = np.diagonal(counts)
    return divide(hits, counts.sum(1) + counts.sum(0) - hits)


def mean_iou(counts: Counts) -> float:
    """Mean IoU over the classes that occur, pixels pooled over all images; nan without pixels.

    Args:
        counts: (classes, classes), or (images, classes, classes) to be summed.
    """
    return _mean(class_ious(counts.reshape(-1, *counts.shape[-2:]).sum(0)))


class ConfusionMatrix:
    """Counts that grow image by image, and all figures of the table above as fractions of 1.

    Attributes:
        counts: (classes, classes) int64, row = truth, column = label.
        images: number of added label maps.
        ignored: number of void pixels.
    """

    def __init__(self, classes: int, *, void: int = VOID) -> None:
        """Start from zero.

        Raises:
            InputError: if the number of classes is not 1 to 256.
        """
        _check_number(classes)
        self.void = void
        self.counts: Counts = np.zeros((classes, classes), np.int64)
        self.images = 0
        self.ignored = 0

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.counts)

    def add(self, labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Counts:
        """Add one image and return its own counts; see `count_confusion` for arguments and errors."""
        counts = count_confusion(truth, labels, self.classes, void=self.void)
        self.add_counts(counts, ignored=truth.size - int(counts.sum()))
        return counts

    def add_counts(self, counts: Counts, *, ignored: int = 0, images: int = 1) -> None:
        """Add (classes, classes) counts of an image, or of several, and their number of void pixels."""
        if counts.shape != self.counts.shape:
            raise InputError(f"counts of {counts.shape} do not fit {self.classes} classes")
        self.counts += counts
        self.images += images
        self.ignored += ignored

    @property
    def class_ious(self) -> Floats:
        """(classes,) float64; nan for a class that does not occur."""
        return class_ious(self.counts)

    @property
    def class_accuracies(self) -> Floats:
        """(classes,) float64: share of each true class that was found; nan for a class that is never true."""
        return divide(np.diagonal(self.counts), self.counts.sum(1))

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur."""
        return mean_iou(self.counts)

    @property
    def mean_accuracy(self) -> float:
        """Mean of the class accuracies."""
        return _mean(self.class_accuracies)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels with their true label."""
        return float(divide(np.trace(self.counts), self.counts.sum()))

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted with the share of each class in the truth; a class that is never true has no weight."""
        return float(np.sum(divide(self.counts.sum(1), self.counts.sum()) * np.nan_to_num(self.class_ious)))


def divide(part: Any, whole: Any) -> Floats:
    """The quotient, float64; nan where `whole` is 0."""
    quotient: Floats = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=quotient, where=np.asarray(whole) > 0)
    return quotient


def _check_number(classes: int) -> None:
    if not 1 <= classes <= MAX_CLASSES:
        raise InputError(f"uint8 labels have 1 to {MAX_CLASSES} classes, not {classes}")


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
