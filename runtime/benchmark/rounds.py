"""The stage view and the pipeline view: rounds in which the subjects take turns.

Stage view: images one after the other, each stage timed; each round gives the same image to all subjects. Pipeline
view: each round runs the same number of images side by side through a pipeline of its own; filling and draining count,
and each label map is compared with that of the same subject and image alone. The first subject changes from round to
round, so that machine-wide slowdowns affect all alike, and the canary is timed before each round. No sample is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..pipeline import PipelineReport, StageReport
from .noise import judge_noise
from .plan import STAGES, BenchPlan, StageName
from .results import MachineTrace, PipelineStage, PipelineView, Series, Stage, StageView, Warmup, copy_fields
from .statistics import Samples
from .system import System
from .timing import Canary, Clock, warm_up

DEVICE_STAGES = ("h2d", "compute", "d2h")  # timed by events of the device, where it has them
IMAGES_PER_CORE = 12  # in a round of the pipeline: filling and draining, one image each, take a few percent of it
MAX_ROUNDS = 100_000
# stages of the stage view that do the work of a stage of the pipeline
_PARTS: Mapping[str, tuple[str, ...]] = {
    "decode": ("decode",),
    "prepare": ("prepare",),
    "network": ("h2d", "compute", "d2h"),
    "crf": ("scores", "crf", "labels"),
    "labels": ("scores", "labels"),
    "encode": ("encode",),
}


@dataclass
class PipelineRounds:
    """The rounds of one subject: time per image, the pipeline's reports, shares of equal pixels."""

    samples: Samples = field(default_factory=Samples)
    reports: list[PipelineReport] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)


def measure_stages(plan: BenchPlan, systems: Sequence[System], *, clock: Clock, canary: Canary) -> list[StageView]:
    """Warm each system up, then measure them in turns; sample i of each view was taken in round i."""
    warmups = [_warm_up(plan, system, clock) for system in systems]
    samples: list[dict[StageName, Samples]] = [{} for _ in systems]
    limit_ns = clock.now_ns() + int(plan.duration_s * 1e9)
    most = plan.max_samples or MAX_ROUNDS
    rounds = 0
    while rounds < most and (rounds < plan.min_samples or clock.now_ns() < limit_ns):
        for index in canary.take_turns(rounds, len(systems)):
            start_ns = clock.now_ns()
            timings_ms = dict(systems[index].time_stages(rounds % len(plan.samples)))
            timings_ms["end_to_end"] = (clock.now_ns() - start_ns) / 1e6
            for name, value_ms in timings_ms.items():
                samples[index].setdefault(name, Samples()).add(start_ns / 1e9, value_ms)
        rounds += 1
    return [_describe_stages(*parts) for parts in zip(systems, warmups, samples, strict=True)]


def measure_pipelines(
    plan: BenchPlan, systems: Sequence[System], *, clock: Clock, canary: Canary
) -> list[PipelineRounds]:
    """Warm each system's pipeline up by a third of a round, then measure them in turns."""
    found = [PipelineRounds() for _ in systems]
    images = [plan.pipeline_images or IMAGES_PER_CORE * system.cores for system in systems]
    for system, count in zip(systems, images, strict=True):
        system.run_pipeline(max(1, count // 3))
    for number in range(plan.pipeline_rounds):
        for index in canary.take_turns(number, len(systems)):
            at_s = clock.now_s()
            report, agreement = systems[index].run_pipeline(images[index])
            found[index].samples.add(at_s, 1000 * report.wall_s / images[index])
            found[index].reports.append(report)
            found[index].agreements.append(agreement)
    return found


def describe_pipeline(
    rounds: PipelineRounds, system: System, view: StageView, canary: Series | None, trace: MachineTrace | None
) -> PipelineView:
    """Describe a subject's rounds for the result file, with its stage view as the comparison."""
    merged = sorted(rounds.reports, key=lambda report: report.wall_s)[len(rounds.reports) // 2]  # the median round
    series = rounds.samples.describe()
    median = series.quantiles[0]
    fields = {
        **copy_fields(merged, PipelineView),
        "overlap": min(1.0, merged.overlap),
        "core_share": min(1.0, merged.core_share),
        "bounds_per_s": dict(merged.bounds_per_s),
        "stages": tuple(_describe_stage(stage, view) for stage in merged.stages),
    }
    return PipelineView(
        **fields,
        images_per_round=rounds.reports[0].items,
        network_threads=system.cores,
        crf_threads=system.cores,
        time_per_image=series,
        throughput_per_s=1000 / series.typical_ms,
        low_per_s=1000 / median.high_ms if median.high_ms else None,
        high_per_s=1000 / median.low_ms if median.low_ms else None,
        one_by_one_per_s=view.throughput_per_s,
        agreement=min(1.0, float(np.mean(rounds.agreements))),
        noise=judge_noise(series, None, canary, trace),
    )


def _warm_up(plan: BenchPlan, system: System, clock: Clock) -> Warmup:
    counter = iter(range(1 << 62))
    return warm_up(lambda: system.time_stages(next(counter) % len(plan.samples)), clock, max_duration_s=plan.warmup_s)


def _describe_stages(system: System, warmup: Warmup, samples: Mapping[StageName, Samples]) -> StageView:
    stages = [
        Stage(
            name=name,
            clock="cuda-events" if system.has_device_events and name in DEVICE_STAGES else "monotonic",
            series=samples[name].describe(),
        )
        for name in STAGES
        if name in samples
    ]
    whole_ms = samples["end_to_end"].values_ms
    rate = 1000 * len(whole_ms) / max(sum(whole_ms), 1e-9)
    return StageView(
        warmup=warmup, stages=tuple(stages), absent=system.absent, images=len(whole_ms), throughput_per_s=rate
    )


def _describe_stage(stage: StageReport, view: StageView) -> PipelineStage:
    parts = [view.find_stage(name) for name in _PARTS[stage.name]]
    known_ms = [part.series.typical_ms for part in parts if part is not None]
    return PipelineStage(
        **copy_fields(stage, PipelineStage),
        queue_capacity=stage.queue.capacity,
        queue_mean_depth=stage.queue.mean_depth,
        alone_ms=sum(known_ms) if known_ms else None,
    )
