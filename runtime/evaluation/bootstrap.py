"""Confidence intervals of mean IoU: images drawn again and again with replacement.

The interval covers the choice of images of the same kind. It does not cover errors in the labels or images of another
kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .confusion import Counts, divide

Parts = npt.NDArray[np.int64]
"""Intersections and unions by class, all that a mean IoU needs of an image: (2, classes), or (images, 2, classes)."""

DRAWS = 2000
_ALPHA = 0.05
_BATCH = 256  # draws at once, which bounds the memory


def take_parts(counts: Counts) -> Parts:
    """Intersections and unions, (2, classes) int64, of the (classes, classes) counts of an image."""
    hits = np.diagonal(counts)
    return np.stack([hits, counts.sum(1) + counts.sum(0) - hits])


def mean_iou_of_parts(parts: Parts) -> float:
    """Mean IoU of (images, 2, classes) parts, pixels pooled; nan without pixels."""
    return float(_average_ious(parts.sum(0)[None].astype(np.float64))[0])


def bootstrap_mean_iou(parts: Sequence[Parts] | Parts, *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """The central 95 % of the mean IoU over images drawn with replacement.

    Args:
        parts: (2, classes) of each image, from `take_parts`.
        seed: of the draws.
        draws: number of draws.

    Returns:
        (low, high), as fractions of 1.

    Raises:
        InputError: if there is no image.
    """
    return _find_central(_draw_means(parts, seed, draws))


def bootstrap_gain(
    before: Sequence[Parts] | Parts, after: Sequence[Parts] | Parts, *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """The same for the gain in mean IoU of one result over another; each draw takes the same images of both.

    Raises:
        InputError: if there is no image, or `before` and `after` differ in number.
    """
    if len(before) != len(after):
        raise InputError(f"{len(before)} images before and {len(after)} after are not the same images")
    return _find_central(_draw_means(after, seed, draws) - _draw_means(before, seed, draws))


def _draw_means(parts: Sequence[Parts] | Parts, seed: int, draws: int) -> npt.NDArray[np.float64]:
    if not len(parts):
        raise InputError("no image to draw from: evaluate at least one")
    images = len(parts)
    rng = np.random.default_rng(seed)
    flat = np.stack(list(parts)).reshape(images, -1).astype(np.float64)  # sums below 2^53 stay exact
    means = []
    for first in range(0, draws, _BATCH):
        chosen = rng.integers(images, size=(min(_BATCH, draws - first), images))
        times = np.stack([np.bincount(row, minlength=images) for row in chosen]).astype(np.float64)
        means.append(_average_ious((times @ flat).reshape(len(times), 2, -1)))
    return np.concatenate(means)


def _average_ious(parts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean IoU of each of (n, 2, classes) parts; nan without pixels."""
    hits, unions = parts[:, 0], parts[:, 1]  # (n, classes)
    ious = np.nan_to_num(divide(hits, unions))
    return divide(ious.sum(1), (unions > 0).sum(1))


def _find_central(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan")
    return float(np.quantile(known, _ALPHA / 2)), float(np.quantile(known, 1 - _ALPHA / 2))
