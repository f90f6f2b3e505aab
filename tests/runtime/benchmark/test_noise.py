from __future__ import annotations

import numpy as np
import pytest

from atrous.runtime.benchmark.noise import judge_noise
from atrous.runtime.benchmark.results import GpuTrace, Warmup
from atrous.runtime.benchmark.statistics import describe_series

from .simulation import make_trace

WARM = Warmup(stable=True, runs=9, duration_s=1.0, window_medians_ms=(10.0, 10.1, 10.2), bound=0.05)


def describe(values):
    return describe_series(np.arange(len(values)) / 100, values)


QUIET = describe(np.random.default_rng(0).normal(100, 1, 100))
CANARY = describe(np.random.default_rng(1).normal(0.5, 0.01, 100))


def failed(noise) -> list[str]:
    assert noise.conclusive == all(check.passed for check in noise.checks)
    return [check.name for check in noise.checks if not check.passed]


def make_gpu(*reasons: tuple[str, ...]) -> GpuTrace:
    column = (1.0,) * len(reasons)
    return GpuTrace(
        name="g",
        sm_mhz=column,
        memory_mhz=column,
        power_w=column,
        temperature_c=column,
        busy=column,
        memory_used_mb=column,
        throttle_reasons=reasons,
    )


def test_a_quiet_machine_is_conclusive() -> None:
    trace = make_trace(cpu_busy=(0.52, 0.51), own_busy=(0.5, 0.5), steal=(0.0, 0.0))
    noise = judge_noise(QUIET, WARM, CANARY, trace)
    assert failed(noise) == []
    assert [check.name for check in noise.checks] == [
        "warm-up",
        "canary",
        "drift",
        "other load",
        "steal",
        "throttling",
        "resolution",
    ]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("warm-up", {"warmup": WARM.model_copy(update={"stable": False})}),
        ("canary", {"canary": describe(np.random.default_rng(1).normal(0.5, 0.1, 100))}),
        ("drift", {"series": describe(np.linspace(100, 112, 100))}),
        ("other load", {"trace": make_trace(cpu_busy=(0.9, 0.9), own_busy=(0.5, 0.5))}),
        ("steal", {"trace": make_trace(steal=(0.1, 0.0))}),
        ("throttling", {"trace": make_trace(gpus=(make_gpu(("gpu_idle",), ("hw_thermal_slowdown",)),))}),
        ("resolution", {"series": describe(np.random.default_rng(2).normal(100, 60, 30).clip(10))}),
    ],
)
def test_each_rule_fails_by_itself(name: str, change) -> None:
    whole = {"series": QUIET, "warmup": WARM, "canary": CANARY, "trace": make_trace(), **change}
    noise = judge_noise(**whole)
    assert name in failed(noise)
    assert not noise.conclusive
    if name not in ("drift", "resolution"):
        assert failed(noise) == [name]


def test_an_idle_gpu_is_not_throttled() -> None:
    noise = judge_noise(QUIET, WARM, CANARY, make_trace(gpus=(make_gpu(("gpu_idle",), ()),)))
    assert failed(noise) == []


def test_rules_that_cannot_be_checked_pass_but_too_few_samples_fail() -> None:
    noise = judge_noise(describe([10.0, 10.1]), WARM, None, None)
    assert failed(noise) == ["resolution"]
    assert {check.name: check.value for check in noise.checks}["canary"] is None


def test_only_the_moments_of_the_series_count() -> None:
    trace = make_trace(
        at_s=(0.0, 0.5, 30.0),
        cpu_busy=(0.5, 0.5, 1.0),
        own_busy=(0.5, 0.5, 0.0),
        cpu_mhz=(None,) * 3,
        steal=(None,) * 3,
    )
    assert failed(judge_noise(QUIET, WARM, CANARY, trace)) == []
