from __future__ import annotations

import sys
import types

import pytest

from atrous.runtime.benchmark import machine
from atrous.runtime.benchmark.machine import (
    THROTTLE_REASONS,
    MachineWatch,
    describe_environment,
    name_reasons,
    open_gpus,
)

from .simulation import SimulatedClock


class _NotSupportedError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An NVML of one GPU that does not report its power limit."""
    module = types.ModuleType("pynvml")

    def refuse(*_: object) -> float:
        raise _NotSupportedError

    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"A GPU",
        "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1410, 2: 1215}[kind],
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
        "nvmlDeviceGetPowerUsage": lambda handle: 312_500,
        "nvmlDeviceGetEnforcedPowerLimit": refuse,
        "nvmlDeviceGetTemperature": lambda handle, kind: 61,
        "nvmlDeviceGetUtilizationRates": lambda handle: types.SimpleNamespace(gpu=97),
        "nvmlDeviceGetMemoryInfo": lambda handle: types.SimpleNamespace(used=3e9, total=80e9),
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0x24,
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlDeviceGetPersistenceMode": lambda handle: 1,
        "nvmlSystemGetDriverVersion": lambda: "575.1",
    }
    for name, answer in answers.items():
        setattr(module, name, answer)
    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = 1, 2, 0
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_a_gpu_reports_clocks_power_temperature_and_throttling(nvml: types.ModuleType) -> None:
    (watch,) = open_gpus()
    watch.read()
    watch.read()
    trace = watch.trace()
    assert trace.name == "A GPU"
    assert trace.sm_mhz == (1410, 1410)
    assert trace.power_w == (312.5, 312.5)
    assert trace.busy == (0.97, 0.97)
    assert trace.throttle_reasons == (("sw_power_cap", "sw_thermal_slowdown"),) * 2
    info = watch.describe()
    assert (info.capability, info.driver, info.power_limit_w, info.persistence) == ("9.0", "575.1", None, True)


def test_no_driver_is_no_gpu(nvml: types.ModuleType) -> None:
    error = type("NVMLError_DriverNotLoaded", (Exception,), {})

    def refuse() -> None:
        raise error

    nvml.nvmlInit = refuse
    assert open_gpus() == []
    nvml.nvmlInit = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        open_gpus()


def test_reasons_have_names() -> None:
    assert name_reasons(0) == ()
    assert name_reasons(0x1 | 0x40) == ("gpu_idle", "hw_thermal_slowdown")
    assert len(THROTTLE_REASONS) == 9


class FakePsutil(types.ModuleType):
    """Two cores: of their time all programs took 60 %, this one 30 %, other virtual machines 5 %."""

    def cpu_times_percent(self):
        times = {"user": 50.0, "system": 5.0, "idle": 35.0, "iowait": 5.0, "steal": 5.0}
        return types.SimpleNamespace(_asdict=lambda: times)

    def Process(self):  # noqa: N802 (psutil's name)
        return types.SimpleNamespace(cpu_percent=lambda: 60.0, memory_info=lambda: types.SimpleNamespace(rss=50e6))

    def cpu_count(self) -> int:
        return 2

    def getloadavg(self):
        return (1.5, 1, 1)

    def virtual_memory(self):
        return types.SimpleNamespace(available=8e9)

    def cpu_freq(self):
        raise FileNotFoundError

    def sensors_temperatures(self):
        return {"k10temp": [types.SimpleNamespace(current=51.0), types.SimpleNamespace(current=63.0)], "nvme": []}


def test_shares_of_the_machine_are_of_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "import_optional", lambda name: FakePsutil("psutil"))
    monkeypatch.setattr(machine, "open_gpus", list)
    with MachineWatch(SimulatedClock(), interval_s=100.0) as watch:
        pass
    trace = watch.trace()
    assert len(trace.at_s) == 2  # as it began and as it ended
    assert trace.cpu_busy == (0.6, 0.6)
    assert trace.own_busy == (0.3, 0.3)
    assert trace.steal == (0.05, 0.05)
    assert trace.temperature_c == (63.0, 63.0)
    assert trace.resident_mb == (50.0, 50.0)
    assert trace.cpu_mhz == (None, None)
    assert trace.unavailable == {"cpu_mhz": "not reported by this system", "gpus": "NVML shows no GPU"}


def test_the_environment_names_what_explains_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_API_KEY", "hidden")
    environment = describe_environment()
    assert environment.cpu.name
    assert environment.cpu.usable_cores >= 1
    assert environment.libraries["numpy"]
    assert environment.variables["OMP_NUM_THREADS"] == "1"
    assert "CUDA_API_KEY" not in environment.variables
