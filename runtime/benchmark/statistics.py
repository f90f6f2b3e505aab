"""Quantiles with bootstrap intervals, and ratios of medians.

1. A quantile is NumPy's (linear between order statistics). Where n (1 - q) < 1 no sample lies beyond it and the
   estimate would just be the maximum, so there is no value.
2. Its interval is the 95 % percentile bootstrap. Successive latencies are correlated (clocks, caches, other programs),
   so circular blocks are drawn instead of single samples. The block length is Carlstein's
   (sqrt(6) r / (1 - r^2))^(2/3) n^(1/3), r the correlation of neighbors' ranks, or 1 where r is not significant.
3. With m = n / block independent pieces, even the largest sample is no upper end if q^m > 2.5 %: no interval then.
   The median needs 6 samples, p90 36, p99 368, p99.9 3688.
4. The generator is seeded: the same samples give the same interval on any machine.

`runtime.evaluation` draws whole images independently; with no blocks to draw, the two bootstraps share no code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .results import Quantile, Series

QUANTILES = (0.5, 0.9, 0.99, 0.999)
CONFIDENCE = 0.95
REPLICATES = 1000
_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
_MIN_REPLICATES = 200
_MAX_DRAWN = 20_000_000  # samples drawn in total for one interval
_CHUNK_DRAWN = 2_000_000  # and at once: 16 MB of indices

FloatArray = npt.NDArray[np.float64]


@dataclass
class Samples:
    """Durations while they are measured: when each began, in seconds of the run, and how long it took."""

    at_s: list[float] = field(default_factory=list)
    values_ms: list[float] = field(default_factory=list)

    def add(self, at_s: float, value_ms: float) -> None:
        """Add one sample."""
        self.at_s.append(at_s)
        self.values_ms.append(value_ms)

    def describe(self) -> Series:
        """The series with its quantiles."""
        return describe_series(self.at_s, self.values_ms)


class Ratio(NamedTuple):
    """The ratio of two medians with its interval."""

    value: float
    low: float
    high: float


def describe_series(at_s: Sequence[float], values_ms: Sequence[float]) -> Series:
    """A series with its quantiles; raises ValueError if it is empty."""
    values = np.asarray(values_ms, np.float64)
    if values.size == 0:
        raise ValueError("a series needs at least one sample")
    return Series(
        at_s=tuple(np.round(at_s, 6).tolist()),
        values_ms=tuple(np.round(values, 6).tolist()),
        mean_ms=float(values.mean()),
        min_ms=float(values.min()),
        max_ms=float(values.max()),
        quantiles=estimate_quantiles(values),
        confidence=CONFIDENCE,
    )


def estimate_quantiles(values: FloatArray, quantiles: Sequence[float] = QUANTILES) -> tuple[Quantile, ...]:
    """Quantiles of samples (n,) with bootstrap intervals, by the rules above."""
    block = choose_block(values)
    estimated = [q for q in quantiles if values.size / block >= count_needed(q)]
    ends: dict[float, FloatArray] = {}
    if estimated:
        batches = _draw_indices(np.random.default_rng(0), values.size, block)
        drawn = np.concatenate([np.quantile(values[indices], estimated, axis=1).T for indices in batches])
        ends = dict(zip(estimated, np.quantile(drawn, _TAILS, axis=0).T, strict=True))
    found = []
    for q in quantiles:
        value = float(np.quantile(values, q)) if values.size * (1 - q) >= 1 else None
        low, high = map(float, ends[q]) if q in ends else (None, None)
        reason = None if q in ends else _explain_missing(q, values.size, block, has_value=value is not None)
        found.append(Quantile(q=q, value_ms=value, low_ms=low, high_ms=high, reason=reason))
    return tuple(found)


def count_needed(q: float) -> int:
    """Number of independent samples that an interval of quantile `q` needs: the least n with q^n <= 2.5 %."""
    return math.ceil(math.log(_TAILS[0]) / math.log(q))


def choose_block(values: FloatArray) -> int:
    """The block length that preserves the correlation of neighbors, at most a sixth of the samples."""
    count = values.size
    if count < 12:
        return 1
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)
    centered = ranks - ranks.mean()
    correlation = float((centered[:-1] * centered[1:]).sum() / (centered**2).sum())
    if correlation <= 2 / math.sqrt(count):
        return 1
    correlation = min(correlation, 0.99)
    length: float = (math.sqrt(6) * correlation / (1 - correlation**2)) ** (2 / 3) * count ** (1 / 3)
    return int(max(1, min(math.ceil(length), count // 6)))


def estimate_ratio(baseline: FloatArray, candidate: FloatArray, *, paired: bool) -> Ratio:
    """The ratio of medians candidate / baseline with its bootstrap interval.

    Samples (n,) and (m,); with `paired`, sample i of both was taken in the same round, and the same rounds are drawn
    from both, so that a slowdown of a whole round cancels. Raises ValueError if a side is empty, or pairs do not match.
    """
    if not baseline.size or not candidate.size or (paired and baseline.size != candidate.size):
        raise ValueError("a ratio needs samples on both sides, and as many on each where they are paired")
    rng = np.random.default_rng(0)
    if paired:
        block = max(choose_block(values) for values in (candidate / baseline, baseline, candidate))
        batches = _draw_indices(rng, baseline.size, block)
        drawn = [np.median(candidate[rounds], axis=1) / np.median(baseline[rounds], axis=1) for rounds in batches]
    else:
        medians = []
        for values in (baseline, candidate):
            batches = _draw_indices(rng, values.size, choose_block(values), replicates=REPLICATES)
            medians.append(np.concatenate([np.median(values[indices], axis=1) for indices in batches]))
        drawn = [medians[1] / medians[0]]
    low, high = np.quantile(np.concatenate(drawn), _TAILS)
    return Ratio(float(np.median(candidate) / np.median(baseline)), float(low), float(high))


def _draw_indices(
    rng: np.random.Generator, count: int, block: int, *, replicates: int | None = None
) -> Iterator[npt.NDArray[np.intp]]:
    """Yield indices (replicates, count) of bootstrap samples of circular blocks, in batches that fit in memory."""
    replicates = replicates or max(_MIN_REPLICATES, min(REPLICATES, _MAX_DRAWN // count))
    batch = max(1, _CHUNK_DRAWN // count)
    for first in range(0, replicates, batch):
        starts = rng.integers(0, count, (min(batch, replicates - first), -(-count // block)))
        indices = (starts[:, :, None] + np.arange(block)) % count  # (replicates, pieces, block)
        yield indices.reshape(len(starts), -1)[:, :count].astype(np.intp)


def _explain_missing(q: float, count: int, block: int, *, has_value: bool) -> str:
    correlated = f", because {block} correlated neighbors count as one" if block > 1 else ""
    missing = "an interval" if has_value else "a value and an interval"
    return f"p{q * 100:g} needs {count_needed(q) * block} samples for {missing}{correlated}; there are {count}"
