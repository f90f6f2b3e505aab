"""From what was seen of a value to the range its quantised form covers.

All ranges are symmetric, [-r, r]: TensorRT takes no other.

minmax      r is the largest magnitude seen. Nothing is clipped; one outlier makes every step coarse.
percentile  r is the least bin edge below which p percent of all numbers lie, zeros counted.
entropy     r minimises the Kullback-Leibler divergence between the histogram clipped at r and its form in 128 levels:
            for each candidate r at a bin edge, what lies beyond r is added to the last bin (P), and each of the 128
            equal groups of bins shares its count equally among its bins that are not empty (Q). Exact zeros are left
            out, as every range holds them exactly; after a ReLU they would outweigh all else.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...errors import PrecisionError
from .observing import Histogram

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[str, ...] = get_args(Method)
LEVELS = 128
#: what an empty bin of Q counts as where P is not empty
_EMPTY = 1e-4


def choose_range(histogram: Histogram, method: Method, percentile: float = 99.99) -> float:
    """The largest magnitude to cover.

    Args:
        histogram: of the value.
        method: see the module docstring; minmax needs only `largest`.
        percentile: above 0, up to 100.

    Raises:
        PrecisionError: the method or the percentile is none.
    """
    if method == "minmax":
        return histogram.largest
    if method == "percentile":
        if not 0 < percentile <= 100:
            raise PrecisionError(f"a percentile is above 0 and at most 100, not {percentile:g}")
        return find_percentile(histogram, percentile)
    if method == "entropy":
        return find_least_divergence(histogram)
    raise PrecisionError(f'there is no calibration method "{method}"; choose one of {", ".join(METHODS)}')


def find_percentile(histogram: Histogram, percentile: float) -> float:
    """The least bin edge that so many percent of the numbers, zeros counted, do not exceed."""
    below = histogram.zeros + np.cumsum(histogram.counts)
    total = int(below[-1])
    place = int(np.searchsorted(below, total * (percentile / 100)))
    place = min(place, len(histogram.counts) - 1)
    return histogram.largest * (place + 1) / len(histogram.counts)


def find_least_divergence(histogram: Histogram) -> float:
    """The bin edge whose clipped and coarsened histogram is nearest to the full one."""
    counts = histogram.counts.astype(np.float64)
    total = len(counts)
    if not counts.any():
        return histogram.largest
    beyond = counts.sum() - np.cumsum(counts)
    divergences = [measure_divergence(counts[:kept], beyond[kept - 1]) for kept in range(LEVELS, total + 1)]
    return histogram.largest * (LEVELS + int(np.argmin(divergences))) / total


def measure_divergence(kept: NDArray[np.float64], clipped: Any) -> float:
    """KL(P || Q) in nats of a histogram whose bins beyond were clipped into the last, against its 128-level form."""
    size = len(kept)
    p = kept.copy()
    p[-1] += clipped
    group = np.arange(size) * LEVELS // size  # the level of each bin
    full = kept > 0
    sums = np.bincount(group, kept, LEVELS)
    shares = np.bincount(group, full, LEVELS)
    q = np.where(full, (sums / np.maximum(shares, 1))[group], 0.0)
    held = p > 0
    if not q.any():
        return float("inf")
    p, q = p[held] / p.sum(), np.where(q > 0, q / q.sum(), _EMPTY / p.sum())[held]
    return float(np.sum(p * np.log(p / q)))
