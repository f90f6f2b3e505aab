"""Report of a run: rates, what the workers' time was spent on, queues, the bottleneck and advice.

With t seconds per call and item, c cores held by a call, the rate of items cannot exceed the smallest of

* cores / sum(t c) over all stages: all cores are busy all the time;
* workers / t of each stage: all its workers are busy all the time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .workers import StageWorkers

REPORT_VERSION = 1
CORES = "cores"  # name of the limit that is not a stage
COLUMNS = ("stage", "ms", "p90", "workers", "busy", "no input", "no core", "blocked", "queue before")


@dataclass(frozen=True)
class QueueReport:
    """The queue before a stage.

    Attributes:
        capacity: its number of places.
        mean_depth: number of waiting items, averaged over time.
        most: the largest number of waiting items.
    """

    capacity: int
    mean_depth: float
    most: int


@dataclass(frozen=True)
class StageReport:
    """One stage.

    Attributes:
        name: of the stage.
        workers: number of its threads, averaged over time.
        most_workers: number of its threads at the end; they are started as items need them.
        max_workers: the largest number of threads it may have.
        cores: cores that a call needs to start; 0 for a stage on a device.
        items: number of finished items.
        failures: number of failed calls.
        item_ms: milliseconds per item in a worker that has its cores, mean.
        p90_ms: the same, 90th percentile, accurate to 1 %.
        core_ms: core-milliseconds held per item.
        busy_share, starved_share, core_wait_share, blocked_share: shares of the workers' time spent in calls, and
            waiting for input, for a core, and for room in the next queue.
        queue: the queue before it.
        hint: advice if it is the bottleneck.
    """

    name: str
    workers: float
    most_workers: int
    max_workers: int
    cores: int
    items: int
    failures: int
    item_ms: float
    p90_ms: float
    core_ms: float
    busy_share: float
    starved_share: float
    core_wait_share: float
    blocked_share: float
    queue: QueueReport
    hint: str = ""


@dataclass(frozen=True)
class PipelineReport:
    """A run, finished or in progress.

    Attributes:
        items: number of results that the caller has received.
        failed: number of those that failed.
        wall_s: seconds since the start.
        cores: cores shared by the stages.
        overlap: share of the time in which two or more stages were active.
        most_alive: the largest number of items between the iterable and the caller.
        max_alive: the limit of the same.
        stages: in order.
    """

    items: int
    failed: int
    wall_s: float
    cores: int
    overlap: float
    most_alive: int
    max_alive: int
    stages: tuple[StageReport, ...]

    @property
    def rate_per_s(self) -> float:
        """Results per second."""
        return _divide(self.items, self.wall_s)

    @property
    def calls_at_once(self) -> float:
        """Number of concurrent calls, averaged over time."""
        return sum(stage.workers * stage.busy_share for stage in self.stages)

    @property
    def core_share(self) -> float:
        """Share of the cores' time that calls held."""
        return _divide(sum(stage.core_ms * stage.items for stage in self.stages) / 1000, self.wall_s * self.cores)

    @property
    def bounds_per_s(self) -> Mapping[str, float]:
        """Upper bounds of the rate with these call times, by stage and for "cores"; see this module's docstring."""
        return find_bounds(self.stages, self.cores)

    @property
    def limit(self) -> str:
        """The smallest of the bounds: name of a stage, or "cores"; empty before anything is measured."""
        return min(self.bounds_per_s, key=self.bounds_per_s.__getitem__, default="")

    @property
    def efficiency(self) -> float:
        """The rate as a share of its smallest bound."""
        return _divide(self.rate_per_s, min(self.bounds_per_s.values(), default=math.inf))

    @property
    def advice(self) -> tuple[str, ...]:
        """The bottleneck, the limit that follows, and what would help: one sentence each."""
        busy = [stage for stage in self.stages if stage.item_ms > 0]
        if not busy:
            return ()
        if self.limit == CORES:
            slowest = max(busy, key=lambda stage: stage.core_ms)
            share = slowest.core_ms / sum(stage.core_ms for stage in busy)
            cores = f"all {self.cores} cores are" if self.cores > 1 else "the core is"
            text = f"{share:.0%} of the work, and {cores} busy"
        else:
            slowest = next(stage for stage in busy if stage.name == self.limit)
            text = f"with {slowest.max_workers} worker{'s' * (slowest.max_workers > 1)}"
        joint = ", " if self.limit == CORES else " "
        lines = [f"the bottleneck is {slowest.name}: {_format_ms(slowest.item_ms)} an item{joint}{text}"]
        bounds = find_bounds([stage for stage in busy if stage is not slowest], self.cores)
        if self.limit != CORES and bounds:
            name = min(bounds, key=bounds.__getitem__)
            lines.append(f"the next limit is {name}: {bounds[name]:.3g} a second")
        return (*lines, f"what helps: {slowest.hint}") if slowest.hint else tuple(lines)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        derived = ("rate_per_s", "calls_at_once", "core_share", "bounds_per_s", "limit", "efficiency", "advice")
        fields = {"schema_version": REPORT_VERSION, **dataclasses.asdict(self)}
        return fields | {name: getattr(self, name) for name in derived}

    def describe(self) -> str:
        """A table of the stages under `COLUMNS`, and `describe_limit`."""
        rows: list[tuple[str, ...]] = [COLUMNS]
        for stage in self.stages:
            shares = (stage.busy_share, stage.starved_share, stage.core_wait_share, stage.blocked_share)
            queue = f"{stage.queue.mean_depth:.1f} of {stage.queue.capacity}"
            times = (f"{stage.item_ms:.1f}", f"{stage.p90_ms:.1f}", f"{stage.workers:.1f}")
            rows.append((stage.name, *times, *(f"{share:.0%}" for share in shares), queue))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, self.describe_limit()])

    def describe_limit(self) -> str:
        """One line: rate, overlap and advice."""
        if not self.items:
            return "no items"
        rate = f"{self.rate_per_s:.1f} a second, stages overlapped {self.overlap:.0%} of the time"
        return f"{rate}; " + ". ".join(self.advice)


def find_bounds(stages: Sequence[StageReport], cores: int) -> dict[str, float]:
    """Upper bounds of the rate: of each stage, and of the cores together; stages that take no time set no bound."""
    bounds = {stage.name: stage.max_workers / stage.item_ms * 1000 for stage in stages if stage.item_ms > 0}
    core_ms = sum(stage.core_ms for stage in stages)
    return {**bounds, CORES: cores / core_ms * 1000} if core_ms > 0 else bounds


def describe_stage(stage: StageWorkers, now_s: float, wall_s: float) -> StageReport:
    """Report one stage from its meter; called under the lock of its run."""
    meter, durations = stage.meter, stage.meter.durations
    worker_s = meter.workers.integral_s(now_s)
    busy, starved, waiting, blocked = (
        _divide(level.integral_s(now_s), worker_s)
        for level in (meter.busy, meter.starved, meter.waiting, meter.blocked)
    )
    return StageReport(
        name=stage.stage.name,
        workers=_divide(worker_s, wall_s),
        most_workers=meter.workers.highest,
        max_workers=stage.max_workers,
        cores=stage.stage.cores,
        items=durations.count,
        failures=meter.failures,
        item_ms=durations.mean_s * 1000,
        p90_ms=durations.quantile_s(0.9) * 1000,
        core_ms=_divide(meter.held.integral_s(now_s), durations.count) * 1000,
        busy_share=busy,
        starved_share=starved,
        core_wait_share=waiting,
        blocked_share=blocked,
        queue=QueueReport(stage.capacity, _divide(meter.depth.integral_s(now_s), wall_s), meter.depth.highest),
        hint=stage.stage.hint,
    )


def _divide(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _format_ms(ms: float) -> str:
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"
