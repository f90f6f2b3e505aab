"""Core assignment: the pool by hand, and a pipeline simulated on it without threads or clocks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest

from atrous.runtime.pipeline.cores import CorePool, CoreRequest


def ask(pool: CorePool, least: int, most: int | None = None) -> CoreRequest:
    request = CoreRequest(least, lambda: most or least, lambda: None)
    pool.request(request)
    return request


def test_calls_are_served_in_order_of_arrival() -> None:
    pool = CorePool(4)
    first, large, small = ask(pool, 3), ask(pool, 2), ask(pool, 1)
    assert (first.held, large.held, small.held, pool.free) == (3, 0, 0, 1)  # the small one does not overtake
    pool.release(first.held)
    assert (large.held, small.held, pool.free) == (2, 1, 1)


def test_a_call_takes_the_free_cores_up_to_its_share() -> None:
    pool = CorePool(4)
    one, rest, last = ask(pool, 1), ask(pool, 1, 4), ask(pool, 1, 4)
    assert (one.held, rest.held, last.held) == (1, 3, 0)
    pool.release(one.held)
    assert last.held == 1
    assert [CorePool(8).find_share(calls) for calls in (1, 3, 8, 20)] == [8, 2, 1, 1]


def test_a_call_that_needs_more_than_there_is_gets_all() -> None:
    pool = CorePool(2)
    assert ask(pool, 8).held == 2
    waiting = ask(pool, 8, 64)
    pool.release(2)
    assert waiting.held == 2


def test_a_closed_pool_grants_nothing() -> None:
    pool = CorePool(1)
    ask(pool, 1)
    waiting = ask(pool, 1)
    pool.close()
    pool.release(1)
    assert waiting.held == 0


@dataclass
class Step:
    """A stage in the simulation.

    Attributes:
        work_s: core-seconds of a call; on a device, seconds.
        kind: "light" (a thread of its own, does not wait for cores), "all" (needs all cores), "shared" (takes its share
            of the cores), "device" (uses no core).
        workers: concurrent calls.
    """

    work_s: float
    kind: str
    workers: int
    queue: deque[int] = field(default_factory=deque)
    taken: int = 0


@dataclass
class Call:
    step: int
    item: int
    left_s: float
    request: CoreRequest
    threads: int = 0


@dataclass
class Simulation:
    """Items through steps on perfect cores: running threads share them equally, and twice the threads halve a call.

    Attributes:
        end_s: when the last item was done.
        idle_core_s: core-seconds without a runnable thread.
        granted: cores of each call that waited for some, in order.
        overcommitted_s: seconds of threads that had to wait for a core in use.
    """

    steps: list[Step]
    cores: int
    items: int
    scales: list[float]
    end_s: float = 0.0
    idle_core_s: float = 0.0
    granted: list[int] = field(default_factory=list)
    overcommitted_s: float = 0.0

    def run(self) -> Simulation:
        self.pool = CorePool(self.cores)
        self.waiting: list[Call] = []
        self.running: list[Call] = []
        self.steps[0].queue.extend(range(self.items))
        self._take_all()
        while self.running:
            rates = [self._find_rate(call) for call in self.running]
            step_s = min(call.left_s / rate for call, rate in zip(self.running, rates, strict=True))
            threads = sum(call.threads for call in self.running)
            self.idle_core_s += max(0, self.cores - threads) * step_s
            self.overcommitted_s += max(0, threads - self.cores) * step_s
            self.end_s += step_s
            for call, rate in zip(self.running, rates, strict=True):
                call.left_s -= rate * step_s
            for call in [call for call in self.running if call.left_s < 1e-9]:
                self._finish(call)
            self._take_all()
            assert not (self.waiting and self.pool.free), "a core is free while a call waits for one"
        return self

    def _find_rate(self, call: Call) -> float:
        if not call.threads:
            return 1.0
        threads = sum(one.threads for one in self.running)
        return call.threads * min(1.0, self.cores / threads)

    def _take_all(self) -> None:
        for index, step in enumerate(self.steps):
            while step.queue and step.taken < step.workers:
                item = step.queue.popleft()
                step.taken += 1
                least = self.cores if step.kind == "all" else 1
                call = Call(index, item, step.work_s * self.scales[item], CoreRequest(least, lambda: 1, lambda: None))
                if step.kind in ("light", "device"):
                    call.threads = int(step.kind == "light")
                    self.running.append(call)
                    continue
                call.request.choose = lambda step=step: self._choose(step)
                call.request.on_grant = lambda call=call: self._start(call)
                self.waiting.append(call)
                self.pool.request(call.request)

    def _choose(self, step: Step) -> int:
        return self.pool.find_share(min(step.workers, len(step.queue) + step.taken))

    def _start(self, call: Call) -> None:
        call.threads = call.request.held
        self.granted.append(call.threads)
        self.waiting.remove(call)
        self.running.append(call)

    def _finish(self, call: Call) -> None:
        self.running.remove(call)
        self.steps[call.step].taken -= 1
        self.pool.release(call.request.held)  # before the next stage has the item, as in the pipeline
        if call.step + 1 < len(self.steps):
            self.steps[call.step + 1].queue.append(call.item)


def simulate(
    cores: int, items: int, *, network_s: float, crf_s: float = 0.0, light_s: float = 0.02, device: bool = False, **more
) -> Simulation:
    network = Step(network_s, "device", 1) if device else Step(network_s, "all", 1)
    middle = [network, *([Step(crf_s, "shared", cores)] if crf_s else [])]
    steps = [Step(light_s, "light", cores), *middle, Step(light_s, "light", cores)]
    return Simulation(steps, cores, items, more.get("scales") or [1.0] * items).run()


def time_loop(cores: int, items: int, *, network_s: float, crf_s: float = 0.0, light_s: float = 0.02) -> float:
    """One image after the other: decode and encode on one core, network and CRF on all."""
    return items * (2 * light_s + (network_s + crf_s) / cores)


NETS = [
    {"network_s": 2.6, "light_s": 0.02},  # the network is the only heavy stage
    {"network_s": 4.6, "crf_s": 1.1, "light_s": 0.02},
    {"network_s": 0.035, "crf_s": 0.124, "light_s": 0.003},
]


@pytest.mark.parametrize("times", NETS)
@pytest.mark.parametrize("cores", [1, 2, 8, 16])
@pytest.mark.parametrize("items", [1, 2, 6, 60])
def test_never_slower_than_a_loop_with_all_threads(times: dict[str, float], cores: int, items: int) -> None:
    assert simulate(cores, items, **times).end_s <= time_loop(cores, items, **times) + 1e-9


@pytest.mark.parametrize("times", NETS)
@pytest.mark.parametrize("cores", [1, 2, 8, 16])
def test_all_cores_are_busy_from_the_first_image_to_the_last(times: dict[str, float], cores: int) -> None:
    """Cores idle only while the first image is decoded and the last is encoded."""
    done = simulate(cores, 60, **times)
    assert done.idle_core_s <= 2 * times["light_s"] * cores + 1e-9
    work_s = 60 * (sum(times.values()) + times["light_s"])
    assert done.end_s == pytest.approx((work_s + done.idle_core_s) / cores)


def test_network_and_crf_take_turns_with_all_cores() -> None:
    done = simulate(8, 12, network_s=4.6, crf_s=1.1, light_s=1e-6)
    assert done.granted == [8] * 24
    assert done.overcommitted_s < 1e-3


def test_a_large_last_image_has_all_cores() -> None:
    scales = [1.0] * 5 + [10.0]
    done = simulate(4, 6, network_s=1.0, crf_s=0.5, scales=scales)
    assert done.granted[-1] == 4
    assert done.end_s <= (sum(scales) * 1.54 + done.idle_core_s) / 4 + 1e-9
    assert done.idle_core_s <= 4 * 0.02 * (1 + 10)


def test_behind_a_device_the_crf_runs_many_images_side_by_side() -> None:
    """A device of 10 ms an image feeds CRF calls of 160 ms on 8 cores: they are the bottleneck and fill the cores."""
    done = simulate(8, 100, network_s=0.01, crf_s=0.16, device=True)
    bound_s = 100 * (0.16 + 0.04) / 8
    assert bound_s < done.end_s < 1.06 * bound_s
    assert set(done.granted[20:-8]) == {1}
