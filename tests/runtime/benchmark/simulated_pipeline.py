"""Rounds of a pipeline on simulated time, and results made of them."""

from __future__ import annotations

import numpy as np

from atrous.runtime.benchmark.results import BenchResult, PipelineView, StageView
from atrous.runtime.benchmark.rounds import describe_pipeline, measure_pipelines
from atrous.runtime.benchmark.timing import Canary
from atrous.runtime.pipeline import PipelineReport

from ..pipeline.reports import make_report, make_stage
from .simulation import SimulatedClock, make_result, make_subject, plan_for


class SimulatedPipeline:
    """A subject whose rounds take the given times, on a simulated clock."""

    cores = 2

    def __init__(self, clock: SimulatedClock, image_ms: list[float], log: list[str], name: str):
        self._clock, self._image_ms, self._log, self._name = clock, iter(image_ms), log, name

    def run_pipeline(self, images: int) -> tuple[PipelineReport, float]:
        self._log.append(f"{self._name}{images}")
        wall_s = next(self._image_ms) * images / 1000
        self._clock.sleep_ns(int(wall_s * 1e9))
        return make_simulated_report(wall_s, images), 1.0


def make_simulated_report(wall_s: float, images: int) -> PipelineReport:
    times = {"decode": 2.0, "prepare": 0.1, "network": 30.0, "crf": 60.0, "encode": 1.0}
    stages = (make_stage(name, ms, items=images, workers=1.0, busy=0.5) for name, ms in times.items())
    return make_report(wall_s, images, *stages)


def describe_rounds(view: StageView) -> PipelineView:
    clock = SimulatedClock()
    runner = SimulatedPipeline(clock, [50.0] * 10, [], "")
    canary = Canary(clock, work=lambda: None)
    (rounds,) = measure_pipelines(plan_for(), [runner], clock=clock, canary=canary)
    return describe_pipeline(rounds, runner, view, None, None)


def make_piped(image_ms: np.ndarray) -> BenchResult:
    view = describe_rounds(make_subject(image_ms).stages)
    series = make_subject(image_ms).stages.stages[0].series
    quiet = view.noise.model_copy(update={"conclusive": True})
    piped = view.model_copy(update={"time_per_image": series, "noise": quiet})
    return make_result(make_subject(np.linspace(99, 101, 40), pipeline=piped))
