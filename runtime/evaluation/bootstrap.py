"""How sure a mean IoU is: the same pictures drawn again and again with replacement.

The interval tells what another choice of pictures of the same kind would have changed. It does not know of errors in
the labels, nor of pictures of another kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .confusion import Counts

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
    means = _draw_means(_parts(counts), seed, draws)
    return _central(means)


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
    return _central(_draw_means(_parts(after), seed, draws) - _draw_means(_parts(before), seed, draws))


def _parts(counts: Sequence[Counts]) -> npt.NDArray[np.float64]:
    """Hits and unions by picture: (pictures, 2, classes); sums below 2^53 are exact in float64."""
    if not len(counts):
        raise InputError("no picture to draw from: evaluate at least one")
    pictures = np.stack(counts)
    hits = np.diagonal(pictures, axis1=-2, axis2=-1)  # (pictures, classes)
    return np.stack([hits, pictures.sum(-1) + pictures.sum(-2) - hits], axis=1).astype(np.float64)


def _draw_means(parts: npt.NDArray[np.float64], seed: int, draws: int) -> npt.NDArray[np.float64]:
    pictures, _, classes = parts.shape
    rng = np.random.default_rng(seed)
    flat = parts.reshape(pictures, -1)
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
