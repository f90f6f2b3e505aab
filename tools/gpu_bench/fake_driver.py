"""A CUDA driver without a GPU: NumPy memory, streams that run late, a simulated clock, and errors for misuse.

Work that is queued on a stream does not run until something waits for it, and then no more than that: code that does
not wait for a copy reads memory that was never written. With a `seed`, work of other streams also runs at random
moments in between, which detects memory that is written too early. CUDA may choose both orders.

The clock counts milliseconds of the simulated device: a copy takes `bytes / bytes_per_ms`, a kernel the time its caller
states; operations of one stream run one after the other, streams run in parallel, so overlap can be measured.
"""
# ruff: noqa: D102 - the methods are documented in CudaDriver

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sized
from dataclasses import dataclass, field

import numpy as np

from atrous.errors import BackendError
from atrous.runtime.backends.protocol import Array
from atrous.runtime.backends.tensorrt.driver import CudaDriver

_FIRST_ADDRESS = 0x7000_0000_0000
_ALIGNMENT = 256  # of cudaMalloc
_POISON = 0xA5


class DriverMisuseError(AssertionError):
    """A use that CUDA refuses or leaves undefined."""


@dataclass
class _Operation:
    """One entry of a stream's queue: work, an event's record, or a wait for one."""

    work: Callable[[], None] | None = None
    duration_ms: float = 0.0
    event: tuple[int, int] | None = None  # the event and which of its records this is
    wait: tuple[int, int] | None = None


@dataclass
class _Stream:
    queue: deque[_Operation] = field(default_factory=deque)
    time_ms: float = 0.0
    capture: list[_Operation] | None = None


@dataclass
class _Event:
    records: int = 0
    passed: int = 0
    stream: int = 0
    time_ms: float = 0.0


class FakeDriver(CudaDriver):
    """A simulated device.

    Attributes:
        calls: number of calls of each method.
        now_ms: the host's time on the simulated clock.
    """

    def __init__(self, *, seed: int | None = None, bytes_per_ms: float = 20e6, memory_bytes: int = 1 << 33):
        """Create a device.

        Args:
            seed: for a random order of streams; None runs everything as late as possible.
            bytes_per_ms: speed of copies in each direction.
            memory_bytes: size of the device's memory.
        """
        self.calls: Counter[str] = Counter()
        self.now_ms = 0.0
        self._random = random.Random(seed) if seed is not None else None
        self._bytes_per_ms = bytes_per_ms
        self._free_bytes = memory_bytes
        self._blocks: dict[int, Array] = {}
        self._freed: dict[int, int] = {}  # address -> size
        self._next_address = _FIRST_ADDRESS
        self._pinned: dict[int, Array] = {}
        self._streams: dict[int, _Stream] = {}
        self._events: dict[int, _Event] = {}
        self._graphs: dict[int, list[_Operation]] = {}
        self._executables: dict[int, list[_Operation]] = {}
        self._handles = 0

    # ---- CudaDriver

    def activate(self) -> None:
        self.calls["activate"] += 1

    def allocate(self, size_bytes: int) -> int:
        self._count("allocate")
        if size_bytes > self._free_bytes:
            raise BackendError("the fake device's memory is full")
        self._free_bytes -= size_bytes
        address, self._next_address = self._next_address, self._next_address + -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
        self._blocks[address] = np.full(size_bytes, _POISON, np.uint8)
        return address

    def free(self, address: int) -> None:
        self._count("free")
        block = self._blocks.pop(address, None)
        if block is None:
            raise DriverMisuseError(
                "double free" if address in self._freed else "free of memory that was never allocated"
            )
        self._freed[address] = block.nbytes
        self._free_bytes += block.nbytes

    def allocate_pinned(self, size_bytes: int) -> Array:
        self._count("allocate_pinned")
        memory = np.full(size_bytes, _POISON, np.uint8)
        self._pinned[memory.ctypes.data] = memory
        return memory

    def free_pinned(self, memory: Array) -> None:
        self._count("free_pinned")
        if self._pinned.pop(memory.ctypes.data, None) is None:
            raise DriverMisuseError("free of pinned memory that does not exist")

    def create_stream(self) -> int:
        self._count("create_stream")
        self._streams[handle := self._new_handle()] = _Stream()
        return handle

    def destroy_stream(self, stream: int) -> None:
        self.synchronize(stream)
        del self._streams[stream]

    def create_event(self) -> int:
        self._count("create_event")
        self._events[handle := self._new_handle()] = _Event()
        return handle

    def destroy_event(self, event: int) -> None:
        self._find_event(event)
        del self._events[event]

    def record_event(self, event: int, stream: int) -> None:
        self.calls["record_event"] += 1
        found = self._find_event(event)
        if self._find_stream(stream).capture is not None:
            raise DriverMisuseError("an event that records the time cannot be captured")
        found.records += 1
        found.stream = stream
        self._queue(stream, _Operation(event=(event, found.records)))

    def wait_event(self, stream: int, event: int) -> None:
        self.calls["wait_event"] += 1
        found = self._find_event(event)
        if not found.records:
            raise DriverMisuseError("a wait for an event that was never recorded has no effect")
        self._queue(stream, _Operation(wait=(event, found.records)))

    def synchronize_event(self, event: int) -> None:
        self._count("synchronize_event")
        found = self._find_event(event)
        if not found.records:
            raise DriverMisuseError("a wait for an event that was never recorded has no effect")
        self._run_until(event, found.records)
        self.now_ms = max(self.now_ms, found.time_ms)

    def measure_ms(self, start: int, end: int) -> float:
        first, last = self._find_event(start), self._find_event(end)
        if not (first.records and last.records and first.passed == first.records and last.passed == last.records):
            raise DriverMisuseError("time between events that have not passed")
        return last.time_ms - first.time_ms

    def copy_to_device(self, address: int, memory: Array, stream: int) -> None:
        self.calls["copy_to_device"] += 1
        self._check_pinned(memory)
        self._view(address, memory.nbytes)

        def copy() -> None:
            self._check_pinned(memory)
            self._view(address, memory.nbytes)[:] = memory.reshape(-1).view(np.uint8)

        self._queue(stream, _Operation(copy, memory.nbytes / self._bytes_per_ms))

    def copy_to_host(self, memory: Array, address: int, stream: int) -> None:
        self.calls["copy_to_host"] += 1
        self._check_pinned(memory)
        self._view(address, memory.nbytes)

        def copy() -> None:
            self._check_pinned(memory)
            memory.reshape(-1).view(np.uint8)[:] = self._view(address, memory.nbytes)

        self._queue(stream, _Operation(copy, memory.nbytes / self._bytes_per_ms))

    def copy_on_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        self.calls["copy_on_device"] += 1
        for address in (target, source):
            self._view(address, size_bytes)

        def copy() -> None:
            self._view(target, size_bytes)[:] = self._view(source, size_bytes)

        self._queue(stream, _Operation(copy))

    def synchronize(self, stream: int) -> None:
        self._count("synchronize")
        found = self._find_stream(stream)
        while found.queue:
            self._step(stream)
        self.now_ms = max(self.now_ms, found.time_ms)

    def begin_capture(self, stream: int) -> None:
        self._count("begin_capture")
        self._find_stream(stream).capture = []

    def end_capture(self, stream: int) -> int:
        self.calls["end_capture"] += 1
        found = self._find_stream(stream)
        if found.capture is None:
            raise DriverMisuseError("end of a capture that never began")
        self._graphs[handle := self._new_handle()] = found.capture
        found.capture = None
        return handle

    def count_nodes(self, graph: int) -> int:
        return len(self._graphs[graph])

    def instantiate(self, graph: int) -> int:
        self._count("instantiate")
        operations = self._graphs[graph]
        if not operations:
            raise DriverMisuseError("an empty capture: its launches would compute nothing")
        self._executables[handle := self._new_handle()] = operations
        return handle

    def destroy_graph(self, graph: int) -> None:
        if self._graphs.pop(graph, None) is None:
            raise DriverMisuseError("a graph destroyed twice")

    def launch(self, executable: int, stream: int) -> None:
        self.calls["launch"] += 1
        if executable not in self._executables:
            raise DriverMisuseError("launch of a graph that was destroyed")
        for operation in self._executables[executable]:
            self._queue(stream, operation)

    def destroy_executable(self, executable: int) -> None:
        if self._executables.pop(executable, None) is None:
            raise DriverMisuseError("a graph destroyed twice")

    # ---- for fake engines and tests

    def run_kernel(self, work: Callable[[], None], duration_ms: float, stream: int) -> None:
        """Queue a kernel."""
        self.calls["run_kernel"] += 1
        self._queue(stream, _Operation(work, duration_ms))

    def is_capturing(self, stream: int) -> bool:
        """Whether a stream is being captured."""
        return self._find_stream(stream).capture is not None

    def view_memory(self, address: int, size_bytes: int) -> Array:
        """Return device memory as uint8; rejects memory that is freed or out of bounds."""
        return self._view(address, size_bytes)

    def list_leaks(self) -> list[str]:
        """Return what was not freed, such as "2 events"."""
        kinds: dict[str, Sized] = {
            "device memory": self._blocks,
            "pinned memory": self._pinned,
            "streams": self._streams,
            "events": self._events,
            "graphs": {**self._graphs, **self._executables},
        }
        return [f"{len(left)} {kind}" for kind, left in kinds.items() if left]

    # ---- inside

    def _queue(self, stream: int, operation: _Operation) -> None:
        found = self._find_stream(stream)
        if found.capture is not None:
            found.capture.append(operation)
            return
        found.time_ms = max(found.time_ms, self.now_ms) if not found.queue else found.time_ms
        found.queue.append(operation)
        while self._random is not None and self._random.random() < 0.6:
            ready = [name for name, candidate in self._streams.items() if candidate.queue]
            if not ready:
                break
            self._step(self._random.choice(ready))

    def _step(self, stream: int) -> None:
        """Run the first operation of a stream, after what it waits for."""
        found = self._streams[stream]
        operation = found.queue[0]
        if operation.wait is not None:
            event, record = operation.wait
            if self._events[event].passed < record:
                self._run_until(event, record)
            found.time_ms = max(found.time_ms, self._events[event].time_ms)
        if operation.work is not None:
            operation.work()
        found.time_ms += operation.duration_ms
        if operation.event is not None:
            event, record = operation.event
            self._events[event].passed = record
            self._events[event].time_ms = found.time_ms
        found.queue.popleft()

    def _run_until(self, event: int, record: int) -> None:
        found = self._find_event(event)
        while found.passed < record:
            self._step(found.stream)

    def _view(self, address: int, size_bytes: int) -> Array:
        for base, block in self._blocks.items():
            if base <= address < base + max(block.nbytes, 1):
                if address + size_bytes > base + block.nbytes:
                    raise DriverMisuseError(f"{size_bytes} bytes in a block of {base + block.nbytes - address}")
                return block[address - base : address - base + size_bytes]
        for base, size in self._freed.items():
            if base <= address < base + size:
                raise DriverMisuseError("use after free")
        raise DriverMisuseError("use of memory that was never allocated")

    def _check_pinned(self, memory: Array) -> None:
        start = memory.ctypes.data
        inside = any(base <= start and start + memory.nbytes <= base + m.nbytes for base, m in self._pinned.items())
        if not inside or not memory.flags.c_contiguous:
            raise DriverMisuseError("an asynchronous copy of memory that is not pinned, or beyond its end")

    def _find_stream(self, stream: int) -> _Stream:
        if stream == 0:
            raise DriverMisuseError("use of the default stream, which synchronizes with all others")
        if stream not in self._streams:
            raise DriverMisuseError("use of a stream that does not exist")
        return self._streams[stream]

    def _find_event(self, event: int) -> _Event:
        if event not in self._events:
            raise DriverMisuseError("use of an event that does not exist")
        return self._events[event]

    def _count(self, name: str) -> None:
        """Count a call that CUDA refuses during a capture."""
        self.calls[name] += 1
        if any(stream.capture is not None for stream in self._streams.values()):
            raise DriverMisuseError(f"{name} during a capture")

    def _new_handle(self) -> int:
        self._handles += 1
        return self._handles
