"""How sure a mean IoU is: the same pictures drawn again and again with replacement.

The interval tells what another choice of pictures of the same kind would have changed. It does not know of errors in
the labels, nor of pictures of another kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .confusion import Counts

Parts = npt.NDArray[np.int64]

DRAWS = 2000
_ALPHA = 0.05
_BATCH = 256  # draws at once, which bounds the memory


def bootstrap_mean_iou(counts: Sequence[Counts], *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """The central 95 % of the mean IoU over pictures drawn with replacement.

    Args:
        counts: one (classes, classes) confusion a picture.
        seed: of the draws.
        draws: how many.

    Returns:
        (low, high), as fractions of 1.

    Raises:
        InputError: if there is no picture.
    """
    return bootstrap_parts(_stack(counts), seed=seed, draws=draws)


def bootstrap_gain(
    before: Sequence[Counts], after: Sequence[Counts], seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """The central 95 % of the gain in mean IoU; each draw takes the same pictures of both.

    Args:
        before: one (classes, classes) confusion a picture.
        after: the same pictures, in the same order.
        seed: of the draws.
        draws: how many.

    Returns:
        (low, high), as fractions of 1.

    Raises:
        InputError: if there is no picture, or not one `after` for each `before`.
    """
    if len(before) != len(after):
        raise InputError(f"{len(before)} pictures before and {len(after)} after are not the same pictures")
    return bootstrap_parts_gain(_stack(before), _stack(after), seed=seed, draws=draws)


def take_parts(counts: Counts) -> Parts:
    """What a mean IoU needs of one picture's (classes, classes) confusion: hits and unions, (2, classes) int64."""
    hits = np.diagonal(counts)
    return np.stack([hits, counts.sum(1) + counts.sum(0) - hits])


def bootstrap_parts(parts: Parts, *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """`bootstrap_mean_iou` of (pictures, 2, classes) int64, what `take_parts` leaves of each picture."""
    return _central(_draw_means(parts, seed, draws))


def bootstrap_parts_gain(before: Parts, after: Parts, *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """`bootstrap_gain` of (pictures, 2, classes) int64, what `take_parts` leaves of each picture."""
    return _central(_draw_means(after, seed, draws) - _draw_means(before, seed, draws))


def _stack(counts: Sequence[Counts]) -> Parts:
    if not len(counts):
        raise InputError("no picture to draw from: evaluate at least one")
    return np.stack([take_parts(picture) for picture in counts])


def _draw_means(parts: Parts, seed: int, draws: int) -> npt.NDArray[np.float64]:
    pictures, _, classes = parts.shape
    rng = np.random.default_rng(seed)
    flat = parts.reshape(pictures, -1).astype(np.float64)  # sums below 2^53 stay exact
    means = []
    for first in range(0, draws, _BATCH):
        chosen = rng.integers(pictures, size=(min(_BATCH, draws - first), pictures))
        times = np.stack([np.bincount(row, minlength=pictures) for row in chosen]).astype(np.float64)
        hits, unions = (times @ flat).reshape(-1, 2, classes).transpose(1, 0, 2)  # (draws, classes) each
        occurs = unions > 0
        ious = np.divide(hits, unions, out=np.zeros_like(hits), where=occurs)
        known = occurs.sum(1)
        means.append(np.divide(ious.sum(1), known, out=np.full(len(hits), np.nan), where=known > 0))
    return np.concatenate(means)


def _central(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan")
    return float(np.quantile(known, _ALPHA / 2)), float(np.quantile(known, 1 - _ALPHA / 2))
