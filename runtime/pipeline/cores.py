"""Assignment of cores to the calls of all stages.

1. Calls are served in order of arrival, so none starves.
2. A call starts when the fewest cores it needs are free.
3. A call that can use more gets all free cores, up to its share: all cores divided by the calls that its stage could
   run now. So a single call uses the whole machine, and many calls run side by side on one core each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class CoreRequest:
    """A call's place in the queue; it holds 0 cores while it waits."""

    def __init__(self, least: int, choose: Callable[[], int], on_grant: Callable[[], None]) -> None:
        """Make a request for `choose()` cores, evaluated when it is granted, and at least `least`."""
        self.least, self.choose, self.on_grant = least, choose, on_grant
        self.held = 0


class CorePool:
    """Free cores and the queue for them. It never blocks; callers serialize access."""

    def __init__(self, cores: int) -> None:
        self.total = self.free = cores
        self._queue: deque[CoreRequest] = deque()

    def request(self, request: CoreRequest) -> None:
        """Queue a request; it is granted now or by a later `release`."""
        self._queue.append(request)
        self._grant()

    def release(self, held: int) -> None:
        """Return cores."""
        self.free += held
        self._grant()

    def find_share(self, calls: int) -> int:
        """Cores of one of several calls that run at once."""
        return max(1, self.total // calls)

    def close(self) -> None:
        """Drop all requests."""
        self._queue.clear()

    def _grant(self) -> None:
        while self._queue and self.free >= (least := min(self._queue[0].least, self.total)):
            request = self._queue.popleft()
            request.held = max(least, min(self.free, request.choose()))
            self.free -= request.held
            request.on_grant()
