"""Reports with given figures, and a pipeline run in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from atrous.runtime.pipeline import ItemResult, Pipeline, PipelineReport, QueueReport, Stage, StageReport

QUEUE = QueueReport(capacity=4, mean_depth=1.0, most=3)


def run_pipeline(
    stages: Sequence[Stage], items: Iterable[Any], **options: Any
) -> tuple[list[ItemResult], PipelineReport]:
    with Pipeline(stages, **options) as pipeline:
        results = list(pipeline.run(items))
    return results, pipeline.report()


def make_stage(
    name: str,
    item_ms: float,
    *,
    items: int = 10,
    workers: float = 1.0,
    busy: float = 0.5,
    cores: int = 1,
    most: int = 64,
    hint: str = "",
) -> StageReport:
    return StageReport(
        name=name,
        workers=workers,
        most_workers=2,
        max_workers=most,
        cores=cores,
        items=items,
        failures=1,
        item_ms=item_ms,
        p90_ms=item_ms * 2,
        core_ms=item_ms * cores,
        busy_share=busy,
        starved_share=1 - busy,
        core_wait_share=0.0,
        blocked_share=0.0,
        queue=QUEUE,
        hint=hint,
    )


def make_report(wall_s: float, items: int, *stages: StageReport, cores: int = 2) -> PipelineReport:
    return PipelineReport(
        items=items,
        failed=0,
        wall_s=wall_s,
        cores=cores,
        overlap=0.3,
        most_alive=items,
        max_alive=30,
        stages=stages,
    )
