"""The machine: a description, and a trace of clocks, load, temperature, power and throttling during the run.

A thread reads counters every quarter of a second, about a millisecond of processor time per second. Shares of processor
time cover the interval that ends at the reading. A counter that a machine or a GPU lacks is None.
"""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...dependencies import OPTIONAL, import_optional, read_version
from ...errors import BackendError
from ..devices import describe_processor, list_cuda_devices
from .results import CpuInfo, Environment, GpuInfo, GpuTrace, MachineTrace
from .timing import Clock

INTERVAL_S = 0.25
Row = dict[str, float | None]  # a reading, by column
_GPU_COLUMNS: dict[str, Callable[[Any, Any], float]] = {
    "sm_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "memory_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    "busy": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    "memory_used_mb": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used / 1e6,
}
# NVML's bits of "clocks throttle reasons" (nvml.h)
THROTTLE_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
_CORE_LIBRARIES = ("atrous", "numpy", "pillow", "pydantic")
_VARIABLES = ("OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "CUDA_", "NVIDIA_", "ORT_", "TORCH_", "MALLOC_")
_SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_BOARD = Path("/sys/class/dmi/id")
_REPO = Path(__file__).resolve().parents[2]
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")


def describe_environment() -> Environment:
    """Describe the machine and its software, from local information only."""
    memory_mb = _try_number(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6)
    names = (*_CORE_LIBRARIES, *(name for dependency in OPTIONAL.values() for name in dependency.distributions))
    versions = {name: read_version(name) for name in dict.fromkeys(names)}
    return Environment(
        host=platform.node(),
        system=platform.platform(),
        python=platform.python_version(),
        cpu=_describe_cpu(),
        memory_mb=memory_mb,
        gpus=_describe_gpus(),
        libraries={name: version for name, version in versions.items() if version is not None},
        variables={
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_VARIABLES) and not any(word in name for word in _SECRETS)
        },
        load_1min_before=read_load(),
        git=_read_commit(),
    )


def read_load() -> float | None:
    """The machine's load, averaged over a minute; None where the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _describe_cpu() -> CpuInfo:
    processor = describe_processor()
    max_khz = _read_text(_FREQUENCY / "cpuinfo_max_freq")
    quota, _, period = (_read_text(Path("/sys/fs/cgroup/cpu.max")) or "").partition(" ")  # cgroup v2
    is_limited = quota.isdigit() and period.isdigit() and int(period) > 0
    is_virtual = "hypervisor" in (_read_text(Path("/proc/cpuinfo")) or "")
    board = " ".join(filter(None, (_read_text(_BOARD / "sys_vendor"), _read_text(_BOARD / "product_name"))))
    return CpuInfo(
        **asdict(processor),
        governor=_read_text(_FREQUENCY / "scaling_governor"),
        max_mhz=int(max_khz) / 1000 if max_khz is not None and max_khz.isdigit() else None,
        cgroup_cpus=round(int(quota) / int(period), 3) if is_limited else None,
        virtualization=(board or "a hypervisor") if is_virtual else None,
    )


def _describe_gpus() -> tuple[GpuInfo, ...]:
    """By NVML, else by NVIDIA's driver."""
    unknown = {"driver": None, "power_limit_w": None, "max_sm_mhz": None, "persistence": None}
    return tuple(gpu.describe() for gpu in open_gpus()) or tuple(
        GpuInfo(name=device.name, capability=device.capability, memory_mb=device.memory_bytes / 1e6, **unknown)
        for device in list_cuda_devices()
    )


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _read_commit() -> str | None:
    if not (_REPO / ".git").exists():
        return None
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    try:
        found = subprocess.run(command, cwd=_REPO, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


class MachineWatch:
    """Traces the machine while the block runs, a reading every `interval_s` seconds."""

    def __init__(self, clock: Clock, *, interval_s: float = INTERVAL_S):
        """Prepare to read; raises MissingDependencyError if psutil is not installed."""
        self._clock = clock
        self._interval_s = interval_s
        self._psutil: Any = import_optional("psutil")
        self._process = self._psutil.Process()
        self._read_shares()  # psutil's shares are of the time since the last call
        self._gpus = open_gpus()
        self._at_s: list[float] = []
        self._rows: list[Row] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="machine watch", daemon=True)

    def __enter__(self) -> MachineWatch:
        """Start reading."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the last reading and stop."""
        self._end.set()
        self._thread.join()
        self._read()

    def trace(self) -> MachineTrace:
        """The readings so far, at least one."""
        columns = {name: tuple(row[name] for row in self._rows) for name in self._rows[0]}
        empty = [name for name, column in columns.items() if set(column) == {None}]
        unavailable = dict.fromkeys(empty, "not reported by this system")
        if not self._gpus:
            unavailable["gpus"] = "NVML shows no GPU"
        return MachineTrace(
            interval_s=self._interval_s,
            at_s=tuple(self._at_s),
            **columns,
            gpus=tuple(gpu.trace() for gpu in self._gpus),
            unavailable=unavailable,
        )

    def _watch(self) -> None:
        self._read()
        while not self._end.wait(self._interval_s):
            self._read()

    def _read(self) -> None:
        psutil = self._psutil
        row = {
            "cpu_mhz": _try_number(lambda: psutil.cpu_freq().current or None),
            "load_1min": _try_number(lambda: psutil.getloadavg()[0]),
            "temperature_c": _try_number(self._read_temperature),
            "memory_available_mb": _try_number(lambda: psutil.virtual_memory().available / 1e6),
            "resident_mb": _try_number(lambda: self._process.memory_info().rss / 1e6),
        }
        self._at_s.append(round(self._clock.now_s(), 4))
        self._rows.append({**row, **self._read_shares()})
        for gpu in self._gpus:
            gpu.read()

    def _read_shares(self) -> Row:
        percent = self._psutil.cpu_times_percent()._asdict()
        own = self._process.cpu_percent() / (self._psutil.cpu_count() or 1)
        if not any(percent.values()):  # no clock tick since the last reading
            return dict.fromkeys(("cpu_busy", "own_busy", "steal"))
        busy = 100 - percent["idle"] - percent.get("iowait", 0.0)
        found = {"cpu_busy": busy, "own_busy": own, "steal": percent.get("steal")}
        return {name: None if value is None else round(min(max(value / 100, 0), 1), 4) for name, value in found.items()}

    def _read_temperature(self) -> float | None:
        sensors = self._psutil.sensors_temperatures()  # missing on macOS and Windows
        return max((entry.current for name in _CPU_SENSORS for entry in sensors.get(name, ())), default=None)


class Gpu:
    """Counters of one GPU, by NVML."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self._name = _to_text(nvml.nvmlDeviceGetName(self._handle))
        self._rows: list[Row] = []
        self._reasons: list[tuple[str, ...]] = []

    def read(self) -> None:
        """Take one reading."""
        self._rows.append({name: self._ask(question) for name, question in _GPU_COLUMNS.items()})
        bits = int(self._ask(lambda nvml, handle: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) or 0)
        self._reasons.append(name_reasons(bits))

    def trace(self) -> GpuTrace:
        """The readings so far."""
        columns = {name: tuple(row[name] for row in self._rows) for name in _GPU_COLUMNS}
        return GpuTrace(name=self._name, **columns, throttle_reasons=tuple(self._reasons))

    def describe(self) -> GpuInfo:
        """The GPU and its settings."""
        nvml, handle = self._nvml, self._handle
        persistence = self._ask(lambda nvml, handle: nvml.nvmlDeviceGetPersistenceMode(handle))
        return GpuInfo(
            name=self._name,
            capability=_try(lambda: ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(handle)))) or "",
            memory_mb=self._ask(lambda nvml, handle: nvml.nvmlDeviceGetMemoryInfo(handle).total / 1e6) or 0.0,
            driver=_try(lambda: _to_text(nvml.nvmlSystemGetDriverVersion())),
            power_limit_w=self._ask(lambda nvml, handle: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
            max_sm_mhz=self._ask(lambda nvml, handle: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            persistence=bool(persistence) if persistence is not None else None,
        )

    def _ask(self, question: Callable[[Any, Any], float | None]) -> float | None:
        return _try_number(lambda: question(self._nvml, self._handle))


def open_gpus() -> list[Gpu]:
    """All GPUs that NVML shows; empty without NVML, a driver or a GPU."""
    try:
        nvml = import_optional("pynvml")
        nvml.nvmlInit()
        return [Gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except BackendError:  # not installed
        return []
    except Exception as error:  # NVMLError has a class per code, and none can be imported without the library
        if type(error).__name__.startswith("NVMLError"):
            return []
        raise


def name_reasons(bits: int) -> tuple[str, ...]:
    """Names of NVML's throttle reasons."""
    return tuple(name for bit, name in THROTTLE_REASONS.items() if bits & bit)


def _try(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception:  # a counter that this machine lacks, such as NVMLError_NotSupported
        return None


def _try_number(read: Callable[[], float | None]) -> float | None:
    value = _try(read)
    return round(float(value), 3) if value is not None else None


def _to_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
