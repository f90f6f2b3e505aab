"""Several runs of the same stages as one report: what a benchmark of rounds tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from .planner import StageLoad, plan_workers
from .report import PipelineReport, QueueReport, StageReport, advise, find_bounds


def merge_reports(reports: Sequence[PipelineReport], hints: Mapping[str, str] | None = None) -> PipelineReport:
    """One report of several runs, at least one, of the same stages on the same cores.

    Times an item are averaged by items, shares by the time they are shares of; quantiles are the median of the runs'.
    `hints` are the stages' own, by name.
    """
    first = reports[0]
    wall_s = sum(report.wall_s for report in reports)
    items = sum(report.items for report in reports)
    stages = tuple(_merge_stage(reports, index) for index in range(len(first.stages)))
    loads = [StageLoad(stage.name, stage.item_ms / 1000, stage.cores, stage.max_workers) for stage in stages]
    plan = plan_workers(loads, first.cores)
    rate = _share(items, wall_s)

    def average(read: Callable[[PipelineReport], float]) -> float:
        return _average([(read(report), report.wall_s) for report in reports])

    return PipelineReport(
        items=items,
        failed=sum(report.failed for report in reports),
        wall_s=wall_s,
        rate_per_s=rate,
        cores=first.cores,
        core_share=average(lambda report: report.core_share),
        calls_at_once=average(lambda report: report.calls_at_once),
        overlap=average(lambda report: report.overlap),
        most_alive=max(report.most_alive for report in reports),
        max_alive=first.max_alive,
        bounds_per_s=find_bounds(loads, first.cores),
        limit=plan.limit,
        efficiency=_share(rate, plan.rate_per_s),
        advice=advise(loads, first.cores, hints),
        stages=stages,
    )


def _merge_stage(reports: Sequence[PipelineReport], index: int) -> StageReport:
    stages = [report.stages[index] for report in reports]
    walls_s = [report.wall_s for report in reports]
    first = stages[0]

    def by_items(read: Callable[[StageReport], float]) -> float:
        return _average([(read(stage), stage.items) for stage in stages])

    def by_workers(read: Callable[[StageReport], float]) -> float:
        weights = [stage.workers * wall_s for stage, wall_s in zip(stages, walls_s, strict=True)]
        return _average(list(zip(map(read, stages), weights, strict=True)))

    def by_time(read: Callable[[StageReport], float]) -> float:
        return _average(list(zip(map(read, stages), walls_s, strict=True)))

    return StageReport(
        name=first.name,
        workers=round(by_time(lambda stage: stage.workers), 3),
        most_workers=max(stage.most_workers for stage in stages),
        max_workers=first.max_workers,
        cores=first.cores,
        items=sum(stage.items for stage in stages),
        failures=sum(stage.failures for stage in stages),
        item_ms=by_items(lambda stage: stage.item_ms),
        p50_ms=median(stage.p50_ms for stage in stages),
        p90_ms=median(stage.p90_ms for stage in stages),
        p99_ms=median(stage.p99_ms for stage in stages),
        cpu_ms=by_items(lambda stage: stage.cpu_ms),
        busy_share=by_workers(lambda stage: stage.busy_share),
        starved_share=by_workers(lambda stage: stage.starved_share),
        core_wait_share=by_workers(lambda stage: stage.core_wait_share),
        blocked_share=by_workers(lambda stage: stage.blocked_share),
        queue=QueueReport(
            first.queue.capacity,
            by_time(lambda stage: stage.queue.mean_depth),
            max(stage.queue.most for stage in stages),
            by_time(lambda stage: stage.queue.waiting_share),
        ),
    )


def _average(weighted: Sequence[tuple[float, float]]) -> float:
    return _share(sum(value * weight for value, weight in weighted), sum(weight for _, weight in weighted))


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
