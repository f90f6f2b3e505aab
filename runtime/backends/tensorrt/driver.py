"""What the runner needs of CUDA, as a protocol, and CUDA itself behind it by NVIDIA's cuda-bindings.

Device memory is an address, pinned host memory a uint8 array, a stream, an event or a graph a handle. Every copy and
every kernel goes to a stream of its own; the default stream is never used, as it waits for all others.
`scripts.gpu_bench.fake_driver.FakeDriver` is the same without a GPU, for tests.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np

from ....dependencies import import_optional
from ....errors import BackendError
from ..protocol import Array

_DEVICE = 0  # of those that CUDA_VISIBLE_DEVICES shows


class Driver(Protocol):
    """CUDA's runtime as far as inference needs it. Every call may raise BackendError with CUDA's own words."""

    def activate(self) -> None:
        """Make the device current in the calling thread; each thread calls it before anything else."""

    def allocate(self, size_bytes: int) -> int:
        """Device memory; its address."""

    def free(self, address: int) -> None:
        """Give device memory back."""

    def allocate_pinned(self, size_bytes: int) -> Array:
        """Page-locked host memory, which copies need to run beside kernels: uint8 of that size."""

    def free_pinned(self, memory: Array) -> None:
        """Give page-locked memory back; no view of it may be used any more."""

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Free a stream; its work ends first."""

    def create_event(self) -> int:
        """An event that takes the time."""

    def destroy_event(self, event: int) -> None:
        """Free an event."""

    def record_event(self, event: int, stream: int) -> None:
        """Mark the place that a stream's queue ends at now."""

    def wait_event(self, stream: int, event: int) -> None:
        """Let a stream's further work wait until the event's last record has passed."""

    def synchronize_event(self, event: int) -> None:
        """Wait here until the event's last record has passed."""

    def measure_ms(self, start: int, end: int) -> float:
        """Device time between two events that have passed."""

    def copy_to_device(self, address: int, memory: Array, stream: int) -> None:
        """Queue a copy of (a part of) pinned memory to the device."""

    def copy_to_host(self, memory: Array, address: int, stream: int) -> None:
        """Queue a copy from the device that fills (a part of) pinned memory."""

    def synchronize(self, stream: int) -> None:
        """Wait here until a stream's queue is empty."""

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues on a stream from now on, instead of running it."""

    def end_capture(self, stream: int) -> int:
        """End the recording; the graph."""

    def count_nodes(self, graph: int) -> int:
        """How many operations a graph holds."""

    def instantiate(self, graph: int) -> int:
        """Make a graph ready to be launched, and free the graph; the executable."""

    def launch(self, executable: int, stream: int) -> None:
        """Queue all of a graph's operations."""

    def destroy_executable(self, executable: int) -> None:
        """Free an executable graph."""


class CudaDriver:
    """CUDA by cuda-bindings (12 or later); without torch."""

    def __init__(self) -> None:
        """Start CUDA.

        Raises:
            MissingDependencyError: if cuda-bindings is not installed.
            BackendError: if there is no driver or no device.
        """
        import_optional("cuda.bindings")
        try:
            from cuda.bindings import runtime
        except Exception as error:  # a native library may fail to load in any way
            raise BackendError(f"cuda-bindings cannot be loaded: {error}") from error
        self._runtime: Any = runtime
        self.activate()

    def activate(self) -> None:
        """See `Driver`."""
        self._call("cudaSetDevice", _DEVICE)

    def allocate(self, size_bytes: int) -> int:
        """See `Driver`."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """See `Driver`."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size_bytes: int) -> Array:
        """See `Driver`."""
        address = int(self._call("cudaMallocHost", size_bytes))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))

    def free_pinned(self, memory: Array) -> None:
        """See `Driver`."""
        self._call("cudaFreeHost", memory.ctypes.data)

    def create_stream(self) -> int:
        """See `Driver`."""
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """See `Driver`."""
        self._call("cudaStreamDestroy", stream)

    def create_event(self) -> int:
        """See `Driver`."""
        return int(self._call("cudaEventCreate"))

    def destroy_event(self, event: int) -> None:
        """See `Driver`."""
        self._call("cudaEventDestroy", event)

    def record_event(self, event: int, stream: int) -> None:
        """See `Driver`."""
        self._call("cudaEventRecord", event, stream)

    def wait_event(self, stream: int, event: int) -> None:
        """See `Driver`."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """See `Driver`."""
        self._call("cudaEventSynchronize", event)

    def measure_ms(self, start: int, end: int) -> float:
        """See `Driver`."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def copy_to_device(self, address: int, memory: Array, stream: int) -> None:
        """See `Driver`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, memory.ctypes.data, memory.nbytes, kind, stream)

    def copy_to_host(self, memory: Array, address: int, stream: int) -> None:
        """See `Driver`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", memory.ctypes.data, address, memory.nbytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        """See `Driver`."""
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """See `Driver`."""
        # Only this thread's calls are restricted meanwhile; the default mode would break other threads' allocations.
        self._call(
            "cudaStreamBeginCapture", stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )

    def end_capture(self, stream: int) -> int:
        """See `Driver`."""
        return int(self._call("cudaStreamEndCapture", stream))

    def count_nodes(self, graph: int) -> int:
        """See `Driver`."""
        counted = self._call("cudaGraphGetNodes", graph, 0)  # the nodes asked for (none), and how many there are
        return int(counted[-1])

    def instantiate(self, graph: int) -> int:
        """See `Driver`."""
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, executable: int, stream: int) -> None:
        """See `Driver`."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_executable(self, executable: int) -> None:
        """See `Driver`."""
        self._call("cudaGraphExecDestroy", executable)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call CUDA; its one result, its tuple of results, or None."""
        status, *results = getattr(self._runtime, name)(*arguments)
        if int(status) != 0:
            raise BackendError(f"CUDA's {name} failed: {_describe(status)}")
        return results[0] if len(results) == 1 else tuple(results) or None


def _describe(status: Any) -> str:
    hints = {
        2: "the device's memory is full: use a smaller batch or image, or fewer slots",
        35: "the driver is older than this CUDA, or there is none: see `atrous doctor`",
        100: "no device: see `atrous doctor`",
    }
    hint = hints.get(int(status))
    return f"{getattr(status, 'name', status)} ({int(status)})" + (f"; {hint}" if hint else "")
