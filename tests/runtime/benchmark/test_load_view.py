from __future__ import annotations

import math

import numpy as np
import pytest

from atrous.errors import BackendError
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.benchmark.load_view import LoadContext, describe_run, measure_load
from atrous.runtime.benchmark.loadgen import (
    LoadOutcome,
    LoadSettings,
    Summary,
    TracedSample,
    call_one_by_one,
    run_loadgen,
)
from atrous.runtime.benchmark.timing import Clock
from atrous.runtime.pipeline import Pipeline, Stage

from .simulation import SimulatedClock, plan_for

pytest.importorskip("mlperf_loadgen")
IMAGES = [np.full((8, 9, 3), gray, np.uint8) for gray in (0, 120, 255)]


class FakeSystem:
    """Labels images by a fake backend; its pipeline has two stages, with four images at once in the first."""

    images = len(IMAGES)

    def __init__(self, backend: FakeBackend):
        self._backend = backend
        self.series: list[int] = []  # queries by series, of the pipeline

    def label(self, index: int):
        return self._backend.run({"image": IMAGES[index][None]})["scores"][0].argmax(0).astype(np.uint8)

    def call(self, queries, answer) -> None:
        call_one_by_one(self.label, Clock())(queries, answer)

    def serve(self, queries, answer) -> None:
        stages = [
            Stage("network", lambda query: (query, self.label(query.image)), max_workers=4, cores=0),
            Stage("answer", lambda pair: answer(pair[0], 1.0)),
        ]
        count = 0
        with Pipeline(stages) as pipeline:
            for outcome in pipeline.run(queries):
                if outcome.error is not None:
                    raise outcome.error
                count += 1
        self.series.append(count)


def make_context(system: FakeSystem, clock=None, closed_loop_ms: float = 2.0, **changes) -> LoadContext:
    return LoadContext(system, clock or Clock(), ("prepare", "compute", "labels"), closed_loop_ms, **changes)


def simulate_queue(arrivals_ms, service_ms) -> list[TracedSample]:
    """LoadGen's trace of one worker, first come first served, computed by hand."""
    samples, free_ms = [], 0.0
    for number, (arrival, takes) in enumerate(zip(arrivals_ms, service_ms, strict=True)):
        free_ms = max(free_ms, arrival) + takes
        samples.append(TracedSample(arrival / 1000, number, number, 0, 0.0, free_ms - arrival))
    return samples


def test_a_stall_delays_all_that_were_scheduled_meanwhile() -> None:
    """Queries each 10 ms of 5 ms, one stalled by 1 s: a timer around the calls sees one slow of a thousand."""
    service = [5.0] * 1000
    service[500] = 1005.0
    samples = simulate_queue(np.arange(1000) * 10.0, service)
    summary = Summary({"Completed samples per second": "99.0"}, True, ())
    outcome = LoadOutcome(summary, samples, service, [0] * 1000, 10.0)
    run = describe_run(LoadSettings("Server"), outcome, make_context(FakeSystem(FakeBackend(3)), SimulatedClock()), 3.0)
    assert run.latency is not None
    quantiles = {one.q: one.value_ms for one in run.latency.quantiles}
    assert run.service_ms == tuple(service)
    assert np.quantile(run.service_ms, 0.99) == 5.0  # the closed loop: nothing happened
    # 10 ms of wait are worked off in two queries' time: 200 queries waited, the first of them a second
    late = [value for value in run.latency.values_ms if value > 5.0001]
    assert len(late) == 200
    assert run.latency.max_ms == 1005.0
    assert quantiles[0.9] > 450
    assert quantiles[0.99] > 900
    assert run.latency.at_s[0] == 3.0


def test_loadgen_shows_the_tail_of_a_backend_that_stalls() -> None:
    """The same with LoadGen itself and its Poisson arrivals; margins are wide, since this one runs in real time."""
    backend = FakeBackend(3, delay_ms=1, stall_every=40, stall_ms=300)
    outcome = run_loadgen(
        LoadSettings("Server", min_duration_s=1.5, min_queries=150, target_qps=100, latency_bound_ms=50),
        FakeSystem(backend).call,
        len(IMAGES),
        clock=Clock(),
    )
    latencies = [sample.latency_ms for sample in outcome.samples]
    assert len(latencies) == len(outcome.service_ms) >= 150
    assert np.quantile(latencies, 0.9) > 150
    assert np.quantile(latencies, 0.9) > 3 * np.quantile(outcome.service_ms, 0.9)
    assert outcome.summary.valid is False
    assert outcome.summary.fields["99.00 percentile latency (ns)"].isdigit()


def test_all_scenarios_and_the_curve() -> None:
    plan = plan_for(
        scenarios=("SingleStream", "MultiStream", "Server", "Offline"),
        load_duration_s=0.05,
        samples_per_query=2,
        latency_bound_ms=50,
    )
    runs, curve = measure_load(plan, make_context(FakeSystem(FakeBackend(3))))
    assert [(run.scenario, run.mode) for run in runs] == [
        ("SingleStream", "performance"),
        ("MultiStream", "performance"),
        ("Server", "performance"),
        ("Offline", "performance"),
    ]
    for run in runs:
        assert run.latency is not None
        assert len(run.latency.values_ms) == len(run.sample_index) == len(run.issue_delay_ms) == run.queries
        assert len(run.service_ms) == run.queries
        assert run.metric_value is not None
        assert min(run.latency.values_ms) > 0
        assert run.summary["Scenario"] == run.scenario
        # nothing a worker does can take longer than LoadGen sees
        assert all(
            service <= latency + 0.001 for service, latency in zip(run.service_ms, run.latency.values_ms, strict=True)
        )
    assert runs[1].settings["samples_per_query"] == 2
    assert runs[2].settings["latency_bound_ms"] == 50
    assert len(curve) == 6
    assert [point.offered_per_s for point in curve] == sorted(point.offered_per_s for point in curve)
    assert all(point.queries >= 24 for point in curve)


def test_loadgens_own_percentile_is_ours() -> None:
    """LoadGen takes the order statistic, ours is linear between two: they lie within one sample of each other."""
    outcome = run_loadgen(
        LoadSettings("SingleStream", min_duration_s=0.1, min_queries=100),
        FakeSystem(FakeBackend(3)).call,
        len(IMAGES),
        clock=Clock(),
    )
    latencies = np.sort([sample.latency_ms for sample in outcome.samples])
    theirs = int(outcome.summary.fields["90.00 percentile latency (ns)"]) / 1e6
    rank = math.floor(0.9 * (latencies.size - 1))
    assert latencies[rank] - 1e-6 <= theirs <= latencies[min(rank + 2, latencies.size - 1)] + 1e-6
    assert float(outcome.summary.fields["Max latency (ns)"]) / 1e6 == latencies[-1]


@pytest.mark.parametrize("serve", [FakeSystem.call, FakeSystem.serve])
def test_a_backend_that_fails_ends_the_test_with_its_error(serve) -> None:
    system = FakeSystem(FakeBackend(3, fail_on=3))
    with pytest.raises(BackendError, match="run 3 fails"):
        run_loadgen(
            LoadSettings("Offline", min_duration_s=0.01, target_qps=500),
            lambda queries, answer: serve(system, queries, answer),
            len(IMAGES),
            clock=Clock(),
        )


def test_offline_goes_through_the_pipeline_and_the_others_do_not() -> None:
    """Calls of 4 ms: one after the other 250 a second, four at once up to 1000; Server keeps to the calls' rate."""
    system = FakeSystem(FakeBackend(3, delay_ms=4))
    plan = plan_for(scenarios=("Offline", "SingleStream", "Server"), load_duration_s=0.1, curve=False)
    offline, single, server = measure_load(plan, make_context(system, offline_per_s=900.0, closed_loop_ms=4.0))[0]
    assert [run.path for run in (offline, single, server)] == ["pipeline", "call", "call"]
    assert system.series[:2] == [offline.queries, 0]  # one series of all, and none after it
    assert offline.throughput_per_s > 1.5 * single.throughput_per_s
    assert len(offline.service_ms) == offline.queries >= 24
    assert "workers" not in offline.settings
    assert server.settings["target_qps"] == pytest.approx(0.7 * single.throughput_per_s)


def test_several_workers_label_at_once() -> None:
    backend = FakeBackend(3, delay_ms=20)
    spans = {}
    for workers in (1, 4):
        outcome = run_loadgen(
            LoadSettings("Offline", min_duration_s=0.1, target_qps=200, workers=workers),
            FakeSystem(backend).call,
            len(IMAGES),
            clock=Clock(),
        )
        assert len(outcome.samples) == 22  # 0.1 s at 200 a second, and LoadGen's 10 % more
        spans[workers] = max(sample.latency_ms for sample in outcome.samples)
    assert spans[4] < 0.6 * spans[1]


def test_a_missing_figure_is_an_error_that_says_what_to_do() -> None:
    outcome = LoadOutcome(Summary({}, None, ()), [], [], [], 1.0)
    with pytest.raises(BackendError, match="raise --latency-bound-ms"):
        describe_run(LoadSettings("Server"), outcome, make_context(FakeSystem(FakeBackend(3))), 0.0)
