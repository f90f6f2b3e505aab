from __future__ import annotations

from pathlib import Path

import pytest

from atrous.runtime.benchmark.loadgen import join_queries, parse_summary, read_trace

SUMMARY = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 101.05
Result is : INVALID
  Performance constraints satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
Early Stopping Result:
 * Run unsuccessful.
 * Would need to run at least 405 more queries,
 with the run being successful if every additional
 query were under latency.

================================================
Test Parameters Used
================================================
target_latency (ns): 30000000
"""
TRACE = """\
{"traceEvents":[
{"name":"Latency","ph": "C","pid":1,"ts":160.628,"args":{ "issue_delay":201,"issue_to_done":2146191}},
{"name":"LogDetail","ph":"X","pid":1,"tid":1,"ts":1.5,"dur":1.1,"args":{"key":""loadgen_version""}},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":0,"ts":2000.5,"args":{"sample_seq":1,"query_seq":0,"sample_idx":4,\
"issue_start_ns":300,"complete_ns":9000000}},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":0,"ts":2000.5,"args":{"sample_seq":0,"query_seq":0,"sample_idx":3,\
"issue_start_ns":201,"complete_ns":2146392}},
{"name":"Sample","cat":"default","ph":"e", "pid":1,"id":0,"ts":2307.020},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":0,"ts":-12.250,"args":{"sample_seq":2,"query_seq":1,"sample_idx":0,\
"issue_start_ns":1500000,"complete_ns":4000000}},
"""


def test_a_summary_is_kept_in_its_own_words() -> None:
    summary = parse_summary(SUMMARY)
    assert summary.valid is False
    assert summary.fields["Completed samples per second"] == "101.05"
    assert summary.fields["target_latency (ns)"] == "30000000"
    assert summary.reasons == (
        "Early stopping satisfied: no",
        "Run unsuccessful. Would need to run at least 405 more queries, with the run being successful if every "
        "additional query were under latency.",
    )


def test_no_verdict_is_none_and_valid_has_no_reasons() -> None:
    assert parse_summary("\nNo warnings encountered during test.\n").valid is None
    good = parse_summary("Result is : VALID\n * Processed at least 64 queries (224).\n")
    assert (good.valid, good.reasons) == (True, ())


def test_the_trace_gives_every_sample_from_its_scheduled_moment(tmp_path: Path) -> None:
    (tmp_path / "mlperf_log_trace.json").write_text(TRACE)
    samples = read_trace(tmp_path)
    assert [(one.sequence, one.query, one.image) for one in samples] == [(0, 0, 3), (1, 0, 4), (2, 1, 0)]
    assert samples[0].at_s == pytest.approx(0.0020005)
    assert samples[2].at_s == pytest.approx(-0.00001225)
    assert [one.latency_ms for one in samples] == [2.146392, 9.0, 4.0]
    assert samples[2].issue_delay_ms == 1.5
    queries = join_queries(samples)
    assert [(one.query, one.image, one.latency_ms) for one in queries] == [(0, 3, 9.0), (1, 0, 4.0)]
