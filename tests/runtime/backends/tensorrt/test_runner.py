"""The runner on the fake driver: right results in every order CUDA may choose, failures, closing."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from atrous.errors import BackendError, InputError
from atrous.runtime.backends.protocol import Array, TensorSpec
from atrous.runtime.backends.tensorrt.backend import TensorRtBackend, TensorRtOptions
from tools.gpu_bench.fake_driver import FakeDriver
from tools.gpu_bench.fake_engine import FakeContext, FakeEngine, Shape

from ...bundles import expected_scores, make_image

RANGE = {"image": ((1, 4, 4, 3), (1, 9, 11, 3), (2, 20, 20, 3))}
SMALL = {"image": ((1, 1, 1, 3), (1, 2, 2, 3), (1, 8, 8, 3))}


def compute(feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {"scores": np.stack([expected_scores(image) for image in feeds["image"]])}


def infer(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    batch, height, width, _ = shapes["image"]
    return {"scores": (batch, 4, height, width)}


def make_engine(driver: FakeDriver, **changes: Any) -> FakeEngine:
    settings: dict[str, Any] = {
        "inputs": [TensorSpec("image", "uint8", ("batch", "height", "width", 3))],
        "outputs": [TensorSpec("scores", "float32", ("batch", 4, "height", "width"))],
        "function": compute,
        "shape_rule": infer,
        "profiles": [RANGE],
    }
    return FakeEngine(driver, **{**settings, **changes})


def open_backend(driver: FakeDriver, engine: dict[str, Any] | None = None, **options: Any) -> TensorRtBackend:
    return TensorRtBackend(make_engine(driver, **(engine or {})), driver, TensorRtOptions(**options))


@pytest.fixture(params=[None, *range(6)], ids=lambda seed: "late" if seed is None else f"order {seed}")
def driver(request: pytest.FixtureRequest) -> FakeDriver:
    return FakeDriver(seed=request.param)


def images(count: int, height: int = 9, width: int = 11) -> list[np.ndarray]:
    return [make_image(height, width, seed)[None] for seed in range(count)]


def check(found: Mapping[str, Array], image: Array) -> None:
    np.testing.assert_array_equal(found["scores"], compute({"image": image})["scores"])


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_run(driver: FakeDriver, cuda_graphs: bool) -> None:
    backend = open_backend(driver, cuda_graphs=cuda_graphs)
    assert backend.inputs == (TensorSpec("image", "uint8", ("?", "?", "?", 3)),)
    assert backend.outputs == (TensorSpec("scores", "float32", ("?", 4, "?", "?")),)
    kept = []
    for image in [*images(4), *images(2, 20, 20), *images(3, 4, 5), *images(3)]:
        kept.append((backend.run({"image": image}), image))
    for found, image in kept:  # results belong to the caller
        check(found, image)
    backend.close()
    assert driver.list_leaks() == []


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_run_many(driver: FakeDriver, slots: int, cuda_graphs: bool) -> None:
    backend = open_backend(driver, slots=slots, cuda_graphs=cuda_graphs)
    given = [*images(7), *images(3, 15, 6)]
    results = list(backend.run_many({"image": image} for image in given))
    assert len(results) == len(given)
    for found, image in zip(results, given, strict=True):
        check(found, image)
    if slots == 1:  # one graph for each of the two shapes
        assert driver.calls["instantiate"] == (2 if cuda_graphs else 0)
    backend.close()
    assert driver.list_leaks() == []


def test_copies_run_beside_the_network() -> None:
    """Three stages: one slot takes the sum of their times per image, three slots the time of the slowest stage."""
    times_ms = {}
    for slots in (1, 2, 3):
        image = images(1)[0]
        scores_bytes = 9 * 11 * 4 * 4
        driver = FakeDriver(bytes_per_ms=scores_bytes / 2)
        engine = {"compute_ms": 10.0}
        backend = open_backend(driver, engine, slots=slots)
        list(backend.run_many({"image": image} for _ in range(20)))
        times_ms[slots] = driver.now_ms / 20
    copy_in_ms = 9 * 11 * 3 / (scores_bytes / 2)
    assert times_ms[1] == pytest.approx(10 + 2 + copy_in_ms)
    assert times_ms[2] < times_ms[1]
    assert times_ms[3] == pytest.approx(10, rel=0.05)


def test_timings_have_trtexecs_words() -> None:
    driver = FakeDriver(bytes_per_ms=297.0)
    backend = open_backend(driver, {"compute_ms": 5.0})
    backend.run({"image": images(1)[0]})
    found = backend.last_timings_ms
    assert found["h2d"] == pytest.approx(1.0)
    assert found["compute"] == pytest.approx(5.0)
    assert found["d2h"] == pytest.approx(9 * 11 * 16 / 297)
    assert found["latency"] == pytest.approx(found["h2d"] + found["compute"] + found["d2h"])
    assert found["enqueue"] >= 0


def test_memory_and_addresses_are_kept() -> None:
    driver = FakeDriver()
    backend = open_backend(driver)
    for image in [*images(3, 20, 20), *images(5)]:
        backend.run({"image": image})
    assert driver.calls["allocate"] == 2  # one input, one output, one slot; the first image is the largest
    assert driver.calls["allocate_pinned"] == 2


class TestGraphs:
    def test_second_run_captures_third_replays(self) -> None:
        driver = FakeDriver()
        backend = open_backend(driver, cuda_graphs=True)
        enqueues = []
        for image in images(5):
            before = driver.calls["launch"], driver.calls["instantiate"]
            check(backend.run({"image": image}), image)
            enqueues.append((driver.calls["launch"] - before[0], driver.calls["instantiate"] - before[1]))
        assert enqueues[0] == (0, 0)
        assert enqueues[1] == (3, 1)  # proved twice, then used
        assert enqueues[2:] == [(1, 0)] * 3

    def test_new_shape_or_address_needs_a_new_graph(self) -> None:
        driver = FakeDriver()
        backend = open_backend(driver, cuda_graphs=True)
        for image in [*images(3), *images(1, 20, 20), *images(3)]:
            check(backend.run({"image": image}), image)
        assert driver.calls["instantiate"] == 2

    def test_alternating_shapes_are_enqueued(self) -> None:
        driver = FakeDriver()
        backend = open_backend(driver, cuda_graphs=True)
        for size in (9, 10, 9, 10, 9):
            image = make_image(size, size)[None]
            check(backend.run({"image": image}), image)
        assert driver.calls["begin_capture"] == 0

    @pytest.mark.parametrize(
        ("fault", "part"), [("empty capture", "is empty"), ("stale graph", "does not (follow|compute)")]
    )
    def test_wrong_capture_is_found(self, driver: FakeDriver, fault: str, part: str) -> None:
        backend = open_backend(driver, {"fault": fault}, cuda_graphs=True)
        first, second = images(2)
        check(backend.run({"image": first}), first)
        with pytest.raises(BackendError, match=f"{part}.*cuda_graphs off"):
            backend.run({"image": second})
        backend.close()
        assert driver.list_leaks() == []

    @pytest.mark.parametrize("end_fails", [False, True])
    def test_a_failed_capture_frees_its_graph_and_keeps_the_first_error(
        self, monkeypatch: pytest.MonkeyPatch, end_fails: bool
    ) -> None:
        driver = FakeDriver()
        engine = make_engine(driver, fault="refuse capture")
        backend = TensorRtBackend(engine, driver, TensorRtOptions(cuda_graphs=True))
        end_capture = driver.end_capture

        def fail(stream: int) -> int:
            driver.destroy_graph(end_capture(stream))  # CUDA ends an invalid capture and returns no graph
            raise BackendError("CUDA's cudaStreamEndCapture failed")

        if end_fails:
            monkeypatch.setattr(driver, "end_capture", fail)
        first, second = images(2)
        check(backend.run({"image": first}), first)
        with pytest.raises(BackendError, match="enqueue failed"):
            backend.run({"image": second})
        engine.fault = ""
        monkeypatch.undo()
        check(backend.run({"image": second}), second)
        backend.close()
        assert driver.list_leaks() == []

    def test_a_graph_that_cannot_be_instantiated_is_freed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = FakeDriver()
        backend = open_backend(driver, cuda_graphs=True)

        def fail(graph: int) -> int:
            raise BackendError("CUDA's cudaGraphInstantiate failed")

        monkeypatch.setattr(driver, "instantiate", fail)
        backend.run({"image": images(1)[0]})
        with pytest.raises(BackendError, match="Instantiate failed"):
            backend.run({"image": images(1)[0]})
        backend.close()
        assert driver.list_leaks() == []


def test_errors_report_what_tensorrt_logged() -> None:
    driver, log = FakeDriver(), ["warning: slow", "error: 2: OutOfMemory (no details)"]
    engine = make_engine(driver, fault="refuse")
    backend = TensorRtBackend(engine, driver, log=log)
    image = images(1)[0]
    with pytest.raises(
        BackendError, match=r"enqueue failed: error: 2: OutOfMemory .*What to do: free memory"
    ) as caught:
        backend.run({"image": image})
    assert "slow" not in str(caught.value)
    with pytest.raises(BackendError, match="enqueue failed: TensorRT gave no reason"):
        backend.run({"image": image})
    engine.fault = ""
    check(backend.run({"image": image}), image)
    backend.close()


def test_a_context_that_is_refused_is_freed_with_its_error_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[FakeContext]] = []

    def refuse(self: FakeContext, profile: int, stream: int) -> bool:
        made.append(weakref.ref(self))
        return False

    monkeypatch.setattr(FakeContext, "set_optimization_profile_async", refuse)
    backend = open_backend(FakeDriver())
    with pytest.raises(BackendError, match="refuses a second context") as caught:
        backend.run({"image": images(1)[0]})
    assert caught.value.__traceback__ is not None
    assert [context() for context in made] == [None]
    backend.close()


class TestProfiles:
    @pytest.mark.parametrize("shape", [(1, 3, 9, 3), (1, 21, 9, 3), (3, 9, 9, 3)])
    def test_shape_outside(self, shape: Shape) -> None:
        driver = FakeDriver()
        backend = open_backend(driver)
        written = " x ".join(map(str, shape))
        with pytest.raises(InputError, match=rf"is {written}, the engine takes 1\.\.2 x 4\.\.20 x 4\.\.20 x 3: build"):
            backend.run({"image": np.zeros(shape, np.uint8)})
        assert driver.calls["copy_to_device"] == driver.calls["run_kernel"] == 0  # before anything was queued
        check(backend.run({"image": images(1)[0]}), images(1)[0])

    def test_smallest_fitting_profile_or_the_one_made_for_it(self) -> None:
        driver = FakeDriver()
        engine = make_engine(driver, profiles=[RANGE, SMALL, {"image": ((1, 4, 4, 3), (1, 6, 6, 3), (2, 30, 30, 3))}])
        backend = TensorRtBackend(engine, driver)
        for size, expected in ((5, 1), (2, 1), (9, 0), (6, 2), (25, 2)):
            engine.busy_profiles.clear()
            image = make_image(size, size)[None]
            fresh = TensorRtBackend(engine, driver)
            check(fresh.run({"image": image}), image)
            assert engine.busy_profiles == [expected]
            check(backend.run({"image": image}), image)

    def test_one_context_a_profile(self) -> None:
        """As TensorRT 8.5 with dynamic shapes: slots share a context, graphs cannot."""
        driver = FakeDriver()
        backend = open_backend(driver, {"shares_profiles": False}, slots=3, contexts=1)
        for image, found in zip(images(6), backend.run_many({"image": i} for i in images(6)), strict=True):
            check(found, image)
        graphed = open_backend(driver, {"shares_profiles": False}, slots=2, contexts=1, cuda_graphs=True)
        with pytest.raises(BackendError, match=r"refuses a second context for profile 0.*before 8\.6"):
            list(graphed.run_many({"image": i} for i in images(3)))


class TestThreads:
    def test_at_once(self, driver: FakeDriver) -> None:
        """The fake driver is not thread-safe, so one lane at a time uses it."""
        backend = open_backend(driver, contexts=1)
        given = images(12)
        with ThreadPoolExecutor(4) as pool:
            for found, image in zip(pool.map(lambda i: backend.run({"image": i}), given), given, strict=True):
                check(found, image)
        assert driver.calls["create_stream"] == 3

    def test_each_has_a_lane(self) -> None:
        driver = FakeDriver()
        backend = open_backend(driver, contexts=2)
        image = images(1)[0]
        with backend.open_stream() as first, backend.open_stream() as second:
            tickets = [first.submit({"image": image}), second.submit({"image": image})]
            third = threading.Thread(target=backend.run, args=({"image": image},), daemon=True)
            third.start()
            third.join(0.05)
            assert third.is_alive()  # waits for a lane
            for ticket in tickets:
                check(ticket.result(), image)
        third.join(5)
        assert not third.is_alive()
        assert driver.calls["create_stream"] == 6
        backend.close()
        assert driver.list_leaks() == []

    def test_activates_the_device_in_each(self) -> None:
        driver = FakeDriver()
        backend = open_backend(driver, contexts=1)
        backend.run({"image": images(1)[0]})
        before = driver.calls["activate"]
        thread = threading.Thread(target=backend.run, args=({"image": images(1)[0]},))
        thread.start()
        thread.join()
        assert driver.calls["activate"] > before


def test_engine_objects_are_freed_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts, then the engine, then what it needs; a ticket that is kept must not hold any of them."""
    driver, freed = FakeDriver(), []
    create = FakeEngine.create_execution_context

    def create_context(engine: FakeEngine) -> Any:
        context = create(engine)
        weakref.finalize(context, freed.append, "context")
        return context

    monkeypatch.setattr(FakeEngine, "create_execution_context", create_context)
    engine = make_engine(driver)
    weakref.finalize(engine, freed.append, "engine")
    backend = TensorRtBackend(engine, driver, on_close=lambda: freed.append("what it needs"))
    del engine
    with backend.open_stream() as stream:
        ticket = stream.submit({"image": images(1)[0]})
    backend.close()
    assert freed == ["context", "engine", "what it needs"]
    check(ticket.result(), images(1)[0])


class TestClose:
    def test_close_between_taking_a_lane_and_using_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = open_backend(FakeDriver(), contexts=1)
        take = backend._take_lane
        closing = threading.Thread(target=backend.close, daemon=True)

        def take_and_let_another_close(*arguments: Any) -> Any:
            lane = take(*arguments)
            closing.start()
            closing.join(0.1)
            return lane

        monkeypatch.setattr(backend, "_take_lane", take_and_let_another_close)
        image = images(1)[0]
        check(backend.run({"image": image}), image)  # had its lane before the close
        closing.join(5)
        assert not closing.is_alive()
        with pytest.raises(BackendError, match="closed"):
            backend.run({"image": image})

    @pytest.mark.parametrize("delay_ms", range(0, 20, 2))
    def test_threads_that_run_while_another_closes(self, delay_ms: int) -> None:
        """Every run is right or reports that the backend was closed; nothing hangs, nothing is left on the device."""
        driver, image = FakeDriver(), images(1)[0]
        backend = open_backend(driver, contexts=1)
        found: list[dict[str, Array]] = []
        errors: list[str] = []

        def work() -> None:
            try:
                while True:
                    found.append(backend.run({"image": image}))
            except BackendError as error:
                errors.append(str(error))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(delay_ms / 1000)
        backend.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert errors == ["this backend was closed"] * 4
        for outputs in found:
            check(outputs, image)
        assert driver.list_leaks() == []

    def test_close_by_the_thread_that_holds_a_stream(self) -> None:
        driver = FakeDriver()
        backend = open_backend(driver)
        results = backend.run_many({"image": image} for image in images(3))
        next(results)
        with pytest.raises(BackendError, match="would wait for itself"):
            backend.close()
        results.close()
        backend.close()
        assert driver.list_leaks() == []

    def test_close_frees_what_it_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = FakeDriver()
        destroy, stuck, closed = driver.destroy_event, set[int](), list[str]()

        def destroy_all_but_one(event: int) -> None:
            if event in stuck:
                raise BackendError("CUDA's cudaEventDestroy failed")
            destroy(event)

        monkeypatch.setattr(driver, "destroy_event", destroy_all_but_one)
        backend = TensorRtBackend(make_engine(driver), driver, on_close=lambda: closed.append("engine"))
        with backend.open_stream() as first, backend.open_stream() as second:
            for stream in (first, second):
                stream.submit({"image": images(1)[0]})
        stuck.add(max(driver._events))
        with pytest.raises(BackendError, match="cudaEventDestroy failed"):
            backend.close()
        assert driver.list_leaks() == ["1 events"]
        assert closed == ["engine"]


class TestStream:
    @pytest.mark.parametrize("stopped", [False, True])
    def test_a_run_that_fails_does_not_spoil_the_next(self, monkeypatch: pytest.MonkeyPatch, stopped: bool) -> None:
        """The other runs in flight are collected, the lane is discarded, and the first error is the one reported."""
        driver = FakeDriver()
        backend = open_backend(driver, slots=2, contexts=1)
        synchronize = driver.synchronize_event

        def fail_once(event: int) -> None:
            monkeypatch.setattr(driver, "synchronize_event", synchronize)
            raise BackendError("CUDA's cudaEventSynchronize failed")

        def use() -> None:
            with backend.open_stream() as stream:
                tickets.extend(stream.submit({"image": image}) for image in images(2))
                monkeypatch.setattr(driver, "synchronize_event", fail_once)
                if stopped:
                    raise RuntimeError("the consumer stopped")

        tickets: list[Any] = []
        with pytest.raises(RuntimeError if stopped else BackendError, match="stopped" if stopped else "Synchronize"):
            use()
        with pytest.raises(BackendError, match="Synchronize"):
            tickets[0].result()  # the same again, not what another run left in the slot
        check(tickets[1].result(), images(2)[1])
        with backend.open_stream() as stream:
            for ticket, image in zip([stream.submit({"image": i}) for i in images(2)], images(2), strict=True):
                check(ticket.result(), image)
        backend.close()
        assert driver.list_leaks() == []

    def test_an_error_that_was_seen_is_not_raised_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = FakeDriver()
        backend = open_backend(driver)
        synchronize = driver.synchronize_event

        def fail(event: int) -> None:
            raise BackendError("CUDA's cudaEventSynchronize failed")

        with backend.open_stream() as stream:
            ticket = stream.submit({"image": images(1)[0]})
            monkeypatch.setattr(driver, "synchronize_event", fail)
            with pytest.raises(BackendError, match="Synchronize"):
                ticket.result()
            monkeypatch.setattr(driver, "synchronize_event", synchronize)
        check(backend.run({"image": images(1)[0]}), images(1)[0])

    def test_slots_are_busy(self) -> None:
        driver = FakeDriver()
        backend = open_backend(driver, slots=2)
        with backend.open_stream() as stream:
            tickets = [stream.submit({"image": image}) for image in images(2)]
            with pytest.raises(BackendError, match="all 2 slots are busy"):
                stream.submit({"image": images(1)[0]})
            check(tickets[0].result(), images(2)[0])
            check(tickets[0].result(), images(2)[0])  # again, from memory
            stream.submit({"image": images(1)[0]})
        check(tickets[1].result(), images(2)[1])
        for image in images(3):
            check(backend.run({"image": image}), image)  # uncollected results do not block the lane

    def test_a_caller_that_stops_early(self) -> None:
        driver = FakeDriver()
        backend = open_backend(driver, slots=2, contexts=1)
        for found in backend.run_many({"image": image} for image in images(6)):
            assert found
            break
        check(backend.run({"image": images(1)[0]}), images(1)[0])
        backend.close()
        assert driver.list_leaks() == []


class TestErrors:
    def test_enqueue_fails(self, driver: FakeDriver) -> None:
        backend = open_backend(driver, {"fault": "refuse"})
        for _ in range(3):
            with pytest.raises(BackendError, match="enqueue failed"):
                backend.run({"image": images(1)[0]})
        backend.close()
        assert driver.list_leaks() == []

    def test_memory_is_full(self) -> None:
        driver = FakeDriver(memory_bytes=1000)
        backend = open_backend(driver)
        with pytest.raises(BackendError, match="full"):
            backend.run({"image": images(1, 20, 20)[0]})
        backend.close()
        assert driver.list_leaks() == []

    @pytest.mark.parametrize("method", ["allocate", "allocate_pinned"])
    def test_a_run_after_an_allocation_failed(self, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        driver = FakeDriver()
        backend = open_backend(driver)
        allocate = getattr(driver, method)

        def fail_once(size_bytes: int) -> Any:
            monkeypatch.setattr(driver, method, allocate)
            raise BackendError("the memory is full")

        for image in (images(1)[0], images(1, 20, 20)[0]):  # the first block of all, then a larger one
            monkeypatch.setattr(driver, method, fail_once)
            with pytest.raises(BackendError, match="memory is full"):
                backend.run({"image": image})
            check(backend.run({"image": image}), image)
        backend.close()
        assert driver.list_leaks() == []

    def test_closed(self) -> None:
        backend = open_backend(FakeDriver())
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.run({"image": images(1)[0]})
        with pytest.raises(BackendError, match="closed"):
            next(backend.run_many([{"image": images(1)[0]}]))

    @pytest.mark.parametrize("feeds", [{}, {"picture": 1}, {"image": [1]}, {"image": np.zeros((1, 9, 11, 3))}])
    def test_bad_feeds(self, feeds: Any) -> None:
        with pytest.raises(InputError):
            open_backend(FakeDriver()).run(feeds)

    @pytest.mark.parametrize("options", [{"slots": 0}, {"slots": 9}, {"contexts": 0}, {"contexts": 17}])
    def test_bad_options(self, options: dict[str, int]) -> None:
        with pytest.raises(InputError, match="slots must be 1 to 8"):
            TensorRtOptions(**options)

    def test_output_that_depends_on_data(self) -> None:
        backend = open_backend(FakeDriver(), {"shape_rule": lambda shapes: {"scores": (1, 4, -1, 11)}})
        with pytest.raises(BackendError, match="depends on the data: 1 x 4 x -1 x 11"):
            backend.run({"image": images(1)[0]})
