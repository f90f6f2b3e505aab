"""What is measured while a pipeline runs, in constant memory: levels over time, and distributions of call times."""

from __future__ import annotations

import math
from collections import Counter

_STEP = math.log(1.02)  # buckets of 2 %: a quantile is off by 1 % at most
_NEWEST = 0.2  # weight of the newest call in the moving average


class Level:
    """A count that changes over time: its integral, its largest value, and how long it was at least `threshold`."""

    def __init__(self, value: int = 0, *, threshold: int = 1):
        """Start at `value`; the clock starts with `start`."""
        self.value = value
        self.highest = value
        self._threshold = threshold
        self._since_s = 0.0
        self._integral_s = 0.0
        self._above_s = 0.0

    def start(self, now_s: float) -> None:
        """Begin to count time."""
        self._since_s = now_s

    def set(self, value: int, now_s: float) -> None:
        """Change the level."""
        elapsed_s = now_s - self._since_s
        self._integral_s += self.value * elapsed_s
        if self.value >= self._threshold:
            self._above_s += elapsed_s
        self.value, self._since_s = value, now_s
        self.highest = max(self.highest, value)

    def add(self, change: int, now_s: float) -> None:
        """Change the level by a difference."""
        self.set(self.value + change, now_s)

    def integral_s(self, now_s: float) -> float:
        """The level summed over time, e.g. worker-seconds."""
        return self._integral_s + self.value * (now_s - self._since_s)

    def above_s(self, now_s: float) -> float:
        """Seconds during which it was at least the threshold."""
        return self._above_s + (now_s - self._since_s if self.value >= self._threshold else 0.0)


class Durations:
    """A distribution of durations, in buckets of 2 %, and their moving average."""

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0
        self.recent_s = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, duration_s: float) -> None:
        """Count one."""
        self.recent_s = duration_s if not self.count else self.recent_s + _NEWEST * (duration_s - self.recent_s)
        self.count += 1
        self.total_s += duration_s
        self._buckets[math.floor(math.log(max(duration_s, 1e-9)) / _STEP)] += 1

    @property
    def mean_s(self) -> float:
        """The mean; 0 of none."""
        return self.total_s / self.count if self.count else 0.0

    def quantile_s(self, share: float) -> float:
        """The smallest duration that at least `share` of all do not exceed, to 1 %; 0 of none."""
        wanted, seen = share * self.count, 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return math.exp((bucket + 0.5) * _STEP)
        return 0.0


class StageMeter:
    """What one stage's workers do: worker-seconds by what they were at, and the duration of its calls an item."""

    def __init__(self, workers: int) -> None:
        self.workers = Level(workers)
        self.busy = Level()
        self.starved = Level()  # no input
        self.waiting = Level()  # for a core
        self.blocked = Level()  # no room in the next queue
        self.depth = Level(threshold=1)
        self.durations = Durations()
        self.calls = 0
        self.failures = 0
        self.cpu_s = 0.0

    def start(self, now_s: float) -> None:
        """Begin to count time."""
        for level in (self.workers, self.busy, self.starved, self.waiting, self.blocked, self.depth):
            level.start(now_s)
