"""Warm-up: run until the times stop falling, and say so where they do not.

A window is a number of successive runs; its level is their median, which a single stall does not move. Warm-up ends
with the first window at which the levels of the last three lie within `bound` of each other:
(largest - smallest) / smallest <= bound. It ends without that, and says so, when its time is up.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from .clocks import Clock
from .results import Warmup

WINDOWS = 3
BOUND = 0.05
MIN_WINDOW_RUNS = 3
MIN_WINDOW_NS = 50_000_000  # short runs are gathered into windows of 50 ms, so that timer noise averages out
MAX_WINDOW_RUNS = 1000


def warm_up(run: Callable[[], None], clock: Clock, *, max_duration_s: float, bound: float = BOUND) -> Warmup:
    """Call `run` until its times are stable.

    Args:
        run: does the work once.
        clock: what times it.
        max_duration_s: when to give up; the run that is under way is finished, and at least one run is done.
        bound: allowed spread of three successive windows.

    Returns:
        What it took, and whether the times became stable.
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
        stable = (
            len(window_ms) >= MIN_WINDOW_RUNS and len(last) == WINDOWS and max(last) - min(last) <= bound * min(last)
        )
    return Warmup(
        stable=stable,
        runs=runs,
        duration_s=round((clock.now_ns() - begin_ns) / 1e9, 6),
        window_medians_ms=tuple(round(level, 6) for level in levels_ms),
        bound=bound,
    )
