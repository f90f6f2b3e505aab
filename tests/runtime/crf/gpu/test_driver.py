"""The calls of the CUDA driver against the names and types of the real cuda-bindings; no GPU."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from atrous.errors import BackendError
from atrous.runtime.crf.gpu import driver as module
from atrous.runtime.crf.gpu.driver import KernelDriver
from atrous.runtime.crf.gpu.source import read_signatures

runtime = pytest.importorskip("cuda.bindings.runtime", reason="make cuda-check installs cuda-bindings")
driver = pytest.importorskip("cuda.bindings.driver", reason="make cuda-check installs cuda-bindings")


class Recorder:
    """Returns success and a prepared result from every function that the real library has."""

    def __init__(self, real: Any, **results: Any) -> None:
        self.real, self.results, self.status = real, results, 0
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        known = getattr(self.real, name)  # a name the library lacks fails here
        if not callable(known) or isinstance(known, type):
            return known

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            return (self.status, *([self.results[name]] if name in self.results else []))

        return call


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> tuple[Recorder, Recorder]:
    pool = runtime.cudaMemPool_t(3)
    of_runtime = Recorder(
        runtime,
        cudaDeviceGetAttribute=9,
        cudaDeviceGetDefaultMemPool=pool,
        cudaMallocAsync=4096,
        cudaStreamCreateWithFlags=runtime.cudaStream_t(5),
    )
    of_driver = Recorder(driver, cuModuleLoadData=driver.CUmodule(1), cuModuleGetFunction=driver.CUfunction(2))
    import cuda.bindings

    monkeypatch.setattr(cuda.bindings, "runtime", of_runtime)
    monkeypatch.setattr(cuda.bindings, "driver", of_driver)
    monkeypatch.setattr(module, "load_cubin", lambda architecture: architecture.encode())
    return of_runtime, of_driver


def test_calls(recorders: tuple[Recorder, Recorder]) -> None:
    of_runtime, of_driver = recorders
    gpu = KernelDriver()
    assert gpu.architecture == "sm_99"
    assert of_driver.calls[0] == ("cuModuleLoadData", b"sm_99")
    assert {call[2] for call in of_driver.calls[1:]} == {name.encode() for name in read_signatures()}
    stream = gpu.create_stream()
    assert gpu.allocate_queued(10, stream) == 4096
    gpu.free_queued(4096, stream)
    values = [ctypes.c_void_p(64), ctypes.c_int(-1), ctypes.c_ulonglong(2**40)]
    gpu.launch_kernel("fill", 7, 256, values, stream)
    name, kernel, *grid, parameters, extra = of_driver.calls[-1]
    assert (name, int(kernel), extra) == ("cuLaunchKernel", 2, 0)
    assert grid == [7, 1, 1, 256, 1, 1, 0, stream]
    pointers = (ctypes.c_void_p * 3).from_address(parameters)
    assert len(pointers) == len(values)
    assert [call[0] for call in of_runtime.calls[-3:]] == [
        "cudaStreamCreateWithFlags",
        "cudaMallocAsync",
        "cudaFreeAsync",
    ]


def test_errors_name_the_call(recorders: tuple[Recorder, Recorder]) -> None:
    gpu = KernelDriver()
    recorders[1].status = 700
    with pytest.raises(BackendError, match=r"cuLaunchKernel failed.*700"):
        gpu.launch_kernel("fill", 1, 1, [], 0)
    recorders[0].status = 2
    with pytest.raises(BackendError, match=r"cudaMallocAsync failed.*memory is full"):
        gpu.allocate_queued(1, 0)


def test_the_real_library_takes_the_arguments() -> None:
    """Without a GPU each call ends in an error of CUDA or of its loader, never in one of types."""
    with pytest.raises(Exception, match=r"(?i)cuda|libcuda|driver|no device") as caught:
        KernelDriver()
    assert not isinstance(caught.value, (TypeError, AttributeError, ValueError))
    values = [ctypes.c_void_p(64), ctypes.c_int(-1), ctypes.c_ulonglong(1)]
    pointers = (ctypes.c_void_p * 3)(*map(ctypes.addressof, values))
    try:
        driver.cuLaunchKernel(driver.CUfunction(0), 1, 1, 1, 32, 1, 1, 0, 5, ctypes.addressof(pointers), 0)
    except (TypeError, AttributeError, ValueError):
        raise
    except Exception as error:
        assert "cuda" in str(error).lower()  # noqa: PT017 (libcuda.so is missing)
