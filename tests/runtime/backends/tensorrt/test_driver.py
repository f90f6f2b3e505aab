"""The CUDA driver on a stand-in for cuda-bindings: calls, results and errors; no GPU."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest

from atrous.errors import BackendError
from atrous.runtime.backends.tensorrt.driver import CudaDriver

runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")


class Status(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815


class Recorder:
    """Returns success and a prepared result from every function that the real library has."""

    def __init__(self, **results: tuple[Any, ...]):
        self.calls: list[tuple[Any, ...]] = []
        self.results = results
        self.status = Status.cudaSuccess

    def __getattr__(self, name: str) -> Any:
        real = getattr(runtime, name)  # a name the library lacks fails here
        if not callable(real) or isinstance(real, type):
            return real

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            return (self.status, *self.results.get(name, ()))

        return call


def make_driver(recorder: Recorder) -> CudaDriver:
    driver = CudaDriver.__new__(CudaDriver)
    driver._runtime = recorder
    return driver


def test_calls() -> None:
    recorder = Recorder(
        cudaMalloc=(4096,),
        cudaStreamCreateWithFlags=(runtime.cudaStream_t(5),),
        cudaEventCreate=(runtime.cudaEvent_t(6),),
        cudaEventElapsedTime=(1.5,),
        cudaStreamEndCapture=(runtime.cudaGraph_t(7),),
        cudaGraphGetNodes=(None, None, 3),
        cudaGraphInstantiate=(runtime.cudaGraphExec_t(8),),
    )
    driver = make_driver(recorder)
    memory = np.zeros(10, np.uint8)
    driver.activate()
    assert (driver.allocate(100), driver.create_stream(), driver.create_event()) == (4096, 5, 6)
    driver.copy_to_device(4096, memory[:4], 5)
    driver.copy_to_host(memory[2:], 4096, 5)
    driver.copy_on_device(8192, 4096, 40, 5)
    assert driver.measure_ms(6, 6) == 1.5
    driver.begin_capture(5)
    assert driver.end_capture(5) == 7
    assert driver.count_nodes(7) == 3
    assert driver.instantiate(7) == 8
    driver.destroy_graph(7)
    kind, mode = runtime.cudaMemcpyKind, runtime.cudaStreamCaptureMode
    assert recorder.calls == [
        ("cudaSetDevice", 0),
        ("cudaMalloc", 100),
        ("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking),
        ("cudaEventCreate",),
        ("cudaMemcpyAsync", 4096, memory.ctypes.data, 4, kind.cudaMemcpyHostToDevice, 5),
        ("cudaMemcpyAsync", memory.ctypes.data + 2, 4096, 8, kind.cudaMemcpyDeviceToHost, 5),
        ("cudaMemcpyAsync", 8192, 4096, 40, kind.cudaMemcpyDeviceToDevice, 5),
        ("cudaEventElapsedTime", 6, 6),
        ("cudaStreamBeginCapture", 5, mode.cudaStreamCaptureModeThreadLocal),
        ("cudaStreamEndCapture", 5),
        ("cudaGraphGetNodes", 7, 0),
        ("cudaGraphInstantiate", 7, 0),
        ("cudaGraphDestroy", 7),
    ]


def test_pinned_memory_is_the_librarys_own() -> None:
    block = np.arange(8, dtype=np.uint8)
    recorder = Recorder(cudaMallocHost=(block.ctypes.data,))
    memory = make_driver(recorder).allocate_pinned(8)
    assert memory.dtype == np.uint8
    memory[3] = 99
    assert block[3] == 99
    make_driver(recorder).free_pinned(memory)
    assert recorder.calls[-1] == ("cudaFreeHost", block.ctypes.data)


def test_every_other_call_exists_in_the_library() -> None:
    recorder = Recorder()
    driver = make_driver(recorder)
    for name, arguments in (
        ("free", (1,)),
        ("destroy_stream", (1,)),
        ("destroy_event", (1,)),
        ("record_event", (1, 2)),
        ("wait_event", (1, 2)),
        ("synchronize_event", (1,)),
        ("synchronize", (1,)),
        ("launch", (1, 2)),
        ("destroy_executable", (1,)),
    ):
        getattr(driver, name)(*arguments)
    assert len(recorder.calls) == 9
    assert ("cudaStreamWaitEvent", 1, 2, 0) in recorder.calls


def test_errors_have_cudas_words_and_what_to_do() -> None:
    recorder = Recorder()
    recorder.status = Status.cudaErrorMemoryAllocation
    with pytest.raises(BackendError, match=r"cudaMalloc failed: cudaErrorMemoryAllocation \(2\); .*smaller batch"):
        make_driver(recorder).allocate(1)


def test_no_gpu() -> None:
    status, *_ = runtime.cudaSetDevice(0)
    if int(status) == 0:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match=r"cudaSetDevice failed: cudaError.*doctor"):
        CudaDriver()
