"""Worker counts by arithmetic, and a controller in a simulated pipeline, without threads or clocks."""

from __future__ import annotations

import math

import pytest

from atrous.runtime.pipeline.planner import CORES, Controller, StageLoad, plan_workers
from atrous.runtime.pipeline.report import advise, find_bounds


def load(name: str, ms: float, cores: int = 1, most: int = 64) -> StageLoad:
    return StageLoad(name, ms / 1000, cores, most)


def test_the_cores_are_the_limit() -> None:
    """5 + 20 + 95 + 8 ms on 2 cores: 2 / 0.128 s = 15.6 a second; the CRF is then at work in 1.48 calls at once."""
    loads = [load("decode", 5), load("network", 20), load("crf", 95), load("encode", 8)]
    plan = plan_workers(loads, 2)
    assert plan.limit == CORES
    assert plan.rate_per_s == pytest.approx(15.625)
    assert plan.workers == {"decode": 1, "network": 1, "crf": 2, "encode": 1}
    assert find_bounds(loads, 2)["crf"] == pytest.approx(64 / 0.095)


def test_a_device_is_the_limit() -> None:
    """A GPU of 40 ms with one worker gives 25 a second; the CRF needs 25 x 0.095 x 1.25 = 2.97 workers for that."""
    loads = [load("decode", 5), load("network", 40, cores=0, most=1), load("crf", 95)]
    plan = plan_workers(loads, 16)
    assert (plan.limit, plan.rate_per_s) == ("network", pytest.approx(25))
    assert plan.workers == {"decode": 1, "network": 1, "crf": 3}


def test_a_call_on_many_cores() -> None:
    plan = plan_workers([load("network", 50, cores=4), load("crf", 100)], 4)
    assert plan.rate_per_s == pytest.approx(4 / 0.3)
    assert plan.workers["crf"] == math.ceil(4 / 0.3 * 0.1 * 1.25)


def test_a_stage_that_costs_nothing() -> None:
    plan = plan_workers([load("a", 0), load("b", 10)], 1)
    assert plan.workers == {"a": 1, "b": 2}
    assert plan_workers([load("a", 0)], 1).rate_per_s == math.inf


def test_the_planner_says_what_would_move_the_limit() -> None:
    """The example of the documentation: network 3.1 ms, CRF 95 ms on 2 cores."""
    loads = [load("network", 3.1, cores=0, most=1), load("crf", 95, most=2)]
    first, second, third = advise(loads, 2, {"crf": "more cores"})
    assert first == "the bottleneck is crf: 95 ms an item with 2 workers"
    assert second == "network 3.1 ms, crf 95 ms: 31 crf workers on 31 cores needed to keep up (2 here)"
    assert third == "what helps: more cores"
    first, second = advise([load("decode", 5), load("crf", 20)], 2)
    assert first == "the bottleneck is crf: 20 ms an item, 80% of the work, and all 2 cores are at work"
    assert second == "decode 5 ms, crf 20 ms: 4 crf workers on 4 cores needed to keep up (2 here)"
    assert advise([load("network", 40, cores=0, most=1), load("crf", 5)], 4) == (
        "the bottleneck is network: 40 ms an item with 1 worker",
        "the next limit is cores: 800 a second",
    )
    assert advise([], 2) == ()


def test_the_controller_adds_at_once_and_takes_away_slowly() -> None:
    controller = Controller({"a": 1, "b": 1}, {})
    assert controller.update([load("a", 1), load("b", 0)], 4) == {"a": 1, "b": 1}  # not yet measured
    slow_b = [load("a", 1), load("b", 20)]
    assert controller.update(slow_b, 4) == {"a": 1, "b": 5}
    slow_a = [load("a", 20), load("b", 1)]
    assert [controller.update(slow_a, 4)["b"] for _ in range(3)] == [5, 5, 1]
    assert controller.workers["a"] == 5
    for loads in (slow_b, slow_a) * 10:  # a load that goes to and fro takes nobody's workers away
        controller.update(loads, 4)
    assert controller.workers == {"a": 5, "b": 5}


def test_fixed_counts_never_change() -> None:
    controller = Controller({"a": 1, "b": 1}, {"b": 2})
    for _ in range(5):
        assert controller.update([load("a", 1), load("b", 50)], 8)["b"] == 2


def simulate(loads: list[StageLoad], workers: dict[str, int], cores: int, items: int) -> float:
    """Items a second of a pipeline with endless queues: every item passes the stages, first come, first served."""
    free_core = [0.0] * cores
    free = {name: [0.0] * count for name, count in workers.items()}
    ready = [0.0] * items
    for stage in loads:
        for index in sorted(range(items), key=lambda place: ready[place]):
            worker = min(range(len(free[stage.name])), key=free[stage.name].__getitem__)
            start = max(ready[index], free[stage.name][worker])
            ready[index] = free[stage.name][worker] = start + stage.item_s
    work_s = sum(stage.item_s * stage.cores for stage in loads) * items
    return items / max(max(ready), work_s / len(free_core))


@pytest.mark.parametrize(
    ("times", "cores"),
    [((5, 20, 95, 8), 2), ((5, 20, 95, 8), 16), ((1, 1, 1, 1), 3), ((50, 1, 1, 1), 4), ((3, 400, 7, 90), 8)],
)
def test_the_plan_reaches_the_bound(times: tuple[float, ...], cores: int) -> None:
    """In a simulation the planned workers reach 95 % of the bound, and with one fewer at the limit they would not."""
    loads = [load(name, ms, most=cores) for name, ms in zip("abcd", times, strict=True)]
    plan = plan_workers(loads, cores)
    assert simulate(loads, dict(plan.workers), cores, 4000) >= 0.95 * plan.rate_per_s
    widest = max(plan.workers, key=lambda name: plan.workers[name])
    if plan.workers[widest] > 2:
        fewer = {**plan.workers, widest: plan.workers[widest] // 2}
        assert simulate(loads, fewer, cores, 4000) < 0.95 * plan.rate_per_s
