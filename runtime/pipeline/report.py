"""What a run was: rates, busy shares, queues, overlap, the limit, and what would move it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .planner import CORES, StageLoad, plan_workers

if TYPE_CHECKING:
    from .lane import Lane

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class QueueReport:
    """The queue before a stage.

    Attributes:
        capacity: its places.
        mean_depth: how many waited in it, averaged over time.
        most: the largest depth.
        waiting_share: the share of the time in which something waited in it.
    """

    capacity: int
    mean_depth: float
    most: int
    waiting_share: float


@dataclass(frozen=True)
class StageReport:
    """One stage.

    Attributes:
        name: the stage.
        workers: how many it had, averaged over time.
        most_workers: how many it had at most.
        max_workers: how many it may have.
        cores: how many cores a call holds.
        items: how many it finished.
        failures: how many of its calls failed.
        item_ms: milliseconds an item, on average, in a worker that had its cores.
        p50_ms, p90_ms, p99_ms: quantiles of the same, to 1 %.
        cpu_ms: processor time of the calling thread an item.
        busy_share, starved_share, core_wait_share, blocked_share: what its workers' time went to: calls; waiting for
            input, for a core, for room in the next queue.
        queue: the queue before it.
    """

    name: str
    workers: float
    most_workers: int
    max_workers: int
    cores: int
    items: int
    failures: int
    item_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_ms: float
    busy_share: float
    starved_share: float
    core_wait_share: float
    blocked_share: float
    queue: QueueReport


@dataclass(frozen=True)
class PipelineReport:
    """A whole run, or one so far.

    Attributes:
        items: how many outcomes were given out.
        failed: how many of them failed.
        wall_s: seconds since the start.
        rate_per_s: outcomes a second.
        cores: cores that the stages shared.
        core_share: the share of the cores' time that calls held.
        calls_at_once: how many calls were at work, averaged over time.
        overlap: the share of the time in which two or more stages were at work.
        most_alive, max_alive: items between the iterable and the caller: the most there were, the most there may be.
        bounds_per_s: by stage, and for "cores", the rate above which it cannot go with these call times.
        limit: which of the bounds is the smallest.
        efficiency: the rate as a share of that bound.
        advice: what would move the limit, one sentence each.
        stages: the stages in order.
    """

    items: int
    failed: int
    wall_s: float
    rate_per_s: float
    cores: int
    core_share: float
    calls_at_once: float
    overlap: float
    most_alive: int
    max_alive: int
    bounds_per_s: Mapping[str, float]
    limit: str
    efficiency: float
    advice: tuple[str, ...]
    stages: tuple[StageReport, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    def rows(self) -> list[tuple[object, ...]]:
        """A row a stage for a table under `COLUMNS`."""
        return [
            (
                stage.name,
                f"{stage.item_ms:.1f}",
                f"{stage.p90_ms:.1f}",
                f"{stage.workers:.1f}" if stage.workers % 1 else f"{stage.workers:.0f}",
                f"{stage.busy_share:.0%}",
                f"{stage.starved_share:.0%}",
                f"{stage.core_wait_share:.0%}",
                f"{stage.blocked_share:.0%}",
                f"{stage.queue.mean_depth:.1f} of {stage.queue.capacity}",
            )
            for stage in self.stages
        ]

    def describe(self) -> str:
        """A few lines for a person."""
        table = [COLUMNS, *self.rows()]
        widths = [max(len(str(row[column])) for row in table) for column in range(len(COLUMNS))]
        lines = [
            "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        return "\n".join([*lines, self.describe_limit()])

    def describe_limit(self) -> str:
        """One line: the rate, the overlap, the limit and what would move it."""
        if not self.items:
            return "nothing was done"
        return f"{self.rate_per_s:.1f} a second, stages overlapped {self.overlap:.0%} of the time; " + ". ".join(
            self.advice
        )


COLUMNS = ("stage", "ms", "p90", "workers", "busy", "no input", "no core", "blocked", "queue before")


def write_report(
    lanes: Sequence[Lane],
    *,
    cores: int,
    wall_s: float,
    now_s: float,
    items: int,
    failed: int,
    most_alive: int,
    max_alive: int,
    calls_at_once: float,
    overlapped_s: float,
) -> PipelineReport:
    """Draw up a report from the meters of the lanes; `calls_at_once` is an integral over time."""
    stages = tuple(_report_stage(lane, now_s, wall_s) for lane in lanes)
    held_s = sum(lane.meter.busy.integral_s(now_s) * lane.stage.cores for lane in lanes)
    rate = items / wall_s if wall_s > 0 else 0.0
    loads = [StageLoad(stage.name, stage.item_ms / 1000, stage.cores, stage.max_workers) for stage in stages]
    plan = plan_workers(loads, cores)
    hints = {lane.stage.name: lane.stage.hint for lane in lanes}
    return PipelineReport(
        items=items,
        failed=failed,
        wall_s=wall_s,
        rate_per_s=rate,
        cores=cores,
        core_share=_share(held_s, wall_s * cores),
        calls_at_once=_share(calls_at_once, wall_s),
        overlap=_share(overlapped_s, wall_s),
        most_alive=most_alive,
        max_alive=max_alive,
        bounds_per_s=find_bounds(loads, cores),
        limit=plan.limit,
        efficiency=_share(rate, plan.rate_per_s),
        advice=advise(loads, cores, hints),
        stages=stages,
    )


def find_bounds(loads: Sequence[StageLoad], cores: int) -> dict[str, float]:
    """The rate above which each stage, and the cores together, cannot go; what costs nothing sets no bound."""
    bounds = {load.name: load.max_workers / load.item_s for load in loads if load.item_s > 0}
    core_s = sum(load.item_s * load.cores for load in loads)
    return {**bounds, CORES: cores / core_s} if core_s > 0 else bounds


def advise(loads: Sequence[StageLoad], cores: int, hints: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Say what the limit is and what would move it."""
    busy = [load for load in loads if load.item_s > 0]
    if not busy:
        return ()
    limit = plan_workers(busy, cores).limit
    core_s = sum(load.item_s * load.cores for load in busy)
    if limit != CORES:
        slowest = next(load for load in busy if load.name == limit)
        many = f"{slowest.max_workers} workers" if slowest.max_workers > 1 else "1 worker"
        lines = [f"the bottleneck is {limit}: {_ms(slowest)} an item with {many}"]
    else:
        slowest = max(busy, key=lambda load: load.item_s * load.cores)
        share = slowest.item_s * slowest.cores / core_s
        many = f"all {cores} cores are" if cores > 1 else "the core is"
        lines = [
            f"the bottleneck is {slowest.name}: {_ms(slowest)} an item, {share:.0%} of the work, and {many} at work"
        ]
    others = [load for load in busy if load is not slowest]
    if others and not slowest.cores:
        bounds = find_bounds(others, cores)
        name = min(bounds, key=bounds.__getitem__)
        lines.append(f"the next limit is {name}: {bounds[name]:.3g} a second")
    elif others:
        pace = max(others, key=lambda load: load.item_s / (load.max_workers if not load.cores else 1))
        pace_s = pace.item_s / (pace.max_workers if not pace.cores else 1)
        needed = math.ceil(slowest.item_s / pace_s - 1e-9)
        if needed > 1:
            there = slowest.max_workers if limit != CORES else max(1, cores // max(1, slowest.cores))
            lines.append(
                f"{pace.name} {_ms(pace)}, {slowest.name} {_ms(slowest)}: {needed} {slowest.name} workers on "
                f"{needed * slowest.cores} cores needed to keep up ({there} here)"
            )
    hint = (hints or {}).get(slowest.name)
    return (*lines, f"what helps: {hint}") if hint else tuple(lines)


def _report_stage(lane: Lane, now_s: float, wall_s: float) -> StageReport:
    meter = lane.meter
    worker_s = meter.workers.integral_s(now_s)
    durations = meter.durations
    return StageReport(
        name=lane.stage.name,
        workers=round(_share(worker_s, wall_s), 3),
        most_workers=meter.workers.highest,
        max_workers=lane.max_workers,
        cores=lane.stage.cores,
        items=durations.count,
        failures=meter.failures,
        item_ms=durations.mean_s * 1000,
        p50_ms=durations.quantile_s(0.5) * 1000,
        p90_ms=durations.quantile_s(0.9) * 1000,
        p99_ms=durations.quantile_s(0.99) * 1000,
        cpu_ms=_share(meter.cpu_s, durations.count) * 1000,
        busy_share=_share(meter.busy.integral_s(now_s), worker_s),
        starved_share=_share(meter.starved.integral_s(now_s), worker_s),
        core_wait_share=_share(meter.waiting.integral_s(now_s), worker_s),
        blocked_share=_share(meter.blocked.integral_s(now_s), worker_s),
        queue=QueueReport(
            lane.capacity,
            _share(meter.depth.integral_s(now_s), wall_s),
            meter.depth.highest,
            _share(meter.depth.above_s(now_s), wall_s),
        ),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _ms(load: StageLoad) -> str:
    ms = load.item_s * 1000
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"
