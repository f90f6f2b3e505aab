"""Runs items through stages: feeds the first, collects from the last, keeps the order, ends every thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from ...errors import InputError
from .cores import CorePool
from .lane import Lane, Task
from .meters import Level
from .planner import Controller, StageLoad
from .report import PipelineReport, write_report
from .stage import MAX_WORKERS, Outcome, Stage
from .trace import TraceWriter

_TICK_S = 0.1  # between two looks at the worker counts


class Pipeline:
    """Stages in a row. One pipeline is one run; use it in a `with` block, whose end leaves no thread behind.

    Attributes:
        max_alive: how many items are between the iterable and the caller at most.
        workers: the number of workers of each stage at the moment.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        cores: int | None = None,
        workers: Mapping[str, int] | None = None,
        queue_size: int | None = None,
        max_alive: int | None = None,
        fatal: tuple[type[BaseException], ...] = (),
        trace: TraceWriter | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Set the stages up; threads start with `run`.

        Args:
            stages: at least one, with names of their own.
            cores: cores that the calls of all stages share; None for all this process may use.
            workers: fixed worker counts by stage; stages not named adapt.
            queue_size: places in the queue before each stage; None for 2 a possible worker, twice a batch at least.
            max_alive: items between the iterable and the caller at most; None for one a worker and a place, so that
                nobody waits for the order alone.
            fatal: types of errors that end the run instead of failing their item.
            trace: where calls and queue depths are written.
            clock: seconds, monotonic.

        Raises:
            InputError: if names repeat or are unknown, or a number is out of range.
        """
        if not stages or len({stage.name for stage in stages}) != len(stages):
            raise InputError("a pipeline needs at least one stage, and each a name of its own")
        total = cores if cores is not None else count_cores()
        if total < 1:
            raise InputError(f"a pipeline needs at least one core, got {total}")
        self.lock = threading.Lock()
        self.cores = CorePool(total, self.lock)
        self.clock, self.trace, self.fatal = clock, trace, fatal
        self.is_stopped = False
        fixed = _check_workers(stages, workers or {})
        most = {s.name: fixed.get(s.name) or s.max_workers or min(total, MAX_WORKERS) for s in stages}
        self._controller = Controller(dict.fromkeys(most, 1), fixed)
        self._lanes: list[Lane] = []
        for stage in stages:
            size = queue_size if queue_size is not None else max(2 * most[stage.name], 2 * stage.batch)
            if size < 1:
                raise InputError(f"a queue needs at least one place, got {size}")
            start = self._controller.workers[stage.name]
            lane = Lane(stage, self, workers=start, max_workers=most[stage.name], capacity=size)
            if self._lanes:
                self._lanes[-1].next = lane
            self._lanes.append(lane)
        self._lanes[0].is_first = True
        roomy = sum(lane.capacity + lane.max_workers * lane.stage.batch for lane in self._lanes)
        self.max_alive = max_alive if max_alive is not None else roomy
        if self.max_alive < 1:
            raise InputError(f"max_alive must be at least 1, got {self.max_alive}")
        self._wake = threading.Condition(self.lock)  # of the thread that feeds and collects
        self._done: dict[int, Task] = {}
        self._fatal_error: BaseException | None = None
        self._admitted = self._yielded = self._failed = 0
        self._tick_s = self._start_s = self._end_s = 0.0
        self._state = "new"
        self._alive = Level()
        self._calls_at_work = Level()
        self._stages_at_work = Level(threshold=2)

    # ---- the run ----------------------------------------------------------------------------------------------------

    def run(self, items: Iterable[Any]) -> Iterator[Outcome]:
        """Send items through the stages.

        Args:
            items: read lazily, in the caller's thread, never more than `max_alive` ahead.

        Yields:
            One outcome for each item, in their order.

        Raises:
            InputError: if this pipeline ran before.
            Exception: an error of one of the `fatal` types, or what reading `items` raised.
        """
        if self._state != "new":
            raise InputError("a pipeline runs once: make another one")
        self._state = "running"
        try:
            self._start()
            yield from self._feed_and_collect(iter(items))
        finally:
            self.stop()

    def stop(self) -> None:
        """Finish the calls under way, drop the rest, end every thread. Harmless when there is nothing to stop."""
        with self.lock:
            if self._state == "running":
                self._end_s = self.clock()
            if self._state != "new":
                self._state = "over"
            self._stop()
        for lane in self._lanes:
            lane.join()

    def __enter__(self) -> Pipeline:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def workers(self) -> dict[str, int]:
        """The number of workers of each stage at the moment."""
        with self.lock:
            return {lane.stage.name: lane.meter.workers.value for lane in self._lanes}

    def report(self) -> PipelineReport:
        """What was measured so far; also while it runs, from any thread."""
        with self.lock:
            now_s = self._end_s if self._state == "over" else self.clock()
            return write_report(
                self._lanes,
                cores=self.cores.cores,
                wall_s=now_s - self._start_s if self._state != "new" else 0.0,
                now_s=now_s,
                items=self._yielded,
                failed=self._failed,
                most_alive=self._alive.highest,
                max_alive=self.max_alive,
                calls_at_once=self._calls_at_work.integral_s(now_s),
                overlapped_s=self._stages_at_work.above_s(now_s),
            )

    def _start(self) -> None:
        with self.lock:
            self._start_s = self._tick_s = self.clock()
            for level in (self._alive, self._calls_at_work, self._stages_at_work):
                level.start(self._start_s)
            for lane in self._lanes:
                lane.meter.start(self._start_s)
            for lane in self._lanes:
                lane.set_workers(self._controller.workers[lane.stage.name])

    def _feed_and_collect(self, items: Iterator[Any]) -> Iterator[Outcome]:
        first, is_exhausted = self._lanes[0], False
        while True:
            with self.lock:
                while True:
                    if self._fatal_error is not None:
                        raise self._fatal_error
                    if self.is_stopped:
                        return
                    task = self._done.pop(self._yielded, None)
                    can_feed = not is_exhausted and self._alive.value < self.max_alive and first.has_room
                    if task is not None or can_feed or (is_exhausted and self._yielded == self._admitted):
                        break
                    self._wake.wait()
            if task is None and not can_feed:
                return
            if can_feed:
                try:
                    item = next(items)
                except StopIteration:
                    is_exhausted = True
                    with self.lock:
                        first.close()
                else:
                    with self.lock:
                        self._alive.add(1, self.clock())
                        first.put(Task(self._admitted, item, item))
                        self._admitted += 1
                    item = None
            if task is not None:
                with self.lock:
                    self._yielded += 1
                    self._failed += task.error is not None
                    self._alive.add(-1, self.clock())
                outcome = Outcome(
                    task.index, task.item, task.value, task.error, task.stage, task.traceback, task.timings_ms
                )
                task = None
                yield outcome
                del outcome

    # ---- for the lanes, under the lock ------------------------------------------------------------------------------

    def finish(self, task: Task) -> None:
        """Keep what came of an item until its turn."""
        self._done[task.index] = task
        if task.index == self._yielded:
            self._wake.notify_all()

    def abort(self, error: BaseException) -> None:
        """End the run by an error; the first one counts."""
        if self._fatal_error is None:
            self._fatal_error = error
        self._stop()

    def note_work(self, lane: Lane, change: int, now_s: float) -> None:
        """Count calls and stages at work; look at the worker counts now and then."""
        self._calls_at_work.add(change, now_s)
        busy = lane.meter.busy.value
        if busy == 0 or (busy == 1 and change == 1):
            self._stages_at_work.add(change, now_s)
        if change < 0 and now_s - self._tick_s >= _TICK_S and not self.is_stopped:
            self._tick_s = now_s
            for lane_, count in zip(self._lanes, self._adapt().values(), strict=True):
                if count != lane_.meter.workers.value:
                    lane_.set_workers(count)

    def note_room(self) -> None:
        """The first queue has room."""
        self._wake.notify_all()

    def _adapt(self) -> dict[str, int]:
        loads = [
            StageLoad(lane.stage.name, lane.meter.durations.recent_s, lane.stage.cores, lane.max_workers)
            for lane in self._lanes
        ]
        return self._controller.update(loads, self.cores.cores)

    def _stop(self) -> None:
        self.is_stopped = True
        self.cores.close()
        self._done.clear()
        for lane in self._lanes:
            lane.stop()
        self._wake.notify_all()


def run_pipeline(stages: Sequence[Stage], items: Iterable[Any], **options: Any) -> tuple[list[Outcome], PipelineReport]:
    """Run items through stages and keep all outcomes.

    Args:
        stages: as `Pipeline` takes them.
        items: as `Pipeline.run` takes them.
        options: what else `Pipeline` takes.

    Returns:
        The outcomes in order, and the report.
    """
    with Pipeline(stages, **options) as pipeline:
        outcomes = list(pipeline.run(items))
    return outcomes, pipeline.report()


def count_cores() -> int:
    """The cores this process may use."""
    from ..devices import describe_processor

    return describe_processor().usable_cores


def _check_workers(stages: Sequence[Stage], workers: Mapping[str, int]) -> dict[str, int]:
    by_name = {stage.name: stage for stage in stages}
    for name, count in workers.items():
        if name not in by_name:
            raise InputError(f'there is no stage "{name}"; there are {", ".join(by_name)}')
        most = by_name[name].max_workers or MAX_WORKERS
        if not 1 <= count <= most:
            raise InputError(f'stage "{name}" can have 1 to {most} workers, not {count}')
    return dict(workers)
