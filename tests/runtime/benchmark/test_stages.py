from __future__ import annotations

import pytest

from atrous.runtime.benchmark.rounds import measure_stages
from atrous.runtime.benchmark.timing import Canary

from .simulation import SimulatedClock, SimulatedSystem, plan_for


def measure(clock: SimulatedClock, systems, **amounts):
    canary = Canary(clock, work=lambda: clock.sleep_ns(500_000))
    plan = plan_for(3, **{"duration_s": 0.0, "warmup_s": 0.0, "min_samples": 6, **amounts})
    return measure_stages(plan, systems, clock=clock, canary=canary), canary


def test_every_stage_of_every_sample_is_kept() -> None:
    clock = SimulatedClock()
    (view,), _ = measure(clock, [SimulatedSystem(clock, [7, 10, 20, 4000, 10, 10, 11])])
    compute, whole = view.find_stage("compute"), view.find_stage("end_to_end")
    assert compute is not None
    assert whole is not None
    assert compute.series.values_ms == (10, 20, 4000, 10, 10, 11)  # the first was the warm-up; the stall stays
    assert whole.series.values_ms == (11, 21, 4001, 11, 11, 12)
    assert [stage.name for stage in view.stages] == ["decode", "compute", "end_to_end"]
    assert view.absent == {"h2d": "no device"}
    assert view.throughput_per_s == pytest.approx(6 / 4.067)


def test_moments_are_on_the_axis_of_the_run() -> None:
    clock = SimulatedClock()
    (view,), canary = measure(clock, [SimulatedSystem(clock, [9])], min_samples=2)
    # 10 ms of warm-up; then a round: 1 ms to settle, 0.5 ms of canary, 1 ms to settle, 10 ms of work
    assert view.find_stage("compute").series.at_s == pytest.approx((0.0125, 0.025))
    assert canary.samples.values_ms == [0.5, 0.5]


def test_subjects_take_turns_on_the_same_image_and_at_beginning() -> None:
    clock, log = SimulatedClock(), []
    runners = [SimulatedSystem(clock, [1], log, name) for name in "ab"]
    measure(clock, runners, min_samples=4)
    assert "".join(log) == "ab" + "abbaabba"
    assert runners[0].items == runners[1].items == [0, 0, 1, 2, 0]


def test_it_goes_on_for_the_duration_but_not_beyond_the_most() -> None:
    clock = SimulatedClock()
    (view,), _ = measure(clock, [SimulatedSystem(clock, [9])], duration_s=1.0, min_samples=1)
    assert view.images == 80  # 12.5 ms a round
    (view,), _ = measure(clock, [SimulatedSystem(clock, [9])], duration_s=1.0, max_samples=5)
    assert view.images == 5


def test_a_device_is_timed_by_its_events() -> None:
    clock = SimulatedClock()
    runner = SimulatedSystem(clock, [9])
    runner.has_device_events = True
    (view,), _ = measure(clock, [runner])
    assert {stage.name: stage.clock for stage in view.stages} == {
        "decode": "monotonic",
        "compute": "cuda-events",
        "end_to_end": "monotonic",
    }


def test_the_canary_waits_until_threads_sleep() -> None:
    spins = iter([0, 1_000_000, 1_000_000, 2_000_000, 2_000_000, 2_000_000])  # one core busy twice, then none
    clock = SimulatedClock(lambda: next(spins))
    Canary(clock, work=lambda: None).settle()
    assert clock.now_ns() == 3_000_000
    busy = SimulatedClock(lambda: busy.now_ns())  # busy forever: not longer than 30 ms
    Canary(busy, work=lambda: None).settle()
    assert busy.now_ns() == 30_000_000
