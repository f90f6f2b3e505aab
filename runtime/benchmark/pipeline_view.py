"""The pipeline view: the subject's images through `runtime.pipeline`, as `segment` runs them, in measured rounds.

A round takes the same number of images through a pipeline of its own, from a file's bytes in memory to a label file's
bytes; its filling and its draining are part of its time. Subjects take turns, as in the stage view. Each label map is
compared with what the same subject said of the same image alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...errors import BackendError
from ..pictures import encode_label_png
from ..pipeline import ItemResult, Pipeline, PipelineReport, Stage, StageReport
from ..pipeline.segmentation import make_stages
from ..segmenter import Labels, Segmentation, Segmenter
from .canary import Canary
from .clocks import Clock
from .loadgen import Answer, Query, Serve
from .machine_sections import MachineTrace
from .noise import judge_noise
from .results import PipelineStage, PipelineView, StageName, StageView
from .runners import Sample, decode
from .sections import Series
from .statistics import describe_series

ROUNDS = 9  # the fewest in which a drift can be seen
IMAGES_PER_CORE = 12  # of a round: filling and draining, an image long each, then take some percent of it

# which stages of the stage view are the work of a stage of the pipeline
_PARTS: Mapping[str, tuple[StageName, ...]] = {
    "decode": ("decode",),
    "prepare": ("prepare",),
    "network": ("h2d", "compute", "d2h"),
    "crf": ("scores", "crf", "labels"),
    "labels": ("scores", "labels"),
    "encode": ("encode",),
}
_THREADED = ("network", "crf", "labels")  # in the stage view one call of these has all cores


@dataclass(frozen=True)
class PipelinePlan:
    """How much to measure.

    Attributes:
        rounds: at least one.
        images: of a round; None for 12 a core.
    """

    rounds: int = ROUNDS
    images: int | None = None


@dataclass(frozen=True)
class Round:
    """One run of the pipeline.

    Attributes:
        report: of the pipeline.
        agreement: share of pixels labelled as expected.
    """

    report: PipelineReport
    agreement: float


class Runner(Protocol):
    """Something that takes a number of images through a pipeline."""

    @property
    def cores(self) -> int:
        """Cores of the pipeline."""

    def run(self, images: int) -> Round:
        """Take so many images through."""


class PipelineRunner:
    """Takes a segmenter's images through the stages that `atrous segment` uses."""

    def __init__(
        self,
        segmenter: Segmenter,
        samples: Sequence[Sample],
        expected: Sequence[Labels],
        *,
        cores: int,
        clock: Clock,
    ):
        """Join a segmenter loaded with `cores` threads, its images, and the labels they should get."""
        self.cores = cores
        self._samples = samples
        self._expected = expected
        self._clock = clock
        self._stages = make_file_stages(segmenter, samples, cores)

    def run(self, images: int) -> Round:
        """Take so many images through, the samples over and over.

        Raises:
            BackendError: if a stage fails.
        """
        same = seen = 0
        pipeline = Pipeline(self._stages, cores=self.cores, clock=lambda: self._clock.now_ns() / 1e9)
        with pipeline:
            for outcome in pipeline.run(number % len(self._samples) for number in range(images)):
                labels, expected = take_value(outcome), self._expected[outcome.item]
                same += int((labels == expected).sum())
                seen += expected.size
        return Round(pipeline.report(), same / seen)


def make_file_stages(segmenter: Segmenter, samples: Sequence[Sample], cores: int) -> list[Stage]:
    """From an image's number, over its file's bytes and a label file's, to its labels."""
    palette = segmenter.bundle.manifest.palette

    def finish(item: Any, image: Any, result: Segmentation) -> Labels:
        encode_label_png(result.labels, palette)
        return result.labels

    return make_stages(segmenter, read=lambda item: decode(samples[item].encoded), finish=finish, cores=cores)


def serve_through_pipeline(segmenter: Segmenter, samples: Sequence[Sample], cores: int) -> Serve:
    """Answer LoadGen's queries about images in memory by a pipeline, from prepare to labels."""

    def serve(queries: Iterator[Query], answer: Answer) -> None:
        def finish(query: Query, image: Any, result: Segmentation) -> None:
            answer(query, result.labels, sum(result.timings_ms.values()))

        stages = make_stages(segmenter, read=lambda query: samples[query.index].image, finish=finish, cores=cores)
        with Pipeline(stages, cores=cores) as pipeline:
            for outcome in pipeline.run(queries):
                take_value(outcome)

    return serve


def take_value(outcome: ItemResult) -> Any:
    """What became of an item; raises its error where it failed, as a `BackendError` where it is no error of ours."""
    if outcome.error is None:
        return outcome.value
    if isinstance(outcome.error, Exception) and type(outcome.error).__module__.startswith("atrous."):
        raise outcome.error
    raise BackendError(f"the stage {outcome.stage} failed: {outcome.error!r}") from outcome.error


@dataclass
class Rounds:
    """What was measured of one subject."""

    at_s: list[float]
    times_ms: list[float]
    reports: list[PipelineReport]
    agreements: list[float]


def measure_pipelines(
    runners: Sequence[Runner],
    plan: PipelinePlan,
    *,
    clock: Clock,
    begin_ns: int,
    canary: Canary,
    on_round: Callable[[int], None] = lambda rounds: None,
) -> list[Rounds]:
    """Warm each runner up by a third of a round, then measure them in turns.

    Args:
        runners: one a subject.
        plan: how much.
        clock: what times the moments; the rounds are timed by their pipelines.
        begin_ns: the moment that counts as 0.
        canary: sings before each round.
        on_round: is called with 1 after each round, outside of what is timed.
    """
    found = [Rounds([], [], [], []) for _ in runners]
    images = [count_images(plan, runner.cores) for runner in runners]
    for runner, count in zip(runners, images, strict=True):
        runner.run(max(1, count // 3))
    for number in range(plan.rounds):
        for index in canary.take_turns(number, len(runners)):
            at_s = (clock.now_ns() - begin_ns) / 1e9
            done = runners[index].run(images[index])
            found[index].at_s.append(at_s)
            found[index].times_ms.append(1000 * done.report.wall_s / images[index])
            found[index].reports.append(done.report)
            found[index].agreements.append(done.agreement)
        on_round(1)
    return found


def count_images(plan: PipelinePlan, cores: int) -> int:
    """The images of a round."""
    return plan.images or IMAGES_PER_CORE * cores


def describe_pipeline(
    rounds: Rounds, runner: Runner, view: StageView | None, canary: Series | None, trace: MachineTrace | None
) -> PipelineView:
    """The rounds of a subject in the result file's form, beside its stage view."""
    merged = sorted(rounds.reports, key=lambda report: report.wall_s)[len(rounds.reports) // 2]  # the median round
    series = describe_series(rounds.at_s, rounds.times_ms)
    middle = series.quantiles[0]
    rate = 1000 / series.typical_ms
    stages = [_describe_stage(stage, view, runner.cores) for stage in merged.stages]
    return PipelineView(
        images_per_round=rounds.reports[0].items,
        cores=merged.cores,
        network_threads=runner.cores,
        crf_threads=runner.cores,
        time_per_image=series,
        throughput_per_s=round(rate, 6),
        low_per_s=round(1000 / middle.high_ms, 6) if middle.high_ms else None,
        high_per_s=round(1000 / middle.low_ms, 6) if middle.low_ms else None,
        one_by_one_per_s=view.throughput_per_s if view is not None else None,
        overlap=_share(merged.overlap),
        core_share=_share(merged.core_share),
        calls_at_once=round(merged.calls_at_once, 4),
        bounds_per_s={name: round(bound, 6) for name, bound in merged.bounds_per_s.items()},
        limit=merged.limit,
        efficiency=round(merged.efficiency, 4),
        alone_bound_per_s=bound_alone(stages),
        advice=merged.advice,
        agreement=min(1.0, float(np.mean(rounds.agreements))),
        noise=judge_noise(series, None, canary, trace),
        stages=tuple(stages),
    )


def bound_alone(stages: Sequence[PipelineStage]) -> float | None:
    """The rate that the stages' times alone allow, where a device's stage works beside those on the cores.

    On the cores an image costs each stage its share of all of them: together 1 / sum(1 / rate alone). None where all
    work on the cores (that is the rate of one image after the other), or where a stage's time is not known.
    """
    known = [(stage.cores > 0, stage.alone_per_s) for stage in stages if stage.alone_ms is None or stage.alone_ms > 0]
    if any(rate is None for _, rate in known) or all(on_cores for on_cores, _ in known):
        return None
    together = sum(1 / rate for on_cores, rate in known if on_cores and rate)
    bounds = [rate for on_cores, rate in known if not on_cores and rate] + ([1 / together] if together else [])
    return round(min(bounds), 6)


def _describe_stage(stage: StageReport, view: StageView | None, cores: int) -> PipelineStage:
    parts = [view.find_stage(name) for name in _PARTS[stage.name]] if view is not None else []
    found = [part.series for part in parts if part is not None]
    alone_ms = sum(series.typical_ms for series in found) if found else None
    at_once = 1 if stage.name in _THREADED else cores
    return PipelineStage(
        name=stage.name,
        workers=stage.workers,
        most_workers=stage.most_workers,
        max_workers=stage.max_workers,
        cores=stage.cores,
        item_ms=round(stage.item_ms, 6),
        p90_ms=round(stage.p90_ms, 6),
        busy_share=_share(stage.busy_share),
        starved_share=_share(stage.starved_share),
        core_wait_share=_share(stage.core_wait_share),
        blocked_share=_share(stage.blocked_share),
        queue_capacity=stage.queue.capacity,
        queue_mean_depth=round(stage.queue.mean_depth, 4),
        alone_ms=round(alone_ms, 6) if alone_ms is not None else None,
        alone_per_s=round(1000 * at_once / alone_ms, 6) if alone_ms else None,
    )


def _share(value: float) -> float:
    """Within 0 and 1: sums of times may pass an end by a rounding error."""
    return round(min(1.0, max(0.0, value)), 6)
