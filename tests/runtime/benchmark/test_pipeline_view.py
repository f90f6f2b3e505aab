from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from atrous.errors import BackendError
from atrous.runtime import read_bundle
from atrous.runtime.backends import open_backend
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.benchmark.canary import Canary
from atrous.runtime.benchmark.clocks import MonotonicClock, SimulatedClock
from atrous.runtime.benchmark.pipeline_view import (
    PipelinePlan,
    PipelineRunner,
    bound_alone,
    count_images,
    describe_pipeline,
    measure_pipelines,
)
from atrous.runtime.benchmark.results import StageView
from atrous.runtime.benchmark.run import run_bench
from atrous.runtime.benchmark.stages import Amount
from atrous.runtime.benchmark.subjects import parse_subject
from atrous.runtime.segmenter import Segmenter

from ..bundles import CRF, write_bundle
from .simulated_pipeline import SimulatedPipeline, describe_rounds
from .simulation import make_subject
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
    canary = Canary(clock, work=lambda: clock.sleep_ns(1000), cpu_ns=lambda: 0)
    rounds = measure_pipelines([first, second], PipelinePlan(9, 12), clock=clock, begin_ns=0, canary=canary)
    assert log[:2] == ["a4", "b4"]  # a third of a round to warm up
    assert log[2:8] == ["a12", "b12", "b12", "a12", "a12", "b12"]
    assert [one.times_ms for one in rounds] == [pytest.approx(range(50, 59)), pytest.approx(range(100, 109))]
    assert len(canary.values_ms) == 9
    assert rounds[0].at_s == sorted(rounds[0].at_s)
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
    assert view.alone_bound_per_s is None  # all on the cores: that is one image after the other
    assert view.limit == "cores"
    assert view.bounds_per_s["cores"] == pytest.approx(2000 / 93.1)
    assert any("crf: 60 ms an item" in line for line in view.advice)
    assert {check.name: check.passed for check in view.noise.checks} == {
        "canary": True,
        "drift": False,  # from 51 ms to 57 ms: the rounds got slower
        "resolution": False,
    }


def test_a_devices_stage_works_beside_the_cores() -> None:
    view = describe_rounds(make_stage_view(decode=2, prepare=0.1, compute=20, h2d=4, d2h=1, crf=40, encode=1))
    stages = [stage.model_copy(update={"cores": 0}) if stage.name == "network" else stage for stage in view.stages]
    assert bound_alone(stages) == pytest.approx(1000 / (40 + 3.1 / 2))
    slow = [s.model_copy(update={"alone_per_s": 10.0}) if s.name == "network" else s for s in stages]
    assert bound_alone(slow) == 10
    assert bound_alone([s.model_copy(update={"alone_ms": None, "alone_per_s": None}) for s in stages]) is None


def test_a_round_is_as_large_as_the_machine() -> None:
    assert (count_images(PipelinePlan(), 2), count_images(PipelinePlan(), 16)) == (24, 192)
    assert count_images(PipelinePlan(images=7), 16) == 7


def test_each_label_is_compared(bundle) -> None:
    samples = make_samples(3)
    with Segmenter(bundle, open_backend("onnxruntime", bundle, threads=1)) as segmenter:
        expected = [segmenter(sample.image) for sample in samples]
        words = {"cores": 2, "clock": MonotonicClock()}
        done = PipelineRunner(segmenter, samples, expected, **words).run(7)
        assert (done.agreement, done.report.items) == (1, 7)
        wrong = [*expected[:2], (expected[2] + 1) % 4]
        assert PipelineRunner(segmenter, samples, wrong, **words).run(6).agreement == pytest.approx(2 / 3)


def test_a_stage_that_fails_ends_the_run(bundle) -> None:
    samples = make_samples(1)
    segmenter = Segmenter(bundle, FakeBackend(4, fail_on=3))
    runner = PipelineRunner(segmenter, samples, [samples[0].truth], cores=2, clock=MonotonicClock())
    with pytest.raises(BackendError, match="run 3 fails"):
        runner.run(5)


def test_a_run_holds_the_pipeline_and_compares_it(tmp_path: Path) -> None:
    """Two stand-ins that wait: twice the time is half the throughput, and the same labels."""
    bundle = read_bundle(write_bundle(tmp_path / "c", crf=CRF))
    plan = make_plan(
        bundle,
        specs=[parse_subject("fake,delay_ms=8"), parse_subject("fake,delay_ms=16")],
        threads=2,
        pipeline=PipelinePlan(6, 12),
        sweeps_crf=False,
    )
    result = run_bench(plan)
    views = [subject.pipeline for subject in result.subjects]
    assert [view.agreement for view in views if view is not None] == [1, 1]
    first = views[0]
    assert first is not None
    assert [stage.name for stage in first.stages] == ["decode", "prepare", "network", "crf", "encode"]
    assert len(first.time_per_image.values_ms) == 6
    assert (first.cores, first.network_threads, first.crf_threads) == (2, 2, 2)
    # one worker of 8 ms: never more than 125 a second
    assert first.bounds_per_s["network"] <= 125
    assert first.throughput_per_s < min(first.bounds_per_s.values()) * 1.01
    found = {one.stage: one for one in result.comparisons}["pipeline"]
    assert (found.verdict, found.paired) == ("regression", True)
    assert " x the throughput of fake:fp32,delay_ms=8 (" in found.reason


class SlowerBackend:
    """A backend that takes 30 % longer, all else equal."""

    def __init__(self, inner) -> None:
        self._inner = inner

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def run(self, feeds):
        start_s = time.perf_counter()
        outputs = self._inner.run(feeds)
        time.sleep(0.3 * (time.perf_counter() - start_s))
        return outputs


def test_a_backend_slowed_behind_the_benchmarks_back_is_caught(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, so the slowdown is large; how 10 % fare is in `alarm_rates.py`."""
    from atrous.runtime.benchmark import run

    opened = run.open_subject

    def open_slowed(spec, *arguments, **words):
        segmenter = opened(spec, *arguments, **words)
        if "stall_ms" in spec.options:
            segmenter.backend = SlowerBackend(segmenter.backend)
        return segmenter

    monkeypatch.setattr(run, "open_subject", open_slowed)
    specs = [parse_subject("fake,delay_ms=20"), parse_subject("fake,delay_ms=20,stall_ms=0")]
    plan = make_plan(bundle, specs=specs, threads=1, amount=Amount(0.0, 12, warmup_s=0.2), pipeline=PipelinePlan(9, 6))
    found = {one.stage: one for one in run_bench(plan).comparisons}
    for stage in ("compute", "pipeline"):
        assert found[stage].verdict == "regression", found[stage].reason
