"""The run's clock, warm-up, and the canary that separates noise of the machine from noise of the subject."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np

from .results import Warmup
from .statistics import Samples

WINDOWS = 3
WARMUP_BOUND = 0.05
MIN_WINDOW_RUNS = 3
MIN_WINDOW_NS = 50_000_000  # windows of at least 50 ms, so that timer noise averages out
MAX_WINDOW_RUNS = 1000

CANARY_SIDE = 96
CANARY_PRODUCTS = 24  # about half a millisecond on one core
MAX_SETTLE_NS = 30_000_000
_SETTLE_STEP_NS = 1_000_000
_IDLE_SHARE = 0.2  # of one core: below this, no worker thread is spinning


class Clock:
    """Monotonic time since the clock was made. Tests replace it by simulated time."""

    def __init__(self) -> None:
        self._begin_ns = time.perf_counter_ns()

    def now_ns(self) -> int:
        """Nanoseconds since the run began."""
        return time.perf_counter_ns() - self._begin_ns

    def now_s(self) -> float:
        """Seconds since the run began."""
        return self.now_ns() / 1e9

    def cpu_ns(self) -> int:
        """Processor time of this process, all threads."""
        return time.process_time_ns()

    def sleep_ns(self, duration_ns: int) -> None:
        """Wait at least this long."""
        time.sleep(duration_ns / 1e9)


def warm_up(run: Callable[[], object], clock: Clock, *, max_duration_s: float, bound: float = WARMUP_BOUND) -> Warmup:
    """Call `run` until its times are stable, at least once.

    Runs are grouped into windows; a window's level is its median, which a single stall does not move. The times are
    stable when the levels of the last three windows satisfy (largest - smallest) / smallest <= bound. At the time limit
    the run in progress is finished.
    """
    begin_ns = clock.now_ns()
    limit_ns = begin_ns + int(max_duration_s * 1e9)
    levels_ms: list[float] = []
    runs = 0
    stable = False
    while not stable and (runs == 0 or clock.now_ns() < limit_ns):
        window_begin_ns = clock.now_ns()
        window_ms: list[float] = []
        while len(window_ms) < MAX_WINDOW_RUNS:
            start_ns = clock.now_ns()
            run()
            end_ns = clock.now_ns()
            window_ms.append((end_ns - start_ns) / 1e6)
            is_full = len(window_ms) >= MIN_WINDOW_RUNS and end_ns - window_begin_ns >= MIN_WINDOW_NS
            if is_full or end_ns >= limit_ns:
                break
        runs += len(window_ms)
        levels_ms.append(median(window_ms))
        last = levels_ms[-WINDOWS:]
        is_level = len(last) == WINDOWS and max(last) - min(last) <= bound * min(last)
        stable = len(window_ms) >= MIN_WINDOW_RUNS and is_level
    duration_s = (clock.now_ns() - begin_ns) / 1e9
    return Warmup(stable=stable, runs=runs, duration_s=duration_s, window_medians_ms=tuple(levels_ms), bound=bound)


class Canary:
    """A fixed piece of arithmetic, timed between samples; its work never changes, so its scatter is the machine's."""

    def __init__(self, clock: Clock, *, work: Callable[[], object] | None = None):
        """Prepare the work; `work` replaces the arithmetic."""
        self._clock = clock
        self._work = work or _make_arithmetic()
        self.samples = Samples()

    def sample(self) -> None:
        """Do the work once and record its time."""
        start_ns = self._clock.now_ns()
        self._work()
        self.samples.add(start_ns / 1e9, (self._clock.now_ns() - start_ns) / 1e6)

    def settle(self) -> None:
        """Wait until this process' worker threads stop spinning for work, at most 30 ms."""
        limit_ns = self._clock.now_ns() + MAX_SETTLE_NS
        while self._clock.now_ns() < limit_ns:
            before_ns, used_ns = self._clock.now_ns(), self._clock.cpu_ns()
            self._clock.sleep_ns(_SETTLE_STEP_NS)
            if self._clock.cpu_ns() - used_ns <= _IDLE_SHARE * (self._clock.now_ns() - before_ns):
                return

    def take_turns(self, round_number: int, subjects: int) -> Iterator[int]:
        """Yield the subjects' indices of one round, starting with another one each round.

        Samples the canary first, and settles before each turn, so that threads of one subject do not use the cores of
        the next.
        """
        self.settle()
        self.sample()
        for turn in range(subjects):
            self.settle()
            yield (round_number + turn) % subjects


def _make_arithmetic() -> Callable[[], None]:
    """Integer arithmetic on 72 kB: without BLAS, hence one thread; fits the L2 cache."""
    values = np.arange(CANARY_SIDE * CANARY_SIDE, dtype=np.int64).reshape(CANARY_SIDE, CANARY_SIDE)
    other = values.T.copy()
    product = np.empty_like(values)

    def compute() -> None:
        for _ in range(CANARY_PRODUCTS):
            np.multiply(values, other, out=product)
            np.add(product, values, out=product)

    return compute
