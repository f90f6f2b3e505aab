"""A GPU over time by NVML: clocks, power, temperature, load, and why it was slowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...dependencies import import_optional
from ...errors import BackendError
from .machine_sections import GpuInfo, GpuTrace

# NVML's bits of "clocks throttle reasons" (nvml.h), in words
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


class GpuWatch:
    """One GPU's counters; every value that NVML refuses is None."""

    def __init__(self, nvml: Any, index: int) -> None:
        """Take hold of a GPU of an initialised NVML."""
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self._rows: list[dict[str, float | None]] = []
        self._reasons: list[tuple[str, ...]] = []

    def look(self) -> None:
        """Add one moment."""
        nvml, handle = self._nvml, self._handle
        self._rows.append(
            {
                "sm_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
                "memory_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
                "power_w": self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
                "temperature_c": self._ask(
                    lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                ),
                "busy": self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
                "memory_used_mb": self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 1e6),
            }
        )
        bits = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        self._reasons.append(name_reasons(int(bits or 0)))

    def trace(self) -> GpuTrace:
        """What was seen."""
        names = ("sm_mhz", "memory_mhz", "power_w", "temperature_c", "busy", "memory_used_mb")
        columns = {name: tuple(row[name] for row in self._rows) for name in names}
        return GpuTrace(name=self.name, **columns, throttle_reasons=tuple(self._reasons))

    @property
    def name(self) -> str:
        """The product's name."""
        return _to_text(self._nvml.nvmlDeviceGetName(self._handle))

    def describe(self) -> GpuInfo:
        """What it is and how it is set."""
        nvml, handle = self._nvml, self._handle
        capability = _try(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
        persistence = self._ask(lambda: nvml.nvmlDeviceGetPersistenceMode(handle))
        return GpuInfo(
            name=self.name,
            capability=".".join(map(str, capability)) if capability is not None else "",
            memory_mb=self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total / 1e6) or 0.0,
            driver=_try(lambda: _to_text(nvml.nvmlSystemGetDriverVersion())),
            power_limit_w=self._ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
            max_sm_mhz=self._ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            persistence=bool(persistence) if persistence is not None else None,
        )

    def _ask(self, question: Callable[[], Any]) -> float | None:
        value = _try(question)
        return round(float(value), 3) if value is not None else None


def open_gpu_watch() -> list[GpuWatch]:
    """All GPUs that NVML shows; none where there is no NVML, no driver or no GPU."""
    try:
        nvml = import_optional("pynvml")
        nvml.nvmlInit()
        return [GpuWatch(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except BackendError:  # not installed
        return []
    except Exception as error:  # NVMLError has a class for each code, none of them importable without the library
        if type(error).__name__.startswith("NVMLError"):
            return []
        raise


def name_reasons(bits: int) -> tuple[str, ...]:
    """NVML's throttle reasons in words."""
    return tuple(name for bit, name in THROTTLE_REASONS.items() if bits & bit)


def _try(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception:  # a counter this GPU lacks: NVMLError_NotSupported and others
        return None


def _to_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
