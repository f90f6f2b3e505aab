"""The rules by which a machine was quiet enough to draw conclusions, and the warnings of a result.

`docs/benchmarking.md` lists the rules. A rule that cannot be checked on a machine passes. Samples are never dropped for
noise: where a rule fails, the figures stay and are marked as inconclusive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .accuracy import BUNDLE, OFF
from .plan import Sample
from .results import MachineTrace, Noise, NoiseCheck, Series, Subject, Warmup

CANARY_BOUND = 0.20
DRIFT_BOUND = 0.05
OTHER_LOAD_BOUND = 0.10
STEAL_BOUND = 0.02
RESOLUTION_BOUND = 0.10
_MIN_FOR_DRIFT = 9
_MIN_AGREEMENT = 0.95
_HARMLESS = frozenset({"gpu_idle", "applications_clocks_setting", "display_clock_setting"})


def judge_noise(series: Series, warmup: Warmup | None, canary: Series | None, trace: MachineTrace | None) -> Noise:
    """Apply the rules to a subject's series, its warm-up if it had one, and the machine at the same time."""
    checks = []
    if warmup is not None:
        last = warmup.window_medians_ms[-3:]
        spread = (max(last) - min(last)) / min(last) if len(last) == 3 and min(last) > 0 else None
        text = f"the times were {'' if warmup.stable else 'not '}stable after {warmup.runs} runs"
        checks.append(_check("warm-up", spread, warmup.bound, text, passed=warmup.stable))
    checks += [_check_canary(canary), _check_drift(np.asarray(series.values_ms))]
    if trace is not None:
        checks += _check_machine(trace, series)
    median = series.quantiles[0]
    width, text = None, median.reason or "there is no interval of the median"
    if median.value_ms and median.low_ms is not None and median.high_ms is not None:
        width = (median.high_ms - median.low_ms) / median.value_ms
        text = f"the interval of the median is {width:.1%} wide"
    is_narrow = width is not None and width <= RESOLUTION_BOUND
    checks.append(_check("resolution", width, RESOLUTION_BOUND, text, passed=is_narrow))
    return Noise(conclusive=all(check.passed for check in checks), checks=tuple(checks))


def collect_warnings(subjects: Sequence[Subject], samples: Sequence[Sample]) -> list[str]:
    """Caveats of a run, one sentence each; `samples` are the measured images."""
    found = []
    if any(sample.truth is None for sample in samples):
        found.append("the images have no labels: accuracy is the agreement with float32 only")
    if any(subject.backend == "fake" for subject in subjects):
        found.append("the fake backend is a formula, not a network")
    for subject in subjects:
        found += [f"{subject.name}{text}" for text in _list_warnings(subject)]
    return found


def _list_warnings(subject: Subject) -> Iterator[str]:
    pipeline = subject.pipeline
    for part, noise in (("", subject.noise), (", pipeline", pipeline.noise if pipeline is not None else None)):
        if noise is not None and noise.failed:
            yield f"{part}: too noisy to conclude: {'; '.join(check.text for check in noise.failed)}"
    if pipeline is not None and pipeline.agreement < 1:
        yield f": the pipeline labels {1 - pipeline.agreement:.4%} of the pixels differently"
    for run in subject.load:
        if not run.valid:
            yield f": LoadGen's {run.scenario} run is invalid by MLPerf's rules: {'; '.join(run.reasons)}"
    if subject.roofline is not None and subject.roofline.reason is not None:
        yield f": roofline share withheld: {subject.roofline.reason}"
    agreement = min((row.label_agreement for row in subject.accuracy if row.crf in (OFF, BUNDLE)), default=1.0)
    if agreement < _MIN_AGREEMENT and subject.backend != "fake":
        yield f": only {agreement:.1%} of the pixels are labeled as by float32"


def _check_canary(canary: Series | None) -> NoiseCheck:
    if canary is None or len(canary.values_ms) < _MIN_FOR_DRIFT:
        return _check("canary", None, CANARY_BOUND, "too few runs of the canary")
    low, middle, high = np.quantile(canary.values_ms, (0.1, 0.5, 0.9))
    spread = float((high - low) / middle) if middle > 0 else 0.0
    return _check("canary", spread, CANARY_BOUND, f"fixed arithmetic varied by {spread:.0%} between its p10 and p90")


def _check_drift(values_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> NoiseCheck:
    if values_ms.size < _MIN_FOR_DRIFT:
        return _check("drift", None, DRIFT_BOUND, f"{values_ms.size} samples are too few to detect drift")
    third = values_ms.size // 3
    first, last = float(np.median(values_ms[:third])), float(np.median(values_ms[-third:]))
    change = abs(last / first - 1) if first > 0 else 0.0
    direction = "slower" if last > first else "faster"
    text = f"the last third of the samples is {change:.1%} {direction} than the first"
    return _check("drift", change, DRIFT_BOUND, text)


def _check_machine(trace: MachineTrace, series: Series) -> Iterator[NoiseCheck]:
    """Check the readings during the series, give or take one interval; all readings, if there are none."""
    begin = min(series.at_s) - trace.interval_s
    end = max(series.at_s) + max(series.values_ms) / 1000 + trace.interval_s
    chosen = [index for index, at in enumerate(trace.at_s) if begin <= at <= end] or range(len(trace.at_s))
    busy = [(trace.cpu_busy[index], trace.own_busy[index]) for index in chosen]
    others = [whole - own for whole, own in busy if whole is not None and own is not None]
    steal = [share for index in chosen if (share := trace.steal[index]) is not None]
    for name, shares, bound, text in (
        ("other load", others, OTHER_LOAD_BOUND, "of all cores' time went to other programs"),
        ("steal", steal, STEAL_BOUND, "of the time went to other virtual machines"),
    ):
        mean = max(0.0, float(np.mean(shares))) if shares else None
        yield _check(name, mean, bound, "not reported by this machine" if mean is None else f"{mean:.1%} {text}")
    if not trace.gpus:
        yield _check("throttling", None, 0.0, "no GPU reports it")
        return
    slowed = [any(set(gpu.throttle_reasons[index]) - _HARMLESS for gpu in trace.gpus) for index in chosen]
    seen = {reason for gpu in trace.gpus for reasons in gpu.throttle_reasons for reason in reasons} - _HARMLESS
    share = float(np.mean(slowed))
    names = f" ({', '.join(sorted(seen))})" if seen else ""
    yield _check("throttling", share, 0.0, f"a GPU was throttled at {share:.0%} of the readings{names}")


def _check(name: str, value: float | None, bound: float, text: str, *, passed: bool | None = None) -> NoiseCheck:
    holds = (value is None or value <= bound) if passed is None else passed
    return NoiseCheck(name=name, value=value, bound=bound, passed=holds, text=text)
