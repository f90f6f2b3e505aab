"""A stage at run time: its queue, its workers' loop, its meter.

All state of a run is under one lock; calls of the stage's function run outside of it. Items take milliseconds, the
bookkeeping microseconds, and one lock leaves no order of locks to get wrong.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...errors import InputError
from .cores import CorePool
from .meters import StageMeter
from .stage import Stage
from .trace import TraceWriter


@dataclass
class Task:
    """An item on its way."""

    index: int
    item: Any
    value: Any
    timings_ms: dict[str, float] = field(default_factory=dict)
    error: BaseException | None = None
    stage: str | None = None
    traceback: str = ""


class Shared(Protocol):
    """What a lane needs of its run; everything but `clock` and `trace` is called under the lock."""

    lock: threading.Lock
    cores: CorePool
    clock: Callable[[], float]
    trace: TraceWriter | None
    fatal: tuple[type[BaseException], ...]
    is_stopped: bool

    def finish(self, task: Task) -> None:
        """A task is done, or failed."""

    def abort(self, error: BaseException) -> None:
        """End the run by an error."""

    def note_work(self, lane: Lane, change: int, now_s: float) -> None:
        """A lane began or ended calls."""

    def note_room(self) -> None:
        """The first lane took something from its queue."""


class Lane:
    """A stage at run time."""

    def __init__(self, stage: Stage, run: Shared, *, workers: int, max_workers: int, capacity: int) -> None:
        self.stage = stage
        self.max_workers = max_workers
        self.capacity = capacity
        self.next: Lane | None = None
        self.is_first = False
        self.meter = StageMeter(workers)
        self._run = run
        self._queue: deque[Task] = deque()
        self._has_input = threading.Condition(run.lock)
        self._has_room = threading.Condition(run.lock)
        self._in_hand = 0  # tasks taken and not yet handed on
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    # ---- called under the lock --------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether `put` would not wait."""
        return len(self._queue) < self.capacity

    def set_workers(self, count: int) -> None:
        """Change how many workers may take tasks; threads are started when they are first needed."""
        if count != self.meter.workers.value:
            self.meter.workers.set(count, self._run.clock())
        while len(self._threads) < count:
            rank = len(self._threads)
            name = f"{self.stage.name} {rank + 1}"
            thread = threading.Thread(target=self._work, args=(rank,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._has_input.notify_all()

    def put(self, task: Task) -> None:
        """Queue a task; waits for room, and drops it if the run is stopped meanwhile."""
        while not self.has_room and not self._run.is_stopped:
            self._has_room.wait()
        if self._run.is_stopped:
            return
        self._queue.append(task)
        self._note_depth()
        self._has_input.notify_all()

    def close(self) -> None:
        """Nothing more will be put; once all is handed on, the next lane is closed too."""
        self._is_closed = True
        self._has_input.notify_all()
        self._pass_on_close()

    def stop(self) -> None:
        """Drop what waits and wake everybody who waits here."""
        self._queue.clear()
        self._has_input.notify_all()
        self._has_room.notify_all()

    # ---- without the lock -------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Wait for the threads."""
        for thread in self._threads:
            thread.join()

    def _work(self, rank: int) -> None:
        try:
            while (tasks := self._take(rank)) is not None:
                self._call(tasks, rank)
                self._hand_on(tasks)
        except BaseException as error:  # a fault of the pipeline itself, or of its trace, must not leave it hanging
            with self._run.lock:
                self._run.abort(error)

    def _take(self, rank: int) -> list[Task] | None:
        """Wait for input: one task, or as many as a call may have."""
        with self._run.lock:
            meter, is_counted = self.meter, False
            try:
                while not self._run.is_stopped:
                    is_allowed = rank < meter.workers.value
                    if is_allowed and self._queue:
                        return self._take_batch()
                    if self._is_closed and not self._queue:
                        return None
                    if is_allowed != is_counted:
                        meter.starved.add(1 if is_allowed else -1, self._run.clock())
                        is_counted = is_allowed
                    self._has_input.wait()
                return None
            finally:
                if is_counted:
                    meter.starved.add(-1, self._run.clock())

    def _take_batch(self) -> list[Task]:
        tasks = [self._queue.popleft()]
        if self.stage.batch > 1 and self._queue:
            key = self.stage.batch_key or (lambda value: None)
            wanted = key(tasks[0].value)
            while self._queue and len(tasks) < self.stage.batch and key(self._queue[0].value) == wanted:
                tasks.append(self._queue.popleft())
        self._in_hand += len(tasks)
        self._note_depth()
        self._has_room.notify_all()
        if self.is_first:
            self._run.note_room()
        return tasks

    def _call(self, tasks: list[Task], rank: int) -> None:
        """Run the function on tasks; a batch that fails is tried again one by one, to find who is to blame."""
        if not self._acquire_core():
            return
        start_s, cpu_s = self._run.clock(), time.thread_time()
        error: BaseException | None = None
        try:
            values = self._apply([task.value for task in tasks])
            for task, value in zip(tasks, values, strict=True):
                task.value = value
        except BaseException as raised:
            error = raised
        end_s = self._run.clock()
        self._release_core(len(tasks), end_s - start_s, time.thread_time() - cpu_s, error is not None)
        if self._run.trace is not None:
            indices = [task.index for task in tasks]
            self._run.trace.add_call(self.stage.name, rank, start_s, end_s, indices, error is not None)
        for task in tasks:
            spent_ms = (end_s - start_s) * 1000 / len(tasks)
            task.timings_ms[self.stage.name] = task.timings_ms.get(self.stage.name, 0.0) + spent_ms
        if error is None:
            return
        if not isinstance(error, Exception) or isinstance(error, self._run.fatal):
            with self._run.lock:
                self._run.abort(error)
        elif len(tasks) > 1:
            _forget_frames(error)
            for task in tasks:
                self._call([task], rank)
        else:
            _blame(tasks[0], self.stage.name, error)

    def _apply(self, values: list[Any]) -> list[Any]:
        if self.stage.batch == 1:
            return [self.stage.function(values[0])]
        results = list(self.stage.function(values))
        if len(results) != len(values):
            raise InputError(f'stage "{self.stage.name}" returned {len(results)} values for {len(values)}')
        return results

    def _acquire_core(self) -> bool:
        run, meter = self._run, self.meter
        with run.lock:
            if run.is_stopped:
                return False
            if self.stage.cores:
                meter.waiting.add(1, run.clock())
                is_granted = run.cores.acquire(self.stage.cores)
                meter.waiting.add(-1, run.clock())
                if not is_granted:
                    return False
            now_s = run.clock()
            meter.busy.add(1, now_s)
            run.note_work(self, 1, now_s)
            return True

    def _release_core(self, items: int, spent_s: float, cpu_s: float, failed: bool) -> None:
        run, meter = self._run, self.meter
        with run.lock:
            now_s = run.clock()
            meter.busy.add(-1, now_s)
            if self.stage.cores:
                run.cores.release(self.stage.cores)
            meter.calls += 1
            meter.cpu_s += cpu_s
            if failed:
                meter.failures += 1
            else:
                for _ in range(items):
                    meter.durations.add(spent_s / items)
            run.note_work(self, -1, now_s)

    def _hand_on(self, tasks: list[Task]) -> None:
        run = self._run
        with run.lock:
            self.meter.blocked.add(1, run.clock())
            for task in tasks:
                if not run.is_stopped:
                    if self.next is None or task.error is not None:
                        run.finish(task)
                    else:
                        self.next.put(task)
                self._in_hand -= 1
            self.meter.blocked.add(-1, run.clock())
            tasks.clear()  # the loop that waits for input must not keep the last value alive
            self._pass_on_close()

    def _pass_on_close(self) -> None:
        if self._is_closed and not self._queue and not self._in_hand and self.next is not None:
            self.next.close()

    def _note_depth(self) -> None:
        now_s = self._run.clock()
        self.meter.depth.set(len(self._queue), now_s)
        if self._run.trace is not None:
            self._run.trace.add_depth(self.stage.name, len(self._queue), now_s)


def _blame(task: Task, stage: str, error: BaseException) -> None:
    """Note who failed; the value is let go."""
    task.stage, task.value, task.error = stage, None, error
    task.traceback = "".join(traceback.format_exception(error))
    _forget_frames(error)


def _forget_frames(error: BaseException) -> None:
    """Let go of all that the frames of an error's traceback hold, arrays first of all."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
