"""Clocks: the monotonic one for measurements, and a simulated one that makes what is measured reproducible.

Everything here that times or waits takes a clock, so that its tests run on simulated time and no sleep is real.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Nanoseconds that only go forward."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment."""

    def sleep_ns(self, duration_ns: int) -> None:
        """Wait at least so long; return at once where it is not positive."""


class MonotonicClock:
    """The system's monotonic clock of the highest resolution."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment."""
        return time.perf_counter_ns()

    def sleep_ns(self, duration_ns: int) -> None:
        """Wait at least so long; return at once where it is not positive."""
        if duration_ns > 0:
            time.sleep(duration_ns / 1e9)


class SimulatedClock:
    """A clock that stands still until someone sleeps: work is simulated by `sleep_ns`."""

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds slept so far."""
        return self._now_ns

    def sleep_ns(self, duration_ns: int) -> None:
        """Go forward."""
        self._now_ns += max(0, duration_ns)
