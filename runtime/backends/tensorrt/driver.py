"""The CUDA calls that inference needs, through NVIDIA's cuda-bindings.

Device memory is an address, pinned host memory a uint8 array; streams, events and graphs are handles. Every copy and
kernel is queued on a stream created here, never on the default stream, which synchronizes with all others.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....dependencies import import_optional
from ....errors import BackendError
from ..protocol import Array

_DEVICE = 0  # of those that CUDA_VISIBLE_DEVICES shows


class CudaDriver:
    """CUDA's runtime. Every call may raise BackendError with CUDA's error name."""

    def __init__(self) -> None:
        """Initialize CUDA; BackendError if there is no driver or device."""
        import_optional("cuda.bindings")
        try:
            from cuda.bindings import runtime
        except Exception as error:  # loading a native library may raise anything
            raise BackendError(f"cuda-bindings cannot be loaded: {error}") from error
        self._runtime: Any = runtime
        self.activate()

    def activate(self) -> None:
        """Make the device current in the calling thread, which must do so before any other call."""
        self._call("cudaSetDevice", _DEVICE)

    def allocate(self, size_bytes: int) -> int:
        """Allocate device memory; return its address."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size_bytes: int) -> Array:
        """Allocate page-locked host memory as uint8; only copies of such memory overlap with kernels."""
        address = int(self._call("cudaMallocHost", size_bytes))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))

    def free_pinned(self, memory: Array) -> None:
        """Free page-locked memory; no view of it may be used afterwards."""
        self._call("cudaFreeHost", memory.ctypes.data)

    def create_stream(self) -> int:
        """Create a stream that does not synchronize with the default stream."""
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream after its work has finished."""
        self._call("cudaStreamDestroy", stream)

    def create_event(self) -> int:
        """Create an event that records the time."""
        return int(self._call("cudaEventCreate"))

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        self._call("cudaEventDestroy", event)

    def record_event(self, event: int, stream: int) -> None:
        """Record the event when the work queued on the stream so far has finished."""
        self._call("cudaEventRecord", event, stream)

    def wait_event(self, stream: int, event: int) -> None:
        """Make later work on the stream wait for the event's last record."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """Block until the event's last record has passed."""
        self._call("cudaEventSynchronize", event)

    def measure_ms(self, start: int, end: int) -> float:
        """Return the device time between two events that have passed, in milliseconds."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def copy_to_device(self, address: int, memory: Array, stream: int) -> None:
        """Queue a copy of pinned memory, or of a contiguous part, to the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, memory.ctypes.data, memory.nbytes, kind, stream)

    def copy_to_host(self, memory: Array, address: int, stream: int) -> None:
        """Queue a copy from the device that fills pinned memory, or a contiguous part."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", memory.ctypes.data, address, memory.nbytes, kind, stream)

    def copy_on_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queue a copy from one address of the device to another."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        """Block until all work on the stream has finished."""
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """Start to record what this thread queues on the stream, instead of running it."""
        # Restricts the calls of this thread only; the default mode would break allocations of other threads.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """Stop recording; return the graph."""
        return int(self._call("cudaStreamEndCapture", stream))

    def count_nodes(self, graph: int) -> int:
        """Return the number of operations in a graph."""
        return int(self._call("cudaGraphGetNodes", graph, 0)[-1])  # (nodes, ..., their number), with no nodes asked for

    def instantiate(self, graph: int) -> int:
        """Make an executable of a graph."""
        return int(self._call("cudaGraphInstantiate", graph, 0))

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph; its executables stay valid."""
        self._call("cudaGraphDestroy", graph)

    def launch(self, executable: int, stream: int) -> None:
        """Queue all operations of an executable graph."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_executable(self, executable: int) -> None:
        """Destroy an executable graph."""
        self._call("cudaGraphExecDestroy", executable)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call CUDA; return its result, a tuple of several results, or None."""
        status, *results = getattr(self._runtime, name)(*arguments)
        if int(status) != 0:
            raise BackendError(f"CUDA's {name} failed: {_describe(status)}")
        return results[0] if len(results) == 1 else tuple(results) or None


def _describe(status: Any) -> str:
    hints = {
        2: "the device's memory is full: use a smaller batch or image, or fewer slots",
        35: "the driver is missing or older than this CUDA: see `atrous doctor`",
        100: "no device: see `atrous doctor`",
    }
    hint = hints.get(int(status))
    return f"{getattr(status, 'name', status)} ({int(status)})" + (f"; {hint}" if hint else "")


class TensorMemory:
    """Memory of one tensor of one slot: a device block at `address` and a pinned host block, which never shrink.

    A block keeps its address until a larger image needs more, so a CUDA graph captured with the address stays valid.
    """

    def __init__(self, driver: CudaDriver, dtype: str):
        self.address = 0
        self._driver = driver
        self._dtype = np.dtype(dtype)
        self._pinned: Array | None = None

    def fit(self, shape: Sequence[int]) -> Array:
        """Make both blocks large enough for a tensor; return the pinned one as an array of that shape and dtype.

        Raises:
            BackendError: if there is no memory left; both blocks are free then, and the next call tries again.
        """
        size_bytes = math.prod(shape) * self._dtype.itemsize
        if self._pinned is None or self._pinned.nbytes < size_bytes:
            self.free()
            pinned = self._driver.allocate_pinned(size_bytes)
            try:
                self.address = self._driver.allocate(size_bytes)
            except BaseException:
                self._driver.free_pinned(pinned)
                raise
            self._pinned = pinned
        return self._pinned[:size_bytes].view(self._dtype).reshape(tuple(shape))

    def free(self) -> None:
        """Free both blocks; nothing that is queued may use them."""
        address, pinned = self.address, self._pinned
        self.address, self._pinned = 0, None
        if address:
            self._driver.free(address)
        if pinned is not None:
            self._driver.free_pinned(pinned)
