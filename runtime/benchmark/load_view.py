"""The load view: LoadGen's scenarios and the throughput-latency curve.

Each scenario takes the path of production. SingleStream, MultiStream and Server are calls, one image at a time per
worker with all threads, because each answer is awaited. Offline, one query of many images in any order, goes through
the pipeline if there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from ...errors import BackendError
from .loadgen import FULL_DURATION_S, SEEDS, LoadOutcome, LoadSettings, call_one_by_one, join_queries, run_loadgen
from .plan import BenchPlan, Scenario, StageName
from .results import CurvePoint, LoadRun
from .statistics import describe_series, estimate_quantiles
from .system import System
from .timing import Clock

CURVE_SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.1)  # of the calls' throughput
SERVER_SHARE = 0.7
KEPT_UP_SHARE = 0.95
_ORDER: tuple[Scenario, ...] = ("Offline", "SingleStream", "MultiStream", "Server")  # Server's rate follows from others
_MIN_OFFLINE_SAMPLES = 24
_MIN_CURVE_QUERIES = 24
_FULL_OFFLINE_SAMPLES = 24_576


class _Metric(NamedTuple):
    name: str
    key: str  # in LoadGen's summary
    unit: str
    divisor: float = 1.0


_METRICS = {
    "SingleStream": _Metric("latency_p90", "90.0th percentile latency (ns)", "ms", 1e6),
    "MultiStream": _Metric("latency_p99", "99.0th percentile latency (ns)", "ms", 1e6),
    "Server": _Metric("completed_qps", "Completed samples per second", "images/s"),
    "Offline": _Metric("samples_per_second", "Samples per second", "images/s"),
}


@dataclass(frozen=True)
class LoadContext:
    """The system under load."""

    system: System
    clock: Clock
    includes: tuple[StageName, ...]  # stages of a query
    closed_loop_ms: float  # time of one image after the other, the first estimate of a rate
    offline_per_s: float | None = None  # rate of the pipeline; None: Offline is calls, too

    def is_piped(self, settings: LoadSettings) -> bool:
        """Whether the pipeline answers a test."""
        return settings.scenario == "Offline" and self.offline_per_s is not None


def measure_load(
    plan: BenchPlan, context: LoadContext, on_step: Callable[[str], None] = lambda step: None
) -> tuple[tuple[LoadRun, ...], tuple[CurvePoint, ...]]:
    """Run the planned tests; returns the runs in the order of `plan.scenarios`, and the curve.

    Raises:
        MissingDependencyError: if mlcommons-loadgen is not installed.
        BackendError: if the subject or LoadGen fails.
    """
    rate = 1000 / context.closed_loop_ms * plan.workers
    runs: dict[str, LoadRun] = {}
    for scenario in sorted(plan.scenarios, key=_ORDER.index):
        on_step(f"LoadGen {scenario}")
        runs[scenario] = _run(_plan_test(plan, scenario, rate, context), context)
        reached = [run.throughput_per_s for run in runs.values() if run.path == "call" and run.throughput_per_s]
        rate = max(reached, default=rate)
    ordered = [runs[scenario] for scenario in plan.scenarios]
    if "Server" not in plan.scenarios:
        return tuple(ordered), ()
    server = _plan_test(plan, "Server", rate, context)
    points = []
    short = replace(server, min_duration_s=plan.load_duration_s, min_queries=_MIN_CURVE_QUERIES)
    for offered in [rate * share for share in CURVE_SHARES] if plan.curve else []:
        on_step(f"LoadGen Server at {offered:.3g} images/s")
        points.append(_make_point(_run(replace(short, target_qps=offered), context), offered))
    return tuple(ordered), tuple(points)


def _plan_test(plan: BenchPlan, scenario: Scenario, rate: float, context: LoadContext) -> LoadSettings:
    settings = LoadSettings(
        scenario,
        min_duration_s=FULL_DURATION_S if plan.full else plan.load_duration_s,
        samples_per_query=plan.samples_per_query,
        workers=plan.workers,
    )
    if scenario == "Server":
        bound_ms = plan.latency_bound_ms or 10 * context.closed_loop_ms
        return replace(settings, target_qps=plan.server_qps or rate * SERVER_SHARE, latency_bound_ms=bound_ms)
    if scenario == "Offline":
        least = _MIN_OFFLINE_SAMPLES / max(settings.min_duration_s, 1e-3) / 1.1  # LoadGen asks for 10 % more
        return replace(
            settings,
            min_queries=_FULL_OFFLINE_SAMPLES if plan.full else 1,
            target_qps=max(context.offline_per_s or rate, least),
            workers=1 if context.is_piped(settings) else plan.workers,
        )
    return settings


def _run(settings: LoadSettings, context: LoadContext) -> LoadRun:
    start_s = context.clock.now_s()
    system = context.system
    serve = system.serve if context.is_piped(settings) else call_one_by_one(system.label, context.clock)
    return describe_run(settings, run_loadgen(settings, serve, system.images, clock=context.clock), context, start_s)


def describe_run(settings: LoadSettings, outcome: LoadOutcome, context: LoadContext, start_s: float) -> LoadRun:
    """Describe a test for the result file; `start_s` is when it began.

    Raises:
        BackendError: if LoadGen's summary lacks the scenario's metric.
    """
    metric = _METRICS[settings.scenario]
    if metric.key not in outcome.summary.fields:
        raise BackendError(
            f'LoadGen reported no "{metric.key}" in {settings.scenario}: its first run may have missed the latency '
            "bound; raise --latency-bound-ms, or lower --server-qps"
        )
    value = float(outcome.summary.fields[metric.key]) / metric.divisor
    queries = outcome.samples if settings.scenario == "Offline" else join_queries(outcome.samples)
    span_s = max((sample.at_s + sample.latency_ms / 1000 for sample in outcome.samples), default=0.0)
    reached = len(outcome.samples) / span_s if span_s > 0 else None
    is_piped = context.is_piped(settings)
    asked = {"seeds": [str(seed) for seed in SEEDS], **asdict(settings)}
    unused = {"scenario"} | ({"workers"} if is_piped else set())
    unused |= {"samples_per_query"} if settings.scenario != "MultiStream" else set()
    return LoadRun(
        scenario=settings.scenario,
        mode="performance",
        settings={name: value for name, value in asked.items() if name not in unused},
        includes=context.includes,
        path="pipeline" if is_piped else "call",
        valid=outcome.summary.valid is not False,
        reasons=outcome.summary.reasons,
        metric=metric.name,
        metric_unit=metric.unit,
        metric_value=value,
        latency=describe_series([start_s + query.at_s for query in queries], [query.latency_ms for query in queries])
        if queries
        else None,
        issue_delay_ms=tuple(query.issue_delay_ms for query in queries),
        service_ms=_sum_service(settings, outcome),
        sample_index=tuple(query.image for query in queries),
        queries=len(queries),
        duration_s=outcome.duration_s,
        throughput_per_s=reached,
        summary=outcome.summary.fields,
    )


def _sum_service(settings: LoadSettings, outcome: LoadOutcome) -> tuple[float, ...]:
    """Service time by query, in the order of the queries; empty where LoadGen's order is not the order of arrival."""
    if outcome.arrived != [sample.image for sample in outcome.samples]:
        return ()
    if settings.scenario == "Offline":
        return tuple(outcome.service_ms)
    by_query: dict[int, float] = {}
    for sample, service_ms in zip(outcome.samples, outcome.service_ms, strict=True):
        by_query[sample.query] = by_query.get(sample.query, 0.0) + service_ms
    return tuple(by_query[query] for query in sorted(by_query))


def _make_point(run: LoadRun, offered_per_s: float) -> CurvePoint:
    """A point of the curve; it kept up if it completed the actual Poisson arrivals."""
    assert run.latency is not None
    span_s = max(run.latency.at_s) - min(run.latency.at_s)
    arrived_per_s = run.queries / span_s if span_s > 0 else offered_per_s
    completed = run.throughput_per_s or 0.0
    return CurvePoint(
        offered_per_s=offered_per_s,
        completed_per_s=completed,
        kept_up=completed >= KEPT_UP_SHARE * min(arrived_per_s, offered_per_s),
        quantiles=estimate_quantiles(np.asarray(run.latency.values_ms)),
        queries=run.queries,
    )
