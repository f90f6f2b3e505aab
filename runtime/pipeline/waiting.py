"""Waiting for a change of the state that one lock guards, safe against Ctrl-C."""

from __future__ import annotations

import threading
from collections import deque
from queue import Empty, SimpleQueue

Ticket = SimpleQueue[None]


class WaitList:
    """The threads that wait for one kind of change.

    `threading.Condition` does the same, but an exception that interrupts it, such as Ctrl-C in the main thread, can
    leave its lock or its waiters in a state in which a later call fails or hangs (seen in CPython 3.11). Here every
    step is a single call into C, and repeating a step is harmless.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._tickets: deque[Ticket] = deque()

    def join(self) -> Ticket:
        """Queue up, under the lock. `get()` of the ticket, without the lock, returns after the next `notify`."""
        ticket: Ticket = SimpleQueue()
        self._tickets.append(ticket)
        return ticket

    def wait(self, most_s: float | None = None) -> None:
        """Wait for the next `notify`, or `most_s` seconds: called under the lock, which is free meanwhile.

        Only for threads that no signal interrupts; the main thread uses `join`.
        """
        ticket, is_over = self.join(), False
        self._lock.release()
        try:
            ticket.get(timeout=most_s)
        except Empty:
            is_over = True
        finally:
            self._lock.acquire()
        if is_over and ticket in self._tickets:  # else it was woken just now
            self._tickets.remove(ticket)

    def notify(self) -> None:
        """Wake the thread that has waited longest; called under the lock."""
        if self._tickets:
            self._tickets[0].put(None)  # before it leaves the list, so that an interrupt here costs no wake-up
            self._tickets.popleft()

    def notify_all(self) -> None:
        """Wake all threads; called under the lock."""
        while self._tickets:
            self.notify()
