"""A `Driver` on the CPU, which checks what a GPU would not report: sizes of arguments, writes outside of blocks."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atrous.bundle.files import write_file
from atrous.runtime.crf.gpu.source import read_signatures, read_source

_HEADER = Path(__file__).with_name("emulation.h")
_BUILD = Path(__file__).resolve().parents[2] / "build" / "cuda_on_cpu"
_FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC"]
_WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-maybe-uninitialized"]

_GUARD = 256  # bytes around each block
_POISON = 0xFF  # as a float, NaN


def build_library(compiler: str = "", flags: Sequence[str] = ()) -> Path:
    """Compile the kernels by g++ (or $CXX) into build/, once for each source; return the shared library."""
    chosen = compiler or os.environ.get("CXX", "g++")
    names = "".join(f"REGISTER({name})\n" for name in read_signatures())
    source = f"{_HEADER.read_text()}\n{read_source()}\n{names}"
    options = [*_FLAGS, *_WARNINGS, *flags]
    key = hashlib.sha256("\n".join([chosen, *options, source]).encode()).hexdigest()[:16]
    library = _BUILD / f"{key}.so"
    if not library.exists():
        write_file(_BUILD / f"{key}.cpp", source.encode())
        partial = library.with_suffix(f".{os.getpid()}.so")
        subprocess.run([chosen, *options, str(_BUILD / f"{key}.cpp"), "-o", str(partial)], check=True, timeout=300)
        os.replace(partial, library)
    return library


@dataclass
class _Graph:
    launches: list[tuple[str, int, int, list[Any]]] = field(default_factory=list)


class EmulatedDriver:
    """Runs everything when it is queued, in the calling thread; several threads may use it.

    Attributes:
        backward: whether threads and blocks run last to first.
        launches: number of kernels that ran.
        replays: number of graphs that ran.
        allocated_bytes: memory not freed.
    """

    architecture = "sm_90"
    place = (1, 0)  # DLPack's kDLCPU

    def __init__(self, *, backward: bool = False, library: Path | None = None) -> None:
        self.backward = backward
        self.launches = self.replays = self.allocated_bytes = 0
        self._library = ctypes.CDLL(str(library or build_library()))
        self._blocks: dict[int, tuple[int, npt.NDArray[np.uint8]]] = {}  # address -> (size, memory with guards)
        self._graphs: dict[int, _Graph] = {}
        self._captures: dict[int, _Graph] = {}  # by stream
        self._streams: set[int] = set()
        self.idle_streams: list[int] = []
        self._next = 1
        self._threads = threading.local()
        self._lock = threading.RLock()  # of the counters; memory may be freed wherever Python collects garbage
        for name, types in read_signatures().items():
            sizes = (ctypes.c_uint * 32)()
            count = self._library.parameter_sizes(name.encode(), sizes)
            if [ctypes.sizeof(kind) for kind in types] != list(sizes[:count]):
                raise AssertionError(f"{name} takes {list(sizes[:count])} bytes")

    def activate(self) -> None:
        """Let the calling thread use the device."""
        self._threads.is_active = True

    def create_stream(self) -> int:
        """Create a stream."""
        self._streams.add(stream := self._number())
        return stream

    def synchronize(self, stream: int) -> None:
        """Check the stream: its work is done."""
        self._require(stream)
        if stream in self._captures:
            raise AssertionError("a stream may not be synchronized while it is captured")

    def allocate_queued(self, size_bytes: int, stream: int) -> int:
        """Allocate memory filled with NaN, between guards."""
        self._require(stream)
        if size_bytes <= 0 or stream in self._captures:
            raise AssertionError(f"{size_bytes} bytes, in a capture: {stream in self._captures}")
        memory = np.full(size_bytes + 2 * _GUARD, _POISON, np.uint8)
        address = memory.ctypes.data + _GUARD
        with self._lock:
            self._blocks[address] = size_bytes, memory
            self.allocated_bytes += size_bytes
        return address

    def free_queued(self, address: int, stream: int) -> None:
        """Free memory; writes into its guards raise."""
        with self._lock:
            size_bytes, memory = self._blocks.pop(address)
            self.allocated_bytes -= size_bytes
        self._check(memory)

    def check_guards(self) -> None:
        """Raise if a kernel wrote outside of a block that is still allocated."""
        for _, memory in self._blocks.values():
            self._check(memory)

    def copy_to_device(self, address: int, memory: npt.NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array."""
        self._require(stream)
        self._check_copy(address, memory)
        ctypes.memmove(address, memory.ctypes.data, memory.nbytes)

    def copy_to_host(self, memory: npt.NDArray[Any], address: int, stream: int) -> None:
        """Fill a contiguous host array."""
        self._require(stream)
        self._check_copy(address, memory)
        ctypes.memmove(memory.ctypes.data, address, memory.nbytes)

    def launch_kernel(self, name: str, blocks: int, threads: int, arguments: Sequence[Any], stream: int) -> None:
        """Run a kernel, or record it."""
        self._require(stream)
        if [type(value) for value in arguments] != list(read_signatures()[name]) or not 1 <= threads <= 1024:
            raise AssertionError(f"{name} takes {read_signatures()[name]}, got {arguments}")
        copies = [type(value).from_buffer_copy(value) for value in arguments]
        if stream in self._captures:
            self._captures[stream].launches.append((name, blocks, threads, copies))
        else:
            self._run(name, blocks, threads, copies)

    def begin_capture(self, stream: int) -> None:
        """Record what is launched on the stream from now on."""
        self._require(stream)
        self._captures[stream] = _Graph()

    def end_capture(self, stream: int) -> int:
        """Return the recorded graph."""
        number = self._number()
        self._graphs[number] = self._captures.pop(stream)
        return number

    def instantiate(self, graph: int) -> int:
        """Make an executable of a graph."""
        number = self._number()
        self._graphs[number] = self._graphs[graph]
        return number

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""
        del self._graphs[graph]

    def launch(self, executable: int, stream: int) -> None:
        """Run all kernels of a graph."""
        self._require(stream)
        self.replays += 1
        for name, blocks, threads, arguments in self._graphs[executable].launches:
            self._run(name, blocks, threads, arguments)

    def destroy_executable(self, executable: int) -> None:
        """Destroy an executable."""
        del self._graphs[executable]

    def _run(self, name: str, blocks: int, threads: int, arguments: list[Any]) -> None:
        self.launches += 1
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        self._library.launch(name.encode(), blocks, threads, pointers, int(self.backward))

    def view_memory(self, address: int, size_bytes: int) -> npt.NDArray[np.uint8] | None:
        """A part of a block that is allocated; None for all other memory."""
        for start in list(self._blocks):
            block_bytes, memory = self._blocks.get(start, (0, None))
            if memory is not None and start <= address and address + size_bytes <= start + block_bytes:
                return memory[_GUARD + address - start :][:size_bytes]
        return None

    def _check_copy(self, address: int, memory: npt.NDArray[Any]) -> None:
        """Check that a copy stays inside of a block, and that the host's array is contiguous."""
        if not memory.flags.c_contiguous:
            raise AssertionError("a copy needs a contiguous array")
        if self.view_memory(address, memory.nbytes) is None:
            raise AssertionError("a copy outside of device memory")

    def _require(self, stream: int) -> None:
        if stream not in self._streams:
            raise AssertionError("no such stream")
        if not hasattr(self._threads, "is_active"):
            raise AssertionError("no device is active in this thread")

    def _number(self) -> int:
        with self._lock:
            self._next += 1
            return self._next - 1

    @staticmethod
    def _check(memory: npt.NDArray[np.uint8]) -> None:
        if (memory[:_GUARD] != _POISON).any() or (memory[-_GUARD:] != _POISON).any():
            raise AssertionError("a kernel wrote outside of its memory")
