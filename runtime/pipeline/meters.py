"""Measurements of a run in constant memory: counts integrated over time, and distributions of call times."""

from __future__ import annotations

import math
from collections import Counter

_STEP = math.log(1.02)  # buckets of 2 %: a quantile is off by at most 1 %


class Level:
    """A count that changes over time: its integral, its largest value, and the time it was at least `threshold`."""

    def __init__(self, *, threshold: int = 1):
        self.value = 0
        self.highest = 0
        self._threshold = threshold
        self._since_s = 0.0
        self._integral_s = 0.0
        self._above_s = 0.0

    def start(self, now_s: float) -> None:
        """Start the clock."""
        self._since_s = now_s

    def set(self, value: int, now_s: float) -> None:
        """Set the count."""
        elapsed_s = now_s - self._since_s
        self._integral_s += self.value * elapsed_s
        if self.value >= self._threshold:
            self._above_s += elapsed_s
        self.value, self._since_s = value, now_s
        self.highest = max(self.highest, value)

    def add(self, change: int, now_s: float) -> None:
        """Change the count by a difference."""
        self.set(self.value + change, now_s)

    def integral_s(self, now_s: float) -> float:
        """The count integrated over time, e.g. worker-seconds."""
        return self._integral_s + self.value * (now_s - self._since_s)

    def above_s(self, now_s: float) -> float:
        """Seconds during which the count was at least the threshold."""
        return self._above_s + (now_s - self._since_s if self.value >= self._threshold else 0.0)


class Durations:
    """A distribution of durations, in buckets of 2 %."""

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, duration_s: float) -> None:
        """Count one duration."""
        self.count += 1
        self.total_s += duration_s
        self._buckets[math.floor(math.log(max(duration_s, 1e-9)) / _STEP)] += 1

    @property
    def mean_s(self) -> float:
        """The mean; 0 without durations."""
        return self.total_s / self.count if self.count else 0.0

    def quantile_s(self, share: float) -> float:
        """The smallest duration that at least `share` of all do not exceed, to 1 %; 0 without durations."""
        wanted, seen = share * self.count, 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return math.exp((bucket + 0.5) * _STEP)
        return 0.0


class StageMeter:
    """The threads of one stage by state, its queue depth, and the duration of its calls per item."""

    def __init__(self) -> None:
        self.workers = Level()
        self.busy = Level()
        self.starved = Level()  # waiting for input
        self.waiting = Level()  # waiting for cores
        self.blocked = Level()  # waiting for room in the next queue
        self.held = Level()  # cores
        self.depth = Level()
        self.durations = Durations()
        self.failures = 0

    def start(self, now_s: float) -> None:
        """Start the clocks."""
        for level in vars(self).values():
            if isinstance(level, Level):
                level.start(now_s)
