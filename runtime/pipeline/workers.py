"""One stage at run time: its queue, its threads and its meter.

All state of a run is under one lock, and stage functions run outside it. Items take milliseconds and the bookkeeping
takes microseconds, and a single lock rules out deadlocks by lock order.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from .cores import CoreRequest
from .meters import StageMeter
from .stage import ItemResult, Stage, drop_frames
from .waiting import WaitList

if TYPE_CHECKING:
    from .engine import Pipeline


class StageWorkers:
    """The queue of one stage and the threads that serve it."""

    def __init__(self, stage: Stage, run: Pipeline, *, max_workers: int, capacity: int) -> None:
        self.stage = stage
        self.max_workers = max_workers
        self.capacity = capacity
        self.meter = StageMeter()
        self.next: StageWorkers | None = None
        self.threads: list[threading.Thread] = []
        self._run = run
        self._queue: deque[ItemResult] = deque()
        self._has_input = WaitList(run.lock)
        self._has_room = WaitList(run.lock)
        self._has_core = WaitList(run.lock)
        self._idle = 0  # threads that wait for input
        self._in_hand = 0  # items taken from the queue and not yet passed on
        self._is_closed = False
        self._waits = stage.waits and stage.cores > 0

    # ---- called under the lock --------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether `put` would return at once."""
        return len(self._queue) < self.capacity

    def put(self, item: ItemResult) -> None:
        """Queue an item; waits for room. The item is dropped if the run stops."""
        while not self.has_room and not self._run.is_stopped:
            self._has_room.wait()
        if self._run.is_stopped:
            return
        self._queue.append(item)
        self._note_depth()
        if self._idle < len(self._queue) and len(self.threads) < self.max_workers:
            self.add_thread()
        self._has_input.notify()

    def add_thread(self) -> None:
        """Start one more thread."""
        name = f"{self.stage.name} {len(self.threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            self._run.live_threads.add(thread)
            # A single call into C: Ctrl-C must not interrupt Thread.start(), which waits for the thread to begin.
            _thread.start_new_thread(self._start, (thread,))
        except BaseException:  # the thread may run nevertheless: it sees that it is not wanted
            self._run.live_threads.discard(thread)
            raise
        self.threads.append(thread)
        self.meter.workers.add(1, self._run.clock())

    def close(self) -> None:
        """Accept no more input; the next stage is closed when all items have been passed on."""
        self._is_closed = True
        self._has_input.notify_all()
        if not self._queue and not self._in_hand and self.next is not None:
            self.next.close()

    def stop(self) -> None:
        """Drop the queue and wake all waiters."""
        self._queue.clear()
        for waiters in (self._has_input, self._has_room, self._has_core):
            waiters.notify_all()

    # ---- called without the lock ------------------------------------------------------------------------------------

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except BaseException as error:
            with self._run.lock:
                self._run.abort(error)
                self._run.end_thread(thread)

    def _work(self) -> None:
        thread = threading.current_thread()
        with self._run.lock:
            if thread not in self._run.live_threads:
                return
        try:
            while items := self._take():
                self._call(items)
                self._pass_on(items)
        except BaseException as error:  # an error of the pipeline must not leave the run hanging
            with self._run.lock:
                self._run.abort(error)
        finally:
            with self._run.lock:
                self._run.end_thread(thread)

    def _take(self) -> list[ItemResult]:
        """Wait for input: one item, or a batch; an empty list when there is no more."""
        run = self._run
        with run.lock:
            self._idle += 1
            self.meter.starved.add(1, run.clock())
            while not self._queue and not self._is_closed and not run.is_stopped:
                self._has_input.wait()
            self._idle -= 1
            self.meter.starved.add(-1, run.clock())
            if not self._queue or run.is_stopped:
                return []
            items = [self._queue.popleft()]
            self._in_hand += 1
            if self.stage.batch > 1:
                self._fill_batch(items)
            self._note_depth()
            self._has_room.notify_all()
            if self is run.first:
                run.wake_caller()
            return items

    def _fill_batch(self, items: list[ItemResult]) -> None:
        """Add waiting values of the same key; wait for more until the batch is full or the stage's delay is over."""
        stage, run = self.stage, self._run
        key = stage.batch_key(items[0].value)
        end_s = run.clock() + stage.batch_delay_s
        while len(items) < stage.batch:
            if self._queue:
                if stage.batch_key(self._queue[0].value) != key:
                    return
                items.append(self._queue.popleft())
                self._in_hand += 1
                continue
            left_s = end_s - run.clock()
            if left_s <= 0 or self._is_closed or run.is_stopped:
                return
            self._has_room.notify_all()
            self._has_input.wait(left_s)

    def _call(self, items: list[ItemResult]) -> None:
        """Run the function on items; if a batch fails, each of its items is tried alone."""
        held = self._begin()
        if held is None:
            return
        run, error = self._run, None
        start_s = run.clock()
        try:
            results = self._apply([item.value for item in items], held)
            for item, result in zip(items, results, strict=True):
                item.value = result
        except BaseException as raised:
            error = raised
        end_s = run.clock()
        self._end(held, len(items), end_s - start_s, failed=error is not None)
        for item in items:
            spent_ms = (end_s - start_s) * 1000 / len(items)
            item.timings_ms[self.stage.name] = item.timings_ms.get(self.stage.name, 0.0) + spent_ms
        if error is None:
            return
        if not isinstance(error, Exception) or isinstance(error, run.fatal):
            with run.lock:
                run.abort(error)
        elif len(items) == 1:
            items[0].fail(self.stage.name, error)
        else:
            drop_frames(error)
            for item in items:
                self._call([item])

    def _apply(self, values: list[Any], held: int) -> list[Any]:
        cores = () if self.stage.max_cores is None else (held,)
        if self.stage.batch == 1:
            return [self.stage.function(values[0], *cores)]
        results = list(self.stage.function(values, *cores))
        if len(results) != len(values):
            raise InputError(f'stage "{self.stage.name}" returned {len(results)} values for {len(values)}')
        return results

    def _begin(self) -> int | None:
        """Wait for cores; returns their number, or None if the run was stopped."""
        run, meter = self._run, self.meter
        with run.lock:
            held = self.stage.cores
            if self._waits:
                request = CoreRequest(self.stage.cores, self._choose_cores, self._has_core.notify_all)
                meter.waiting.add(1, run.clock())
                run.cores.request(request)
                while not request.held and not run.is_stopped:
                    self._has_core.wait()
                meter.waiting.add(-1, run.clock())
                held = request.held
            if run.is_stopped:
                return None
            now_s = run.clock()
            meter.busy.add(1, now_s)
            meter.held.add(held, now_s)
            run.count_stage(self.meter, 1, now_s)
            return held

    def _choose_cores(self) -> int:
        if self.stage.max_cores is None:
            return self.stage.cores
        ready = len(self._queue) + self.meter.waiting.value + self.meter.busy.value
        calls = min(self.max_workers, ready)
        return min(self.stage.max_cores, self._run.cores.find_share(calls))

    def _end(self, held: int, items: int, spent_s: float, *, failed: bool) -> None:
        run, meter = self._run, self.meter
        with run.lock:
            now_s = run.clock()
            meter.busy.add(-1, now_s)
            meter.held.add(-held, now_s)
            if self._waits:
                run.cores.release(held)
            meter.failures += failed
            if not failed:
                for _ in range(items):
                    meter.durations.add(spent_s / items)
            run.count_stage(self.meter, -1, now_s)

    def _pass_on(self, items: list[ItemResult]) -> None:
        run = self._run
        with run.lock:
            self.meter.blocked.add(1, run.clock())
            for item in items:
                if not run.is_stopped:
                    if self.next is None or item.error is not None:
                        run.finish(item)
                    else:
                        self.next.put(item)
                self._in_hand -= 1
            self.meter.blocked.add(-1, run.clock())
            items.clear()  # a thread that waits for input must not keep the last value alive
            if self._is_closed:
                self.close()

    def _note_depth(self) -> None:
        self.meter.depth.set(len(self._queue), self._run.clock())
