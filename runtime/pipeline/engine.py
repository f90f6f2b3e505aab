"""Runs items through stages: feeds the first, collects from the last, keeps the order, ends all threads."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from ...errors import InputError
from ..devices import describe_processor
from .cores import CorePool
from .meters import Level, StageMeter
from .report import PipelineReport, describe_stage
from .stage import MAX_WORKERS, ItemResult, Stage
from .waiting import WaitList
from .workers import StageWorkers

_EXIT_CODE_INTERRUPTED = 130

_running: set[Pipeline] = set()


@atexit.register
def _stop_all() -> None:
    """Join all threads before the interpreter ends: killing a daemon thread in native code aborts the process.

    Ctrl-C during this wait ends the process at once.
    """
    try:
        for pipeline in list(_running):
            pipeline.stop()
    except KeyboardInterrupt:
        os._exit(_EXIT_CODE_INTERRUPTED)


class Pipeline:
    """A chain of stages for one run; use it in a `with` block, which leaves no thread behind.

    Attributes:
        max_alive: the largest number of items between the iterable and the caller.
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
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Set up the stages; `run` starts the threads.

        Args:
            stages: at least one; names are unique.
            cores: cores shared by the calls of all stages; None for all that this process may use.
            workers: largest number of concurrent calls by stage, within the stage's own `max_workers`.
            queue_size: capacity of the queue before each stage; None for two per worker and at least two batches.
            max_alive: largest number of items between the iterable and the caller; None for one per worker and queue
                place, so that no worker waits for the order alone.
            fatal: types of exceptions that end the run instead of failing their item.
            clock: monotonic seconds.

        Raises:
            InputError: if names repeat or are unknown, or a number is out of range.
        """
        if not stages or len({stage.name for stage in stages}) != len(stages):
            raise InputError("a pipeline needs at least one stage, and each stage a name of its own")
        total = cores if cores is not None else count_cores()
        if total < 1:
            raise InputError(f"a pipeline needs at least one core, got {total}")
        _check_workers(stages, workers or {})
        self.lock = threading.Lock()
        self.cores = CorePool(total)
        self.clock, self.fatal = clock, fatal
        self.is_stopped = False
        self.live_threads: set[threading.Thread] = set()  # started, or about to
        self._stages: list[StageWorkers] = []
        for stage in stages:
            most = (workers or {}).get(stage.name) or stage.max_workers or min(total, MAX_WORKERS)
            size = queue_size if queue_size is not None else 2 * max(most, stage.batch)
            if size < 1:
                raise InputError(f"a queue needs a capacity of at least 1, got {size}")
            self._stages.append(StageWorkers(stage, self, max_workers=most, capacity=size))
        for one, following in itertools.pairwise(self._stages):
            one.next = following
        self.first = self._stages[0]
        places = sum(stage.capacity + stage.max_workers * stage.stage.batch for stage in self._stages)
        self.max_alive = max_alive if max_alive is not None else places
        if self.max_alive < 1:
            raise InputError(f"max_alive must be at least 1, got {self.max_alive}")
        self._callers = WaitList(self.lock)  # threads that feed, collect or stop
        self._done: dict[int, ItemResult] = {}
        self._fatal_error: BaseException | None = None
        self._admitted = self._yielded = self._failed = 0
        self._start_s = self._end_s = 0.0
        self._state = "new"
        self._most_alive = 0
        self._active_stages = Level(threshold=2)

    # ---- the run ----------------------------------------------------------------------------------------------------

    def run(self, items: Iterable[Any]) -> Iterator[ItemResult]:
        """Send items through the stages.

        Args:
            items: read lazily, in the caller's thread, never more than `max_alive` ahead.

        Yields:
            One result per item, in the order of the items.

        Raises:
            InputError: if this pipeline ran before.
            Exception: an error of one of the `fatal` types, or an error of reading `items`.
        """
        if self._state != "new":
            raise InputError("a pipeline runs once: make another one")
        try:
            self._start()
            yield from self._feed_and_collect(iter(items))
        finally:
            self.stop()

    def stop(self) -> None:
        """Finish the calls in progress, drop the other items and join all threads. May be called repeatedly."""
        with self.lock:
            if self._state == "running":
                self._end_s = self.clock()
                self._state = "over"
            self._stop()
        while True:
            with self.lock:
                # Not by Thread.join() alone: once Ctrl-C has interrupted it, Python treats the thread as finished.
                if not self.live_threads:
                    break
                change = self._callers.join()
            change.get()
        for stage in self._stages:
            for thread in stage.threads:
                if thread.is_alive():  # not one whose start failed
                    thread.join()
        _running.discard(self)

    def __enter__(self) -> Pipeline:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def report(self) -> PipelineReport:
        """Measurements so far; from any thread, also during the run."""
        with self.lock:
            now_s = self._end_s if self._state == "over" else self.clock()
            wall_s = now_s - self._start_s if self._state != "new" else 0.0
            return PipelineReport(
                items=self._yielded,
                failed=self._failed,
                wall_s=wall_s,
                cores=self.cores.total,
                overlap=self._active_stages.above_s(now_s) / wall_s if wall_s else 0.0,
                most_alive=self._most_alive,
                max_alive=self.max_alive,
                stages=tuple(describe_stage(stage, now_s, wall_s) for stage in self._stages),
            )

    def _start(self) -> None:
        with self.lock:
            self._state = "running"
            self._start_s = self.clock()
            self._active_stages.start(self._start_s)
            for stage in self._stages:
                stage.meter.start(self._start_s)
        _running.add(self)

    def _feed_and_collect(self, items: Iterator[Any]) -> Iterator[ItemResult]:
        first, is_exhausted = self.first, False
        while True:
            with self.lock:
                if self._fatal_error is not None:
                    raise self._fatal_error
                if self.is_stopped:
                    return
                result = self._done.pop(self._yielded, None)
                alive = self._admitted - self._yielded
                can_feed = not is_exhausted and alive < self.max_alive and first.has_room
                if is_exhausted and not alive:
                    return
                change = self._callers.join() if result is None and not can_feed else None
            if change is not None:
                change.get()
            if can_feed:
                try:
                    item = next(items)
                except StopIteration:
                    is_exhausted = True
                    with self.lock:
                        first.close()
                else:
                    with self.lock:
                        first.put(ItemResult(self._admitted, item, item))
                        self._admitted += 1
                        self._most_alive = max(self._most_alive, self._admitted - self._yielded)
                    item = None
            if result is not None:
                with self.lock:
                    self._yielded += 1
                    self._failed += result.error is not None
                yield result
                result = None  # the caller may have dropped it

    # ---- for the stages, under the lock -----------------------------------------------------------------------------

    def finish(self, item: ItemResult) -> None:
        """Keep an item until the caller has those before it."""
        self._done[item.index] = item
        if item.index == self._yielded:
            self._callers.notify_all()

    def abort(self, error: BaseException) -> None:
        """End the run; the first error is raised to the caller."""
        if self._fatal_error is None:
            self._fatal_error = error
        self._stop()

    def count_stage(self, meter: StageMeter, change: int, now_s: float) -> None:
        """Count the active stages after a call of one began or ended (1 or -1), which `meter` has counted."""
        if meter.busy.value == max(0, change):
            self._active_stages.add(change, now_s)

    def wake_caller(self) -> None:
        """Wake the threads that feed, collect or stop: the first queue has room."""
        self._callers.notify_all()

    def end_thread(self, thread: threading.Thread) -> None:
        """Note that a thread runs no more calls."""
        self.live_threads.discard(thread)
        self._callers.notify_all()

    def _stop(self) -> None:
        self.is_stopped = True
        self.cores.close()
        self._done.clear()
        for stage in self._stages:
            stage.stop()
        self._callers.notify_all()


def count_cores() -> int:
    """Number of cores that this process may use."""
    return describe_processor().usable_cores


def _check_workers(stages: Sequence[Stage], workers: Mapping[str, int]) -> None:
    by_name = {stage.name: stage for stage in stages}
    for name, count in workers.items():
        if name not in by_name:
            raise InputError(f'there is no stage "{name}"; the stages are {", ".join(by_name)}')
        most = by_name[name].max_workers or MAX_WORKERS
        if not 1 <= count <= most:
            raise InputError(f'stage "{name}" can have 1 to {most} workers, not {count}')
