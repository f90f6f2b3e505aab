"""The CUDA calls of the dense CRF, as a protocol and through cuda-bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from ....errors import BackendError
from ...backends.tensorrt.driver import CudaDriver
from .compiler import load_cubin
from .source import read_signatures

_KEPT_BYTES = 2**64 - 1  # of freed memory: all


class Driver(Protocol):
    """Device memory is an address; streams, graphs and executables are handles. Each call may raise BackendError.

    Attributes:
        idle_streams: streams that no queue uses.
    """

    idle_streams: list[int]

    @property
    def architecture(self) -> str:
        """The GPU's, such as "sm_90"."""

    @property
    def place(self) -> tuple[int, int]:
        """DLPack's device type and number."""

    def activate(self) -> None:
        """Make the device current in the calling thread."""

    def create_stream(self) -> int:
        """Create a stream."""

    def synchronize(self, stream: int) -> None:
        """Block until all work on the stream has finished."""

    def allocate_queued(self, size_bytes: int, stream: int) -> int:
        """Allocate memory for use on the stream."""

    def free_queued(self, address: int, stream: int) -> None:
        """Free memory after the work queued so far."""

    def copy_to_device(self, address: int, memory: npt.NDArray[Any], stream: int) -> None:
        """Queue a copy of a contiguous host array, which may change when the call has returned."""

    def copy_to_host(self, memory: npt.NDArray[Any], address: int, stream: int) -> None:
        """Queue a copy that fills a contiguous host array."""

    def launch_kernel(self, name: str, blocks: int, threads: int, arguments: Sequence[Any], stream: int) -> None:
        """Queue a kernel; arguments are ctypes values of the types of its parameters."""

    def begin_capture(self, stream: int) -> None:
        """Start to record what this thread queues on the stream, instead of running it."""

    def end_capture(self, stream: int) -> int:
        """Stop recording; return the graph."""

    def instantiate(self, graph: int) -> int:
        """Make an executable of a graph."""

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph; its executables stay valid."""

    def launch(self, executable: int, stream: int) -> None:
        """Queue all operations of an executable graph."""

    def destroy_executable(self, executable: int) -> None:
        """Destroy an executable graph."""


class KernelDriver(CudaDriver):
    """The driver by cuda-bindings: what backends use, and kernels."""

    place = (2, 0)  # DLPack's kDLCUDA

    def __init__(self) -> None:
        """Load the kernels for the device; errors as of `open_driver`."""
        super().__init__()
        from cuda.bindings import driver

        self._driver: Any = driver
        self.idle_streams: list[int] = []
        attributes = self._runtime.cudaDeviceAttr
        major = self._call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, 0)
        minor = self._call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, 0)
        self.architecture = f"sm_{major}{minor}"
        pool = self._call("cudaDeviceGetDefaultMemPool", 0)
        threshold = self._runtime.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        self._call("cudaMemPoolSetAttribute", pool, threshold, driver.cuuint64_t(_KEPT_BYTES))
        self._module = self._call_driver("cuModuleLoadData", load_cubin(self.architecture))
        self._kernels = {
            name: self._call_driver("cuModuleGetFunction", self._module, name.encode()) for name in read_signatures()
        }

    def allocate_queued(self, size_bytes: int, stream: int) -> int:
        """Allocate memory for use on the stream."""
        return int(self._call("cudaMallocAsync", size_bytes, stream))

    def free_queued(self, address: int, stream: int) -> None:
        """Free memory after the work queued so far."""
        self._call("cudaFreeAsync", address, stream)

    def launch_kernel(self, name: str, blocks: int, threads: int, arguments: Sequence[Any], stream: int) -> None:
        """Queue a kernel; arguments are ctypes values of the types of its parameters."""
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        grid, block = (blocks, 1, 1), (threads, 1, 1)
        self._call_driver(
            "cuLaunchKernel", self._kernels[name], *grid, *block, 0, stream, ctypes.addressof(pointers), 0
        )

    def _call_driver(self, name: str, *arguments: Any) -> Any:
        """Call CUDA's driver; return its result, if it has one."""
        status, *results = getattr(self._driver, name)(*arguments)
        if int(status) != 0:
            raise BackendError(f"CUDA's {name} failed: {getattr(status, 'name', status)} ({int(status)})")
        return results[0] if results else None
