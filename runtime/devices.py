"""The hardware: CPU features, usable cores, CUDA devices; read from the system and NVIDIA's driver, without torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp")
_CUDA_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_NAME_BYTES = 256


@dataclass(frozen=True)
class Processor:
    """The CPU: name, vector extensions relevant to inference, and the cores this process may use."""

    name: str
    features: tuple[str, ...]
    cores: int
    usable_cores: int


@dataclass(frozen=True)
class CudaDevice:
    """A GPU: name, compute capability and memory."""

    name: str
    capability: str
    memory_bytes: int


def describe_processor() -> Processor:
    """The CPU as Linux reports it; without features on other systems."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    name = fields.get("model name") or platform.processor() or platform.machine()
    return Processor(name, tuple(feature for feature in _FEATURES if feature in flags), cores, usable)


def list_cuda_devices() -> tuple[CudaDevice, ...]:
    """The GPUs that NVIDIA's driver reports; empty without a driver."""
    driver = _open_driver()
    if driver is None or driver.cuInit(0) != 0:
        return ()
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_describe_device(driver, index) for index in range(count.value))


def _open_driver() -> ctypes.CDLL | None:
    for name in _CUDA_LIBRARIES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None


def _describe_device(driver: ctypes.CDLL, index: int) -> CudaDevice:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    memory_bytes, major, minor = ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory_bytes), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return CudaDevice(name.value.decode("utf-8", "replace"), f"{major.value}.{minor.value}", memory_bytes.value)


def count_multiprocessors(index: int = 0) -> int:
    """The number of streaming multiprocessors of a GPU; 0 if there is no such GPU."""
    driver, count, device = _open_driver(), ctypes.c_int(), ctypes.c_int()
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return 0
    driver.cuDeviceGetAttribute(ctypes.byref(count), _MULTIPROCESSORS, device)
    return count.value


def read_driver_version() -> str | None:
    """The version of NVIDIA's driver, such as "550.54.15", or of its CUDA, "CUDA 12.4"; None without a driver."""
    try:
        found = re.search(r"\b\d{3,}(\.\d+)+\b", _DRIVER_FILE.read_text())
    except OSError:
        found = None
    if found is not None:
        return found.group()
    driver, version = _open_driver(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
