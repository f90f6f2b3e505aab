"""The canary: a fixed piece of arithmetic, timed between samples.

Its work never changes, so its scatter is the machine's own: other programs, changing clocks, a hypervisor that takes
the core away. It tells noise of the machine from noise of what is measured. Between two programs' turns it also waits
until worker threads that spin for more work have gone to sleep, so that one does not burn the other's cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from .clocks import Clock

SIDE = 96
PRODUCTS = 24  # about half a millisecond on one core
MAX_SETTLE_NS = 30_000_000
_STEP_NS = 1_000_000
_QUIET_SHARE = 0.2  # of one core: less than this, and nobody spins


class Canary:
    """Times its own fixed work, again and again."""

    def __init__(
        self, clock: Clock, *, work: Callable[[], object] | None = None, cpu_ns: Callable[[], int] | None = None
    ):
        """Prepare the work.

        Args:
            clock: what times it.
            work: the fixed work; small integer arithmetic of one thread by default.
            cpu_ns: processor time of this process, `time.process_time_ns` by default.
        """
        self._clock = clock
        self._work = work or _Arithmetic()
        self._cpu_ns = cpu_ns or time.process_time_ns
        self.at_ns: list[int] = []
        self.values_ms: list[float] = []

    def settle(self) -> None:
        """Wait until this process' threads sleep, for at most 30 ms."""
        limit_ns = self._clock.now_ns() + MAX_SETTLE_NS
        while self._clock.now_ns() < limit_ns:
            before_ns, used_ns = self._clock.now_ns(), self._cpu_ns()
            self._clock.sleep_ns(_STEP_NS)
            if self._cpu_ns() - used_ns <= _QUIET_SHARE * (self._clock.now_ns() - before_ns):
                return

    def sing(self) -> None:
        """Do the work once and keep its time."""
        start_ns = self._clock.now_ns()
        self._work()
        self.at_ns.append(start_ns)
        self.values_ms.append((self._clock.now_ns() - start_ns) / 1e6)

    def take_turns(self, round_number: int, subjects: int) -> Iterator[int]:
        """The subjects of one round, beginning with another one each round: sings first, and settles before each."""
        self.settle()
        self.sing()
        for turn in range(subjects):
            self.settle()
            yield (round_number + turn) % subjects


class _Arithmetic:
    """Integer arithmetic on 72 kB: no BLAS, hence one thread; fits the caches nearest to a core."""

    def __init__(self) -> None:
        self._values = np.arange(SIDE * SIDE, dtype=np.int64).reshape(SIDE, SIDE)
        self._other = self._values.T.copy()
        self._product = np.empty_like(self._values)

    def __call__(self) -> None:
        for _ in range(PRODUCTS):
            np.multiply(self._values, self._other, out=self._product)
            np.add(self._product, self._values, out=self._product)
