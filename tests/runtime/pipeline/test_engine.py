"""The core on small functions: order, bounds, failures, stopping, and measurements."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atrous.errors import InputError
from atrous.runtime.pipeline import ItemResult, Pipeline, Stage

from .reports import run_pipeline


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def sleeping(seconds: float) -> Callable[[Any], Any]:
    def sleep(value: Any) -> Any:
        time.sleep(seconds)
        return value

    return sleep


def test_one_item_through_one_stage() -> None:
    outcomes, report = run_pipeline([Stage("double", lambda value: 2 * value)], [21])
    (outcome,) = outcomes
    assert (outcome.index, outcome.item, outcome.value, outcome.error, outcome.stage) == (0, 21, 42, None, None)
    assert list(outcome.timings_ms) == ["double"]
    assert (report.items, report.failed, report.stages[0].items) == (1, 0, 1)


def test_nothing_to_do() -> None:
    outcomes, report = run_pipeline([Stage("a", str), Stage("b", str)], [])
    assert outcomes == []
    assert report.items == 0
    assert report.describe_limit() == "no items"


@pytest.mark.parametrize("seed", range(5))
def test_order_is_kept_whatever_the_workers_do(seed: int) -> None:
    """Items of random cost through stages of random width come out as they went in."""
    dice = random.Random(seed)
    pauses = [dice.choice((0.0, 0.0, 0.001, 0.004)) for _ in range(200)]

    def work(value: int) -> int:
        time.sleep(pauses[value])
        return value

    stages = [Stage(name, work, cores=dice.choice((0, 1)), max_workers=dice.randint(1, 5)) for name in "abc"]
    workers = {stage.name: dice.randint(1, stage.max_workers or 1) for stage in stages}
    outcomes, report = run_pipeline(stages, range(200), cores=dice.randint(1, 4), workers=workers)
    assert [outcome.value for outcome in outcomes] == list(range(200))
    assert [outcome.index for outcome in outcomes] == list(range(200))
    assert report.most_alive <= report.max_alive


class Item:
    alive = 0
    most = 0
    lock = threading.Lock()

    def __init__(self) -> None:
        with Item.lock:
            Item.alive += 1
            Item.most = max(Item.most, Item.alive)

    def __del__(self) -> None:
        with Item.lock:
            Item.alive -= 1


@pytest.mark.parametrize("max_alive", [1, 2, 7, None])
def test_no_more_items_are_alive_than_promised(max_alive: int | None) -> None:
    """Counted in the items themselves: the list is not read further ahead, however slow the caller."""
    Item.alive = Item.most = 0
    stages = [
        Stage("fast", lambda item: item),
        Stage("slow", sleeping(0.001), max_workers=2),
        Stage("end", lambda i: i),
    ]
    with Pipeline(stages, cores=2, max_alive=max_alive) as pipeline:
        seen = 0
        for outcome in pipeline.run(Item() for _ in range(120)):
            assert outcome.error is None
            del outcome
            seen += 1
            if seen % 40 == 0:
                time.sleep(0.03)  # everything fills up behind a caller that takes its time
        assert seen == 120
    # one more than promised: the item that the caller was given, until it lets go
    assert 1 <= Item.most <= pipeline.max_alive + 1
    assert pipeline.report().most_alive <= pipeline.max_alive
    gc.collect()
    assert Item.alive == 0


def test_an_endless_list_is_read_lazily() -> None:
    drawn = itertools.count()
    with Pipeline([Stage("a", sleeping(0.001)), Stage("b", str)], cores=1) as pipeline:
        for outcome in pipeline.run(drawn):
            if outcome.index == 10:
                break
    assert next(drawn) <= 10 + pipeline.max_alive + 1


def test_a_stage_that_cannot_keep_up_holds_the_others_back() -> None:
    started: list[int] = []
    gate = threading.Event()

    def note(value: int) -> int:
        started.append(value)
        return value

    def wait(value: int) -> int:
        gate.wait(10)
        return value

    stages = [Stage("note", note, max_workers=1), Stage("wait", wait, max_workers=1, cores=0)]
    with Pipeline(stages, cores=2, queue_size=3, max_alive=100) as pipeline:
        outcomes = pipeline.run(range(50))
        reader = threading.Thread(target=lambda: results.extend(outcomes))
        results: list[ItemResult] = []
        reader.start()
        deadline_s = time.monotonic() + 10
        while len(started) < 5 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        time.sleep(0.1)
        # one in the stage that waits, three before it, one in the hand of "note"
        assert len(started) == 5
        gate.set()
        reader.join()
    assert [outcome.value for outcome in results] == list(range(50))


def fail_at(places: set[int]) -> Callable[[int], int]:
    def work(value: int) -> int:
        if value in places:
            raise ValueError(f"no {value}")
        return value

    return work


def test_a_failure_costs_its_own_item_only() -> None:
    stages = [Stage("a", fail_at({3})), Stage("b", fail_at({0, 9}), max_workers=3), Stage("c", fail_at({5}))]
    outcomes, report = run_pipeline(stages, range(10), cores=2)
    assert [outcome.index for outcome in outcomes] == list(range(10))
    failed = {outcome.index: (outcome.stage, str(outcome.error)) for outcome in outcomes if outcome.error is not None}
    assert failed == {0: ("b", "no 0"), 3: ("a", "no 3"), 5: ("c", "no 5"), 9: ("b", "no 9")}
    assert "in work" in outcomes[3].traceback
    assert list(outcomes[3].timings_ms) == ["a"]
    assert report.failed == 4
    assert [stage.failures for stage in report.stages] == [1, 2, 1]
    assert [stage.items for stage in report.stages] == [9, 7, 6]


def test_a_failure_keeps_nothing_alive() -> None:
    class Big:
        pass

    seen: list[weakref.ref[Big]] = []

    def fail(_: int) -> None:
        big = Big()
        seen.append(weakref.ref(big))
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    outcomes, _ = run_pipeline([Stage("a", fail)], range(3))
    gc.disable()
    try:
        assert all(isinstance(outcome.error, ValueError) for outcome in outcomes)
        assert [reference() for reference in seen] == [None] * 3
    finally:
        gc.enable()


def test_a_fatal_error_ends_the_run() -> None:
    class FullError(Exception):
        pass

    done: list[int] = []

    def work(value: int) -> int:
        if value == 20:
            raise FullError("disk")
        done.append(value)
        return value

    with pytest.raises(FullError, match="disk"):
        run_pipeline([Stage("a", work), Stage("b", sleeping(0.001))], range(10_000), fatal=(FullError,))
    assert max(done) < 200


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_inside_a_stage_ends_the_run(error: type[BaseException]) -> None:
    def work(_: int) -> None:
        raise error()

    with pytest.raises(error):
        run_pipeline([Stage("a", work)], range(5))


def test_an_error_of_the_list_ends_the_run() -> None:
    def items() -> Iterator[int]:
        yield from range(30)
        raise OSError("the list is gone")

    got: list[int] = []
    with pytest.raises(OSError, match="the list is gone"), Pipeline([Stage("a", str)]) as pipeline:
        got.extend(outcome.index for outcome in pipeline.run(items()))
    assert got == list(range(len(got)))


def test_leaving_early_finishes_what_is_under_way() -> None:
    begun: list[int] = []
    ended: list[int] = []

    def work(value: int) -> int:
        begun.append(value)
        time.sleep(0.01)
        ended.append(value)
        return value

    def leave() -> None:
        with Pipeline([Stage("a", work)], cores=3) as pipeline:
            for outcome in pipeline.run(range(1000)):
                if outcome.index == 4:
                    raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        leave()
    assert sorted(begun) == sorted(ended)
    assert len(begun) < 30


def test_stop_from_another_thread() -> None:
    """The caller, who waits for the next result, is woken."""
    pipeline = Pipeline([Stage("a", sleeping(0.02))], cores=1)
    timer = threading.Timer(0.1, pipeline.stop)
    timer.start()
    got = list(pipeline.run(itertools.count()))
    timer.join()
    assert 1 <= len(got) < 20


def test_batches() -> None:
    sizes: list[int] = []

    def add(values: list[tuple[int, str]]) -> list[tuple[int, str]]:
        assert len({key for _, key in values}) == 1
        sizes.append(len(values))
        time.sleep(0.002)
        return [(number + 1000, key) for number, key in values]

    items = [(number, "even" if number % 10 < 5 else "odd") for number in range(100)]
    stage = Stage("add", add, batch=4, batch_key=lambda value: value[1], max_workers=2)
    outcomes, report = run_pipeline([Stage("pass", lambda value: value), stage], items, cores=2)
    assert [outcome.value[0] for outcome in outcomes] == [number + 1000 for number in range(100)]
    assert 1 < max(sizes) <= 4
    assert report.stages[1].items == 100


def test_a_batch_that_fails_is_tried_one_by_one() -> None:
    def work(values: list[int]) -> list[int]:
        time.sleep(0.001)
        if 13 in values:
            raise ValueError("unlucky")
        return values

    outcomes, _ = run_pipeline([Stage("pass", int), Stage("work", work, batch=8)], range(40), workers={"work": 1})
    assert [outcome.index for outcome in outcomes if outcome.error is not None] == [13]
    assert [outcome.value for outcome in outcomes if outcome.error is None] == [n for n in range(40) if n != 13]


def test_a_batch_of_another_length_is_an_error() -> None:
    outcomes, _ = run_pipeline([Stage("cut", lambda values: values[:0], batch=2)], range(3))
    assert all("returned 0 values for 1" in str(outcome.error) for outcome in outcomes)


def test_cores_are_never_held_twice() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def hold(cores: int) -> Callable[[int], int]:
        def work(value: int) -> int:
            nonlocal now, most
            with lock:
                now += cores
                most = max(most, now)
            time.sleep(0.001)
            with lock:
                now -= cores
            return value

        return work

    stages = [Stage("one", hold(1)), Stage("two", hold(2), cores=2), Stage("all", hold(3), cores=8)]
    outcomes, _ = run_pipeline(stages, range(60), cores=3, workers={"one": 3, "two": 3, "all": 2})
    assert len(outcomes) == 60
    assert most == 3


def test_a_stage_starts_as_many_threads_as_it_needs() -> None:
    """Sleeping stages, so that the machine's own load does not count."""
    stages = [Stage("quick", lambda value: value, cores=0), Stage("slow", sleeping(0.01)), Stage("end", str, cores=0)]
    with Pipeline(stages, cores=4, max_alive=12) as pipeline:
        list(pipeline.run(range(60)))
    report = pipeline.report()
    assert report.stages[1].most_workers == report.stages[1].max_workers == 4
    for items in (0, 1, 2):
        _, report = run_pipeline(stages, range(items), cores=4)
        assert max(stage.most_workers for stage in report.stages) <= items


def test_workers_can_be_limited() -> None:
    stages = [Stage("quick", sleeping(0.001)), Stage("slow", sleeping(0.01))]
    _, report = run_pipeline(stages, range(60), cores=4, workers={"slow": 2})
    assert report.stages[1].max_workers == report.stages[1].most_workers == 2


def test_what_is_measured_is_right() -> None:
    """Sleeps of known length: times, shares and queue depths follow by arithmetic, with tolerance for load."""
    stages = [Stage("a", sleeping(0.01), cores=0), Stage("b", sleeping(0.04), max_workers=1, cores=0)]
    _, report = run_pipeline(stages, range(30), cores=1, workers={"a": 1, "b": 1})
    first, second = report.stages
    assert first.item_ms >= 10
    assert second.item_ms >= 40
    assert second.p90_ms >= 39.5
    assert second.busy_share > 0.8
    assert 0.1 < first.busy_share < 0.6
    assert first.blocked_share > 0.3  # "b" holds it back
    assert second.queue.mean_depth > 1  # of 2
    assert second.queue.most == 2
    assert 1.0 < report.calls_at_once < 1.7
    assert 0.1 < report.overlap < 0.6
    assert report.limit == "b"
    assert report.bounds_per_s["b"] == pytest.approx(1000 / second.item_ms)
    assert 0.7 < report.efficiency <= 1.001
    assert report.core_share == 0  # no stage holds a core
    shares = first.busy_share + first.starved_share + first.core_wait_share + first.blocked_share
    assert 0.7 < shares <= 1.001  # the rest is bookkeeping and other processes


def test_a_report_while_it_runs() -> None:
    with Pipeline([Stage("a", sleeping(0.002))], cores=1) as pipeline:
        assert pipeline.report().items == 0
        for outcome in pipeline.run(range(20)):
            report = pipeline.report()
            assert report.items == outcome.index + 1
    assert pipeline.report() == pipeline.report()  # the clock stands still when it is over


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Pipeline([]), "at least one stage"),
        (lambda: Pipeline([Stage("a", str), Stage("a", str)]), "a name of its own"),
        (lambda: Pipeline([Stage("a", str)], cores=0), "at least one core"),
        (lambda: Pipeline([Stage("a", str)], queue_size=0), "capacity of at least 1"),
        (lambda: Pipeline([Stage("a", str)], max_alive=0), "max_alive"),
        (lambda: Pipeline([Stage("a", str)], workers={"b": 1}), 'no stage "b"'),
        (lambda: Pipeline([Stage("a", str, max_workers=2)], workers={"a": 3}), "1 to 2 workers"),
        (lambda: Stage("a", str, max_workers=0), "1 to 256 workers"),
        (lambda: Stage("a", str, cores=-1), "0 to 256 cores"),
        (lambda: Stage("a", str, cores=3, max_cores=2), "cannot use 3 to 2 cores"),
        (lambda: Stage("a", str, cores=0, max_cores=2), "cannot use 0 to 2 cores"),
        (lambda: Stage("a", str, batch=0), "batches of 1"),
    ],
)
def test_bad_usage(make: Callable[[], object], part: str) -> None:
    with pytest.raises(InputError, match=part):
        make()


def test_a_pipeline_runs_once() -> None:
    with Pipeline([Stage("a", str)]) as pipeline:
        list(pipeline.run([1]))
        with pytest.raises(InputError, match="runs once"):
            next(iter(pipeline.run([1])))


def test_a_thread_that_cannot_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Pipeline([Stage("a", str)], cores=2) as pipeline, pytest.raises(RuntimeError, match="can't start"):
        list(pipeline.run(range(3)))
