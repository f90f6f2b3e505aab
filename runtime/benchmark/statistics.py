"""Quantiles with bootstrap intervals, and ratios of medians: what may be said from raw samples, and what may not.

Rules:

1. A quantile is NumPy's (linear between order statistics). Where n (1 - q) < 1 no sample lies beyond it, and its name
   would only rename the maximum: it has no value.
2. Its interval is the percentile bootstrap's, of 95 %. Successive latencies resemble each other (clocks, caches, other
   programs), so whole blocks are drawn, not single samples: circular blocks of Carlstein's length
   (sqrt(6) r / (1 - r^2))^(2/3) n^(1/3), r the correlation of neighbours' ranks, or 1 where r is not significant.
3. With m = n / block independent pieces, even the largest sample is no upper end if q^m > 2.5 %: then there is no
   interval. That asks for 6 samples for the median, 36 for p90, 368 for p99, 3688 for p99.9.
4. The random numbers are seeded: the same samples give the same interval, on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .sections import Quantile, Series

QUANTILES = (0.5, 0.9, 0.99, 0.999)
CONFIDENCE = 0.95
REPLICATES = 1000
_MIN_REPLICATES = 200
_MAX_DRAWN = 20_000_000  # samples drawn in all for one interval
_CHUNK_DRAWN = 2_000_000  # and at once: 16 MB of indices

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """The ratio of two medians with its interval."""

    value: float
    low: float
    high: float


def describe_series(at_s: Sequence[float], values_ms: Sequence[float]) -> Series:
    """A series with its quantiles; raises ValueError where it is empty."""
    values = np.asarray(values_ms, np.float64)
    if values.size == 0:
        raise ValueError("a series needs at least one sample")
    return Series(
        at_s=tuple(round(float(moment), 6) for moment in at_s),
        values_ms=tuple(round(float(value), 6) for value in values),
        mean_ms=round(float(values.mean()), 6),
        min_ms=round(float(values.min()), 6),
        max_ms=round(float(values.max()), 6),
        quantiles=estimate_quantiles(values),
        confidence=CONFIDENCE,
    )


def estimate_quantiles(values: FloatArray, quantiles: Sequence[float] = QUANTILES) -> tuple[Quantile, ...]:
    """Quantiles of samples (n,) with bootstrap intervals, by the rules above."""
    count = values.size
    block = choose_block(values)
    pieces = count / block
    with_interval = [q for q in quantiles if pieces >= count_needed(q)]
    drawn = _draw_quantiles(values, block, with_interval)  # (replicates, quantiles)
    tail = (1 - CONFIDENCE) / 2
    found = []
    for q in quantiles:
        value = round(float(np.quantile(values, q)), 6) if count * (1 - q) >= 1 else None
        low = high = reason = None
        if q in with_interval:
            ends = np.quantile(drawn[:, with_interval.index(q)], (tail, 1 - tail))
            low, high = round(float(ends[0]), 6), round(float(ends[1]), 6)
        else:
            reason = _explain_missing(q, count, block, has_value=value is not None)
        found.append(Quantile(q=q, value_ms=value, low_ms=low, high_ms=high, reason=reason))
    return tuple(found)


def count_needed(q: float) -> int:
    """How many independent samples an interval of quantile `q` needs: the least n with q^n <= 2.5 %."""
    return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log(q))


def choose_block(values: FloatArray) -> int:
    """The length of the blocks that keep the likeness of neighbours, at most a sixth of the samples."""
    count = values.size
    if count < 12:
        return 1
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)
    centred = ranks - ranks.mean()
    likeness = float((centred[:-1] * centred[1:]).sum() / (centred**2).sum())
    if likeness <= 2 / math.sqrt(count):
        return 1
    likeness = min(likeness, 0.99)
    length: float = (math.sqrt(6) * likeness / (1 - likeness**2)) ** (2 / 3) * count ** (1 / 3)
    return int(max(1, min(math.ceil(length), count // 6)))


def estimate_ratio(baseline: FloatArray, candidate: FloatArray, *, paired: bool, seed: int = 0) -> Ratio:
    """The ratio of medians candidate / baseline with its bootstrap interval.

    Args:
        baseline: samples (n,).
        candidate: samples (m,); m = n where paired.
        paired: whether sample i of both was taken in the same round; the same rounds are then drawn of both, so that
            what slowed a whole round cancels.
        seed: of the random numbers.

    Raises:
        ValueError: if a side is empty, or pairs do not match.
    """
    if not baseline.size or not candidate.size or (paired and baseline.size != candidate.size):
        raise ValueError("a ratio needs samples on both sides, as many of each where they are paired")
    rng = np.random.default_rng(seed)
    drawn: list[FloatArray] = []
    if paired:
        block = max(choose_block(values) for values in (candidate / baseline, baseline, candidate))
        for rounds in _draw_indices(rng, baseline.size, block):
            drawn.append(np.median(candidate[rounds], axis=1) / np.median(baseline[rounds], axis=1))
    else:
        sides = []
        for values in (baseline, candidate):
            batches = _draw_indices(rng, values.size, choose_block(values), fixed=True)
            sides.append(np.concatenate([np.median(values[indices], axis=1) for indices in batches]))
        drawn.append(sides[1] / sides[0])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(drawn), (tail, 1 - tail))
    return Ratio(float(np.median(candidate) / np.median(baseline)), float(low), float(high))


def _draw_quantiles(values: FloatArray, block: int, quantiles: Sequence[float]) -> FloatArray:
    if not quantiles:
        return np.empty((0, 0))
    rng = np.random.default_rng(0)
    batches = _draw_indices(rng, values.size, block)
    return np.concatenate([np.quantile(values[indices], quantiles, axis=1).T for indices in batches])


def _draw_indices(
    rng: np.random.Generator, count: int, block: int, *, fixed: bool = False
) -> Iterator[npt.NDArray[np.intp]]:
    """Yield indices (replicates, count) of bootstrap samples of circular blocks, in batches that fit in memory.

    `fixed` keeps the number of replicates, where two series are drawn apart and must match.
    """
    replicates = REPLICATES if fixed else max(_MIN_REPLICATES, min(REPLICATES, _MAX_DRAWN // count))
    pieces = -(-count // block)
    batch = max(1, _CHUNK_DRAWN // count)
    for first in range(0, replicates, batch):
        starts = rng.integers(0, count, (min(batch, replicates - first), pieces))
        indices = (starts[:, :, None] + np.arange(block)) % count  # (replicates, pieces, block)
        yield indices.reshape(len(starts), -1)[:, :count].astype(np.intp)


def _explain_missing(q: float, count: int, block: int, *, has_value: bool) -> str:
    needed = count_needed(q) * block
    alike = f", as {block} neighbours are worth one" if block > 1 else ""
    what = "an interval" if has_value else "a value and an interval"
    return f"p{q * 100:g} needs {needed} samples for {what}{alike}; there are {count}"
