"""Reports of pipelines as a test says."""

from __future__ import annotations

from atrous.runtime.pipeline import PipelineReport, QueueReport, StageReport

QUEUE = QueueReport(capacity=4, mean_depth=1.0, most=3, waiting_share=0.5)


def make_stage(name: str, item_ms: float, *, items: int, workers: float, busy: float, cores: int = 1) -> StageReport:
    return StageReport(
        name=name,
        workers=workers,
        most_workers=2,
        max_workers=2,
        cores=cores,
        items=items,
        failures=1,
        item_ms=item_ms,
        p50_ms=item_ms,
        p90_ms=item_ms * 2,
        p99_ms=item_ms * 3,
        cpu_ms=item_ms,
        busy_share=busy,
        starved_share=1 - busy,
        core_wait_share=0.0,
        blocked_share=0.0,
        queue=QUEUE,
    )


def make_report(wall_s: float, items: int, *stages: StageReport) -> PipelineReport:
    return PipelineReport(
        items=items,
        failed=0,
        wall_s=wall_s,
        rate_per_s=items / wall_s,
        cores=2,
        core_share=0.5 if wall_s == 1 else 0.8,
        calls_at_once=1.0,
        overlap=0.3,
        most_alive=items,
        max_alive=30,
        bounds_per_s={},
        limit="",
        efficiency=0.0,
        advice=(),
        stages=stages,
    )
