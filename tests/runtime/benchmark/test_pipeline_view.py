from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from atrous.errors import BackendError
from atrous.runtime import read_bundle
from atrous.runtime.benchmark import system as systems
from atrous.runtime.benchmark.plan import BenchPlan, parse_subject
from atrous.runtime.benchmark.results import StageView
from atrous.runtime.benchmark.rounds import describe_pipeline, measure_pipelines
from atrous.runtime.benchmark.run import run_bench
from atrous.runtime.benchmark.system import System
from atrous.runtime.benchmark.timing import Canary, Clock

from ..bundles import CRF, write_bundle
from .simulated_pipeline import SimulatedPipeline
from .simulation import SimulatedClock, make_subject, plan_for
from .test_run import make_plan, make_samples


@pytest.fixture
def bundle(tmp_path: Path):
    return read_bundle(write_bundle(tmp_path / "b"))


def make_stage_view(**times_ms: float) -> StageView:
    view = make_subject(np.full(10, sum(times_ms.values()))).stages
    assert view is not None
    stages = [
        view.stages[0].model_copy(
            update={"name": name, "series": make_subject(np.full(10, ms)).stages.stages[0].series}
        )
        for name, ms in times_ms.items()
    ]
    return view.model_copy(
        update={"stages": (*stages, view.stages[0]), "throughput_per_s": 1000 / sum(times_ms.values())}
    )


def test_rounds_are_taken_in_turns_and_none_is_dropped() -> None:
    clock, log = SimulatedClock(), []
    first = SimulatedPipeline(clock, [99, *range(50, 59)], log, "a")
    second = SimulatedPipeline(clock, [99, *range(100, 109)], log, "b")
    canary = Canary(clock, work=lambda: clock.sleep_ns(1000))
    plan = plan_for(pipeline_rounds=9, pipeline_images=12)
    rounds = measure_pipelines(plan, [first, second], clock=clock, canary=canary)
    assert log[:2] == ["a4", "b4"]  # a third of a round to warm up
    assert log[2:8] == ["a12", "b12", "b12", "a12", "a12", "b12"]
    assert [one.samples.values_ms for one in rounds] == [pytest.approx(range(50, 59)), pytest.approx(range(100, 109))]
    assert len(canary.samples.values_ms) == 9
    assert rounds[0].samples.at_s == sorted(rounds[0].samples.at_s)
    view = describe_pipeline(
        rounds[0], first, make_stage_view(decode=2, prepare=0.1, compute=20, crf=40, labels=4, encode=1), None, None
    )
    assert view.images_per_round == 12
    assert view.throughput_per_s == pytest.approx(1000 / 54)  # of the median round
    assert view.low_per_s is not None
    assert view.high_per_s is not None
    assert 1000 / 58 <= view.low_per_s < view.throughput_per_s < view.high_per_s <= 20
    assert view.one_by_one_per_s == pytest.approx(1000 / 67.1)
    # two cores; 20 ms and 44 ms with both of them, 3.1 ms with one
    assert [stage.alone_ms for stage in view.stages] == [2, 0.1, 20, 44, 1]
    assert view.limit == "cores"
    assert view.bounds_per_s["cores"] == pytest.approx(2000 / 93.1)
    assert any("crf: 60 ms an item" in line for line in view.advice)
    assert {check.name: check.passed for check in view.noise.checks} == {
        "canary": True,
        "drift": False,  # from 51 ms to 57 ms: the rounds got slower
        "resolution": False,
    }


def test_a_round_is_as_large_as_the_machine() -> None:
    for asked, cores, images in ((None, 2, 24), (None, 16, 192), (7, 16, 7)):
        clock, log = SimulatedClock(), []
        system = SimulatedPipeline(clock, [50.0] * 2, log, "")
        system.cores = cores
        plan = plan_for(pipeline_rounds=1, pipeline_images=asked)
        measure_pipelines(plan, [system], clock=clock, canary=Canary(clock, work=lambda: None))
        assert log[-1] == str(images)


def test_each_label_is_compared(bundle) -> None:
    plan = BenchPlan(bundle, (), make_samples(3), threads=2)
    with System(plan, parse_subject("onnxruntime"), Clock()) as system:
        system.expected = [system.label(index) for index in range(3)]
        report, agreement = system.run_pipeline(7)
        assert (agreement, report.items) == (1, 7)
        system.expected[2] = (system.expected[2] + 1) % 4
        assert system.run_pipeline(6)[1] == pytest.approx(2 / 3)


def test_a_stage_that_fails_ends_the_run(bundle) -> None:
    plan = BenchPlan(bundle, (), make_samples(1), threads=1)
    with System(plan, parse_subject("fake,fail_on=3"), Clock()) as system:
        system.expected = [plan.samples[0].truth]
        with pytest.raises(BackendError, match="run 3 fails"):
            system.run_pipeline(5)


def test_foreign_errors_are_wrapped(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BenchPlan(bundle, (), make_samples(1), threads=1)
    monkeypatch.setattr(systems, "decode", lambda encoded: 1 / 0)
    with (
        System(plan, parse_subject("fake"), Clock()) as system,
        pytest.raises(BackendError, match="the stage decode failed: ZeroDivisionError"),
    ):
        system.run_pipeline(1)


def test_a_run_holds_the_pipeline_and_compares_it(tmp_path: Path) -> None:
    """Two stand-ins that wait: three times the time is a third of the throughput, and the same labels."""
    bundle = read_bundle(write_bundle(tmp_path / "c", crf=CRF))
    plan = make_plan(
        bundle,
        specs=[parse_subject("fake,delay_ms=20"), parse_subject("fake,delay_ms=60")],
        threads=2,
        pipeline_rounds=6,
        pipeline_images=6,
        crf_sweep=False,
    )
    result = run_bench(plan)
    views = [subject.pipeline for subject in result.subjects]
    assert [view.agreement for view in views if view is not None] == [1, 1]
    first = views[0]
    assert first is not None
    assert [stage.name for stage in first.stages] == ["decode", "prepare", "network", "crf", "encode"]
    assert len(first.time_per_image.values_ms) == 6
    assert (first.cores, first.network_threads, first.crf_threads) == (2, 2, 2)
    # one worker of 20 ms: never more than 50 a second
    assert first.bounds_per_s["network"] <= 50
    assert first.throughput_per_s < 50
    assert first.limit == "cores"  # of which network and CRF take all, in turns
    found = {one.stage: one for one in result.comparisons}["pipeline"]
    assert found.paired
    assert found.ratio > 1.2  # the verdict depends on how quiet the machine is; test_compare.py has its rules
    assert " x the throughput of fake:fp32,delay_ms=20 (" in found.reason


class SlowerBackend:
    """A backend that takes twice as long, all else equal."""

    def __init__(self, inner) -> None:
        self._inner = inner

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def run(self, feeds):
        start_s = time.perf_counter()
        outputs = self._inner.run(feeds)
        time.sleep(time.perf_counter() - start_s)
        return outputs


def test_a_backend_slowed_behind_the_benchmarks_back_is_caught(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, so the slowdown is large; `alarm_rates.py` has the rates for 10 %."""
    opened = BenchPlan.open

    def open_slowed(plan, spec, *arguments, **words):
        segmenter = opened(plan, spec, *arguments, **words)
        if "stall_ms" in spec.options:
            segmenter._network.backend = SlowerBackend(segmenter.backend)
        return segmenter

    monkeypatch.setattr(BenchPlan, "open", open_slowed)
    specs = [parse_subject("fake,delay_ms=20"), parse_subject("fake,delay_ms=20,stall_ms=0")]
    plan = make_plan(bundle, specs=specs, threads=1, min_samples=12, pipeline_rounds=9, pipeline_images=6)
    found = {one.stage: one for one in run_bench(plan).comparisons}
    assert (found["compute"].verdict, found["pipeline"].verdict) == ("regression", "regression")
