from __future__ import annotations

import itertools

from atrous.runtime.benchmark.timing import MAX_WINDOW_RUNS, warm_up

from .simulation import SimulatedClock


def run_with(times_ms, *, max_duration_s: float = 60.0, bound: float = 0.05):
    clock, times = SimulatedClock(), iter(times_ms)
    return warm_up(lambda: clock.sleep_ns(int(next(times) * 1e6)), clock, max_duration_s=max_duration_s, bound=bound)


def test_it_ends_with_the_third_window_that_is_level() -> None:
    found = run_with(itertools.chain([100] * 3, [60] * 3, [41] * 3, [40] * 3, [41] * 3, itertools.repeat(1)))
    assert found.stable
    assert found.window_medians_ms == (100, 60, 41, 40, 41)
    assert found.runs == 15
    assert found.duration_s == (300 + 180 + 123 + 120 + 123) / 1000


def test_one_stall_in_a_window_does_not_matter() -> None:
    found = run_with([40, 40, 40, 40, 900, 40, 40, 40, 40])
    assert found.stable
    assert found.runs == 9


def test_short_runs_are_gathered_into_windows_of_50_ms() -> None:
    found = run_with(itertools.repeat(1))
    assert found.stable
    assert found.runs == 150
    assert run_with(itertools.repeat(1e-5)).runs == 3 * MAX_WINDOW_RUNS


def test_it_ends_unstable_at_the_time_limit() -> None:
    found = run_with((100 * 0.9 ** (run // 3) for run in itertools.count()), max_duration_s=1.0)
    assert not found.stable
    assert 1.0 <= found.duration_s < 1.1


def test_a_single_run_where_there_is_no_time_at_all() -> None:
    found = run_with(itertools.repeat(5000), max_duration_s=0)
    assert (found.runs, found.stable) == (1, False)
