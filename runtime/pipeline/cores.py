"""The cores that the calls of all stages share: who asked first goes first.

Threads that the system takes turns with disturb each other's caches and make every call look slower than it is. A call
that holds its core to the end does not, and its duration is its own.
"""

from __future__ import annotations

import threading
from collections import deque


class CorePool:
    """A counted resource with a queue; used under the lock it was made with."""

    def __init__(self, cores: int, lock: threading.Lock) -> None:
        self.cores = cores
        self.free = cores
        self._lock = lock
        self._queue: deque[tuple[threading.Condition, int]] = deque()
        self._is_open = True

    def acquire(self, wanted: int) -> bool:
        """Take that many cores, all of them at most; False if the pool was closed meanwhile."""
        wanted = min(wanted, self.cores)
        if not self._is_open:
            return False
        if self._queue or self.free < wanted:
            place = (threading.Condition(self._lock), wanted)
            self._queue.append(place)
            while self._is_open and (self._queue[0] is not place or self.free < wanted):
                place[0].wait()
            if not self._is_open:
                return False
            self._queue.popleft()
        self.free -= wanted
        self._wake_first()
        return True

    def release(self, held: int) -> None:
        """Give cores back."""
        self.free += min(held, self.cores)
        self._wake_first()

    def close(self) -> None:
        """Send everybody home who waits."""
        self._is_open = False
        for condition, _ in self._queue:
            condition.notify()

    def _wake_first(self) -> None:
        if self._queue and self.free >= self._queue[0][1]:
            self._queue[0][0].notify()
