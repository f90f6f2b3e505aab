"""The load view: LoadGen's scenarios on a segmenter, the throughput-latency curve, the peak under a latency bound.

Each scenario takes the path that production would. SingleStream, MultiStream and Server are calls, an image at a time
in each worker with all threads, since somebody waits for each. Offline is one query of many images for whose order
nobody cares: it goes through the pipeline, where there is one, and so does accuracy mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from ...errors import BackendError
from .clocks import Clock
from .loadgen import FULL_DURATION_S, SEEDS, Labels, LoadOutcome, LoadSettings, Serve, call_one_by_one, run_loadgen
from .loadgen_logs import join_queries
from .results import CurvePoint, LoadRun, Scenario, StageName
from .statistics import describe_series, estimate_quantiles

SCENARIOS: tuple[Scenario, ...] = ("Offline", "SingleStream", "MultiStream", "Server")  # the others guide Server's rate
CURVE_SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.1)  # of the calls' throughput
SERVER_SHARE = 0.7
PEAK_START_SHARE = 0.3
KEPT_UP = 0.95
_MIN_OFFLINE_SAMPLES = 24
_MIN_CURVE_QUERIES = 24
_FULL_OFFLINE_SAMPLES = 24_576

# (words of the summary, unit, divisor), in the order of preference
_METRICS: Mapping[str, tuple[str, str, float]] = {
    "SingleStream": ("90.0th percentile latency (ns)", "ms", 1e6),
    "MultiStream": ("99.0th percentile latency (ns)", "ms", 1e6),
    "Server": ("Completed samples per second", "images/s", 1.0),
    "Offline": ("Samples per second", "images/s", 1.0),
}
_METRIC_NAMES = {
    "SingleStream": "latency_p90",
    "MultiStream": "latency_p99",
    "Server": "completed_qps",
    "Offline": "samples_per_second",
}


@dataclass(frozen=True)
class LoadPlan:
    """Which tests to run.

    Attributes:
        scenarios: in any order; Offline is run first where it is among them.
        duration_s: least duration of each test.
        is_full: MLPerf's own durations and counts instead.
        server_qps: rate of the Server test; None for 70 % of what calls reached: the best scenario of them that was
            measured before it, else the stage view.
        latency_bound_ms: of the Server test, and search the peak under it; None for ten times the closed loop's time,
            and no search.
        has_curve: whether to measure the throughput-latency curve.
        has_accuracy: whether to run accuracy mode.
        samples_per_query: of MultiStream.
        workers: images labelled at once, in calls.
    """

    scenarios: Sequence[Scenario] = SCENARIOS
    duration_s: float = 2.0
    is_full: bool = False
    server_qps: float | None = None
    latency_bound_ms: float | None = None
    has_curve: bool = True
    has_accuracy: bool = True
    samples_per_query: int = 8
    workers: int = 1


@dataclass(frozen=True)
class LoadContext:
    """What the tests need to know of the subject.

    Attributes:
        label: labels image i.
        images: how many there are.
        includes: the stages of a query.
        closed_loop_ms: time of one image after the other, the first guess of a rate.
        judge: labels by image -> (agreement, mIoU) for accuracy mode.
        clock, begin_ns: time axis of the run.
        serve_offline: answers queries through a pipeline; None where Offline is calls, too.
        offline_per_s: the first guess of Offline's rate, where it goes through the pipeline.
    """

    label: Callable[[int], Labels]
    images: int
    includes: tuple[StageName, ...]
    closed_loop_ms: float
    judge: Callable[[Mapping[int, Labels]], tuple[float | None, float | None]]
    clock: Clock
    begin_ns: int
    serve_offline: Serve | None = None
    offline_per_s: float | None = None

    def find_pipeline(self, settings: LoadSettings) -> Serve | None:
        """The pipeline that answers a test, or None where calls do."""
        return self.serve_offline if settings.scenario == "Offline" else None


def measure_load(
    plan: LoadPlan, context: LoadContext, on_step: Callable[[str], None] = lambda step: None
) -> tuple[tuple[LoadRun, ...], tuple[CurvePoint, ...]]:
    """Run the planned tests; returns the runs in the order of `plan.scenarios`, and the curve.

    Raises:
        MissingDependencyError: if mlcommons-loadgen is not installed.
        BackendError: if the segmenter or LoadGen fails.
    """
    rate = 1000 / context.closed_loop_ms * plan.workers
    offline_rate = context.offline_per_s or rate
    runs: dict[str, LoadRun] = {}
    for scenario in sorted(plan.scenarios, key=SCENARIOS.index):
        on_step(f"LoadGen {scenario}")
        guess = offline_rate if scenario == "Offline" else rate
        runs[scenario] = _run(_plan_test(plan, scenario, guess, context.closed_loop_ms), context)
        reached = [run.throughput_per_s for run in runs.values() if run.path == "call" and run.throughput_per_s]
        rate = max(reached, default=rate)
    ordered = [runs[scenario] for scenario in plan.scenarios]
    if plan.has_accuracy and plan.scenarios:
        on_step("LoadGen accuracy mode")
        settings = LoadSettings("Offline", "accuracy", target_qps=offline_rate, workers=plan.workers)
        ordered.append(_run(settings, context))
    if plan.latency_bound_ms is not None and "Server" in plan.scenarios:
        on_step("LoadGen FindPeakPerformance")
        server = _plan_test(plan, "Server", rate, context.closed_loop_ms)
        start_qps = plan.server_qps or rate * PEAK_START_SHARE
        ordered.append(_run(replace(server, mode="find-peak", target_qps=start_qps), context))
    curve = []
    if plan.has_curve and "Server" in plan.scenarios:
        for share in CURVE_SHARES:
            on_step(f"LoadGen Server at {share:.0%} of the throughput")
            server = _plan_test(plan, "Server", rate, context.closed_loop_ms)
            settings = replace(
                server, target_qps=rate * share, min_duration_s=plan.duration_s, min_queries=_MIN_CURVE_QUERIES
            )
            curve.append(_make_point(_run(settings, context), rate * share))
    return tuple(ordered), tuple(curve)


def _plan_test(plan: LoadPlan, scenario: Scenario, rate: float, closed_loop_ms: float) -> LoadSettings:
    target_qps = None
    if scenario == "Server":
        target_qps = plan.server_qps or rate * SERVER_SHARE
    elif scenario == "Offline":
        duration_s = FULL_DURATION_S if plan.is_full else plan.duration_s
        target_qps = max(rate, _MIN_OFFLINE_SAMPLES / max(duration_s, 1e-3) / 1.1)  # LoadGen asks for 10 % more
    is_offline_full = plan.is_full and scenario == "Offline"
    return LoadSettings(
        scenario=scenario,
        min_duration_s=FULL_DURATION_S if plan.is_full else plan.duration_s,
        min_queries=_FULL_OFFLINE_SAMPLES if is_offline_full else 1,
        target_qps=target_qps,
        latency_bound_ms=(plan.latency_bound_ms or 10 * closed_loop_ms) if scenario == "Server" else None,
        samples_per_query=plan.samples_per_query,
        workers=plan.workers,
    )


def _run(settings: LoadSettings, context: LoadContext) -> LoadRun:
    start_s = (context.clock.now_ns() - context.begin_ns) / 1e9
    serve = context.find_pipeline(settings)
    if serve is not None:
        settings = replace(settings, workers=1)
    else:
        serve = call_one_by_one(context.label, context.clock)
    outcome = run_loadgen(settings, serve, context.images, clock=context.clock)
    return describe_run(settings, outcome, context, start_s)


def describe_run(settings: LoadSettings, outcome: LoadOutcome, context: LoadContext, start_s: float) -> LoadRun:
    """A test's outcome in the result file's form; `start_s` is when it began, on the run's time axis.

    Raises:
        BackendError: if LoadGen's summary lacks the scenario's figure.
    """
    agreement = miou = None
    if settings.mode == "accuracy":
        agreement, miou = context.judge(outcome.labels)
    is_traced = settings.mode == "performance"
    queries = outcome.samples if settings.scenario == "Offline" else join_queries(outcome.samples)
    metric = _read_metric(settings, outcome)
    count = len(outcome.samples)
    span_s = max((sample.at_s + sample.latency_ms / 1000 for sample in outcome.samples), default=0.0)
    reached = count / span_s if span_s > 0 and is_traced else None
    if settings.mode == "find-peak":
        reached = metric
    asked = {key: value for key, value in asdict(settings).items() if key not in ("scenario", "mode")}
    if settings.scenario != "MultiStream":
        del asked["samples_per_query"]
    is_piped = context.find_pipeline(settings) is not None
    if is_piped:
        del asked["workers"]
    return LoadRun(
        scenario=settings.scenario,
        mode=settings.mode,
        settings={**asked, "seeds": [str(seed) for seed in SEEDS]},
        includes=context.includes,
        path="pipeline" if is_piped else "call",
        valid=outcome.summary.valid is not False,
        reasons=outcome.summary.reasons,
        metric=_METRIC_NAMES[settings.scenario] if settings.mode != "accuracy" else "agreement",
        metric_unit=_METRICS[settings.scenario][1] if settings.mode != "accuracy" else "",
        metric_value=metric if settings.mode != "accuracy" else agreement,
        latency=describe_series(
            [round(start_s + query.at_s, 6) for query in queries], [query.latency_ms for query in queries]
        )
        if is_traced and queries
        else None,
        issue_delay_ms=tuple(round(query.issue_delay_ms, 6) for query in queries) if is_traced else (),
        service_ms=_sum_service(settings, outcome) if is_traced else (),
        sample_index=tuple(query.index for query in queries) if is_traced else (),
        queries=len(queries),
        duration_s=round(outcome.duration_s, 6),
        throughput_per_s=round(reached, 6) if reached is not None else None,
        summary=outcome.summary.fields,
        agreement=agreement,
        miou=miou,
    )


def _read_metric(settings: LoadSettings, outcome: LoadOutcome) -> float | None:
    if settings.mode == "accuracy":
        return None
    words, _, divisor = _METRICS[settings.scenario]
    text = outcome.summary.fields.get(words)
    if text is None:
        raise BackendError(
            f'LoadGen left no "{words}" ({settings.scenario}, {settings.mode}): its first run may have missed the '
            "latency bound; raise --latency-bound-ms, or lower --server-qps"
        )
    return round(float(text) / divisor, 6)


def _sum_service(settings: LoadSettings, outcome: LoadOutcome) -> tuple[float, ...]:
    """Service time by query, in the order of the queries; empty where LoadGen's order is not the order of arrival."""
    if outcome.arrived != [sample.index for sample in outcome.samples]:
        return ()
    if settings.scenario == "Offline":
        return tuple(round(value, 6) for value in outcome.service_ms)
    by_query: dict[int, list[float]] = {}
    for sample, value_ms in zip(outcome.samples, outcome.service_ms, strict=True):
        by_query.setdefault(sample.query, []).append(value_ms)
    return tuple(round(sum(by_query[query]), 6) for query in sorted(by_query))


def _make_point(run: LoadRun, offered_per_s: float) -> CurvePoint:
    """A point of the curve; whether it kept up is judged by the arrivals there were, which are Poisson's, not even."""
    assert run.latency is not None
    span_s = max(run.latency.at_s) - min(run.latency.at_s)
    arrived_per_s = run.queries / span_s if span_s > 0 else offered_per_s
    completed = run.throughput_per_s or 0.0
    return CurvePoint(
        offered_per_s=round(offered_per_s, 6),
        completed_per_s=round(completed, 6),
        kept_up=completed >= KEPT_UP * min(arrived_per_s, offered_per_s),
        quantiles=estimate_quantiles(np.asarray(run.latency.values_ms)),
        queries=run.queries,
    )
