"""Several runs as one report: against averages reckoned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atrous.runtime.pipeline import Stage, merge_reports, run_pipeline

from .reports import make_report, make_stage


def test_averages_are_weighted_by_what_they_are_averages_of() -> None:
    first = make_report(1.0, 10, make_stage("a", 50.0, items=10, workers=2.0, busy=0.25))
    second = make_report(3.0, 40, make_stage("a", 100.0, items=40, workers=1.0, busy=1.0))
    merged = merge_reports([first, second], {"a": "patience"})
    (stage,) = merged.stages
    assert (merged.items, merged.wall_s, merged.rate_per_s) == (50, 4.0, 12.5)
    assert merged.core_share == pytest.approx((0.5 * 1 + 0.8 * 3) / 4)
    assert (merged.most_alive, merged.max_alive) == (40, 30)
    assert stage.item_ms == pytest.approx((50 * 10 + 100 * 40) / 50)  # 90 ms
    assert stage.workers == pytest.approx((2 * 1 + 1 * 3) / 4)
    assert stage.busy_share == pytest.approx((0.25 * 2 + 1.0 * 3) / 5)  # of 2 and 3 seconds of workers
    assert (stage.items, stage.failures, stage.p90_ms) == (50, 2, 150.0)
    # two cores, 90 ms an item: 22.2 a second, of which 12.5 were reached
    assert merged.bounds_per_s["cores"] == pytest.approx(2 / 0.090)
    assert merged.efficiency == pytest.approx(12.5 * 0.090 / 2)
    assert merged.advice[-1] == "what helps: patience"


def test_one_run_stays_what_it_was() -> None:
    stages = [Stage("double", lambda value: 2 * value, hint="half the work"), Stage("halve", lambda value: value / 2)]
    _, report = run_pipeline(stages, range(50), cores=2)
    merged = merge_reports([report], {"double": "half the work", "halve": ""})
    for found, told in zip(merged.stages, report.stages, strict=True):
        assert found.busy_share == pytest.approx(told.busy_share)
        assert replace(
            found, busy_share=0, starved_share=0, core_wait_share=0, blocked_share=0, item_ms=0, cpu_ms=0
        ) == (replace(told, busy_share=0, starved_share=0, core_wait_share=0, blocked_share=0, item_ms=0, cpu_ms=0))
    assert (merged.limit, merged.advice) == (report.limit, report.advice)
    assert merged.efficiency == pytest.approx(report.efficiency)
    assert merged.bounds_per_s == pytest.approx(dict(report.bounds_per_s))
