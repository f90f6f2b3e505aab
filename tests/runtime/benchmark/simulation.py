"""Shared by the tests of the benchmark: simulated time and subjects, and results made from given samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

import numpy as np

from atrous.runtime.benchmark.plan import BenchPlan, StageName
from atrous.runtime.benchmark.results import (
    BenchResult,
    CpuInfo,
    Environment,
    MachineTrace,
    Noise,
    NoiseCheck,
    Stage,
    StageView,
    Subject,
    Warmup,
)
from atrous.runtime.benchmark.statistics import describe_series
from atrous.runtime.benchmark.timing import Clock


class SimulatedClock(Clock):
    """A clock that stands still except for sleeping: work is simulated by `sleep_ns`."""

    def __init__(self, cpu_ns: Callable[[], int] = lambda: 0) -> None:
        self._now_ns = 0
        self._read_cpu_ns = cpu_ns

    def now_ns(self) -> int:
        return self._now_ns

    def cpu_ns(self) -> int:
        return self._read_cpu_ns()

    def sleep_ns(self, duration_ns: int) -> None:
        self._now_ns += max(0, duration_ns)


def plan_for(items: int = 1, **amounts) -> BenchPlan:
    """A plan for simulated subjects, with a number of images."""
    return BenchPlan(None, (), [None] * items, **amounts)


class SimulatedSystem:
    """A subject whose stages take the given times, on a simulated clock."""

    def __init__(
        self, clock: SimulatedClock, compute_ms: Sequence[float], log: list[str] | None = None, name: str = ""
    ):
        self.clock = clock
        self.compute_ms = compute_ms
        self.absent: Mapping[StageName, str] = {"h2d": "no device"}
        self.has_device_events = False
        self.runs = 0
        self.items: list[int] = []
        self._log = log if log is not None else []
        self._name = name

    def time_stages(self, item: int) -> Mapping[StageName, float]:
        compute_ms = self.compute_ms[self.runs % len(self.compute_ms)]
        self.runs += 1
        self.items.append(item)
        self._log.append(self._name)
        self.clock.sleep_ns(int((compute_ms + 1) * 1e6))
        return {"decode": 1.0, "compute": compute_ms}


def make_noise(conclusive: bool = True) -> Noise:
    check = NoiseCheck(name="canary", value=0.5, bound=0.2, passed=conclusive, text="scattered")
    return Noise(conclusive=conclusive, checks=(check,))


def make_subject(
    values_ms: np.ndarray, name: str = "onnxruntime:fp32", *, conclusive: bool = True, **changes
) -> Subject:
    series = describe_series(np.cumsum(values_ms) / 1000, values_ms)
    view = StageView(
        warmup=Warmup(stable=True, runs=9, duration_s=1.0, window_medians_ms=(10.0, 10.0, 10.0), bound=0.05),
        stages=(Stage(name="end_to_end", clock="monotonic", series=series),),
        absent={},
        images=len(values_ms),
        throughput_per_s=100.0,
    )
    words = {
        "name": name,
        "backend": "onnxruntime",
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "bundle": "b",
        "bundle_sha256": "0" * 64,
        "head": "scores",
        "classes": 4,
        "image_height": 24,
        "image_width": 32,
        "crf": None,
        "stages": view,
        "noise": make_noise(conclusive),
    }
    return Subject(**{**words, **changes})


def make_trace(**columns) -> MachineTrace:
    empty = dict.fromkeys(
        (
            "cpu_mhz",
            "cpu_busy",
            "own_busy",
            "steal",
            "load_1min",
            "temperature_c",
            "memory_available_mb",
            "resident_mb",
        ),
        (None, None),
    )
    return MachineTrace(**{"interval_s": 0.25, "at_s": (0.0, 1.0), "unavailable": {}, **empty, **columns})


def make_result(*subjects: Subject, canary_ms: float | None = 0.5, cpu: str = "a CPU") -> BenchResult:
    processor = CpuInfo(
        name=cpu,
        features=(),
        cores=2,
        usable_cores=2,
        governor=None,
        max_mhz=None,
        cgroup_cpus=None,
        virtualization=None,
    )
    environment = Environment(
        host="h",
        system="s",
        python="3",
        cpu=processor,
        memory_mb=None,
        gpus=(),
        libraries={},
        variables={},
        load_1min_before=None,
        git=None,
    )
    return BenchResult(
        atrous_version="0",
        created=datetime(2024, 1, 1, tzinfo=timezone.utc),
        duration_s=1.0,
        command=("atrous", "bench", "b"),
        dataset="d",
        images=("a.png",),
        environment=environment,
        subjects=subjects,
        canary=None if canary_ms is None else describe_series([0.0, 1.0, 2.0], [canary_ms] * 3),
        machine_trace=make_trace(),
    )
