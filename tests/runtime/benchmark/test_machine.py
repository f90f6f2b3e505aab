from __future__ import annotations

import sys
import types

import pytest

from atrous.runtime.benchmark import gpu_watch, machine_trace
from atrous.runtime.benchmark.clocks import SimulatedClock
from atrous.runtime.benchmark.environment import describe_environment
from atrous.runtime.benchmark.gpu_watch import name_reasons, open_gpu_watch
from atrous.runtime.benchmark.machine_trace import MachineWatch


class _NotSupportedError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An NVML of one GPU that does not tell its power limit."""
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


def test_a_gpu_tells_clocks_power_heat_and_why_it_is_slow(nvml: types.ModuleType) -> None:
    (watch,) = open_gpu_watch()
    watch.look()
    watch.look()
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
    assert open_gpu_watch() == []
    nvml.nvmlInit = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        open_gpu_watch()


def test_reasons_have_names() -> None:
    assert name_reasons(0) == ()
    assert name_reasons(0x1 | 0x40) == ("gpu_idle", "hw_thermal_slowdown")
    assert len(gpu_watch.THROTTLE_REASONS) == 9


class FakePsutil(types.ModuleType):
    """Two cores, looked at each second: of 2 s all programs took 1.2, this one 0.6, other machines 0.1."""

    def __init__(self) -> None:
        super().__init__("psutil")
        self.looks = 0

    def cpu_times(self):
        self.looks += 1
        names = ("user", "system", "idle", "iowait", "steal", "guest")
        spent = (1.0, 0.1, 0.7, 0.1, 0.1, 0.5)
        return types.SimpleNamespace(
            _fields=names, **{name: value * self.looks for name, value in zip(names, spent, strict=True)}
        )

    def Process(self):  # noqa: N802 (psutil's name)
        return types.SimpleNamespace(
            cpu_times=lambda: types.SimpleNamespace(user=0.5 * self.looks, system=0.1 * self.looks),
            memory_info=lambda: types.SimpleNamespace(rss=50e6),
        )

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
    monkeypatch.setattr(machine_trace, "import_optional", lambda name: FakePsutil())
    monkeypatch.setattr(machine_trace, "open_gpu_watch", list)
    with MachineWatch(SimulatedClock(), 0, interval_s=100.0) as watch:
        pass
    trace = watch.trace()
    assert len(trace.at_s) == 2  # as it began and as it ended
    assert trace.cpu_busy == (0.6, 0.6)
    assert trace.own_busy == (0.3, 0.3)
    assert trace.steal == (0.05, 0.05)
    assert trace.temperature_c == (63.0, 63.0)
    assert trace.resident_mb == (50.0, 50.0)
    assert trace.cpu_mhz == (None, None)
    assert trace.unavailable == {"cpu_mhz": "this system does not tell", "gpus": "NVML shows no GPU"}


def test_the_environment_names_what_explains_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_API_KEY", "hidden")
    environment = describe_environment()
    assert environment.cpu.name
    assert environment.cpu.usable_cores >= 1
    assert environment.libraries["numpy"]
    assert environment.variables["OMP_NUM_THREADS"] == "1"
    assert "CUDA_API_KEY" not in environment.variables
