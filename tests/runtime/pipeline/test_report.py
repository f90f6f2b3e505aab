"""Bounds, limit and advice by arithmetic."""

from __future__ import annotations

import json

import pytest

from atrous.runtime.pipeline import StageReport
from atrous.runtime.pipeline.report import CORES

from .reports import make_report, make_stage


def advise(cores: int, *stages: StageReport) -> tuple[str, ...]:
    return make_report(1.0, 10, *stages, cores=cores).advice


def test_the_cores_are_the_limit() -> None:
    """5 + 20 + 95 + 8 ms on 2 cores: 2 / 0.128 s = 15.6 a second."""
    stages = [make_stage(name, ms) for name, ms in (("decode", 5), ("network", 20), ("crf", 95), ("encode", 8))]
    report = make_report(1.0, 10, *stages)
    assert report.limit == CORES
    assert report.bounds_per_s[CORES] == pytest.approx(15.625)
    assert report.bounds_per_s["crf"] == pytest.approx(64 / 0.095)
    assert report.rate_per_s == 10
    assert report.efficiency == pytest.approx(10 / 15.625)
    assert report.core_share == pytest.approx(10 * 0.128 / 2)


def test_a_device_is_the_limit() -> None:
    """A GPU of 40 ms with one worker gives 25 a second."""
    stages = make_stage("decode", 5), make_stage("network", 40, cores=0, most=1), make_stage("crf", 95)
    report = make_report(1.0, 10, *stages, cores=16)
    assert (report.limit, report.bounds_per_s["network"]) == ("network", pytest.approx(25))


def test_a_call_on_several_cores() -> None:
    report = make_report(1.0, 10, make_stage("network", 50, cores=4), make_stage("crf", 100), cores=4)
    assert report.bounds_per_s[CORES] == pytest.approx(4 / 0.3)


def test_a_stage_that_takes_no_time() -> None:
    report = make_report(1.0, 10, make_stage("a", 0), make_stage("b", 10), cores=1)
    assert dict(report.bounds_per_s) == {"b": pytest.approx(6400), CORES: pytest.approx(100)}
    empty = make_report(0.0, 0, make_stage("a", 0))
    assert (empty.limit, empty.efficiency, empty.advice, empty.rate_per_s) == ("", 0, (), 0)
    assert empty.describe_limit() == "no items"


def test_advice_names_the_bottleneck_and_the_next_limit() -> None:
    network = make_stage("network", 3.1, cores=0, most=1)
    assert advise(2, network, make_stage("crf", 95, most=1, hint="more cores")) == (
        "the bottleneck is crf: 95 ms an item with 1 worker",
        "the next limit is network: 323 a second",
        "what helps: more cores",
    )
    assert advise(2, make_stage("decode", 5), make_stage("crf", 20)) == (
        "the bottleneck is crf: 20 ms an item, 80% of the work, and all 2 cores are busy",
    )
    assert advise(1, make_stage("decode", 5))[0].endswith("and the core is busy")
    assert advise(4, make_stage("network", 400, cores=0, most=2), make_stage("crf", 5)) == (
        "the bottleneck is network: 400 ms an item with 2 workers",
        "the next limit is cores: 800 a second",
    )


def test_json_and_table() -> None:
    report = make_report(2.0, 30, make_stage("decode", 5), make_stage("crf", 20, busy=0.25))
    plain = json.loads(json.dumps(report.to_json()))
    assert (plain["schema_version"], plain["rate_per_s"], plain["limit"]) == (1, 15.0, CORES)
    assert [stage["name"] for stage in plain["stages"]] == ["decode", "crf"]
    lines = report.describe().splitlines()
    assert lines[0].split()[:4] == ["stage", "ms", "p90", "workers"]
    assert lines[2].split() == ["crf", "20.0", "40.0", "1.0", "25%", "75%", "0%", "0%", "1.0", "of", "4"]
    assert lines[3].startswith("15.0 a second, stages overlapped 30% of the time; the bottleneck is crf")
