"""Was the machine quiet enough to conclude anything? Six rules, each with its figure and its bound.

| rule       | figure                                                                        | bound |
|------------|-------------------------------------------------------------------------------|-------|
| canary     | (p90 - p10) / p50 of a fixed piece of arithmetic timed between the samples     | 20 %  |
| drift      | change of the median from the first third of the samples to the last          | 5 %   |
| other load | mean share of all cores' time that other programs took                        | 10 %  |
| steal      | mean share of time the hypervisor gave to others                              | 2 %   |
| throttling | share of moments at which a GPU was slowed for heat or power                  | 0 %   |
| resolution | width of the median's interval, relative to the median                        | 10 %  |

A series that never became stable in its warm-up fails too. What a machine does not tell does not fail. Samples are
never dropped for noise: where a rule fails, the figures stay and the conclusion goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .machine_sections import MachineTrace
from .results import Noise, NoiseCheck, Warmup
from .sections import Series

CANARY_BOUND = 0.20
DRIFT_BOUND = 0.05
OTHER_LOAD_BOUND = 0.10
STEAL_BOUND = 0.02
THROTTLING_BOUND = 0.0
RESOLUTION_BOUND = 0.10
_MIN_FOR_DRIFT = 9
_HARMLESS = frozenset({"gpu_idle", "applications_clocks_setting", "display_clock_setting"})


def judge_noise(series: Series, warmup: Warmup | None, canary: Series | None, trace: MachineTrace | None) -> Noise:
    """Apply the rules to a subject's series, its warm-up if it had one, and the machine's record of the same time."""
    checks = [_check_warmup(warmup)] if warmup is not None else []
    checks += [_check_canary(canary), _check_drift(series)]
    if trace is not None:
        chosen = _moments(trace, series)
        other = [
            busy - own
            for busy, own in zip(_take(trace.cpu_busy, chosen), _take(trace.own_busy, chosen), strict=True)
            if busy is not None and own is not None
        ]
        checks += [
            _check_share("other load", other, OTHER_LOAD_BOUND, "of all cores' time went to other programs"),
            _check_share(
                "steal",
                [share for share in _take(trace.steal, chosen) if share is not None],
                STEAL_BOUND,
                "of the time the hypervisor gave to others",
            ),
            _check_throttling(trace, chosen),
        ]
    checks.append(_check_resolution(series))
    return Noise(conclusive=all(check.passed for check in checks), checks=tuple(checks))


def _check_warmup(warmup: Warmup) -> NoiseCheck:
    last = warmup.window_medians_ms[-3:]
    spread = (max(last) - min(last)) / min(last) if len(last) == 3 and min(last) > 0 else None
    words = f"stable after {warmup.runs} runs" if warmup.stable else f"not stable after {warmup.runs} runs"
    return _note("warm-up", spread, warmup.bound, warmup.stable, f"the times were {words}")


def _check_canary(canary: Series | None) -> NoiseCheck:
    if canary is None or len(canary.values_ms) < _MIN_FOR_DRIFT:
        return _unseen("canary", CANARY_BOUND, "too few runs of the canary to tell")
    low, middle, high = np.quantile(canary.values_ms, (0.1, 0.5, 0.9))
    spread = float((high - low) / middle) if middle > 0 else 0.0
    text = f"fixed arithmetic scattered by {spread:.0%} between its p10 and p90"
    return _note("canary", spread, CANARY_BOUND, spread <= CANARY_BOUND, text)


def _check_drift(series: Series) -> NoiseCheck:
    values = np.asarray(series.values_ms)
    third = values.size // 3
    if values.size < _MIN_FOR_DRIFT:
        return _unseen("drift", DRIFT_BOUND, f"{values.size} samples are too few to see a drift")
    first, last = float(np.median(values[:third])), float(np.median(values[-third:]))
    change = abs(last / first - 1) if first > 0 else 0.0
    direction = "slower" if last > first else "faster"
    text = f"the last third of the samples is {change:.1%} {direction} than the first"
    return _note("drift", change, DRIFT_BOUND, change <= DRIFT_BOUND, text)


def _check_share(name: str, shares: Sequence[float], bound: float, words: str) -> NoiseCheck:
    if not shares:
        return _unseen(name, bound, "this machine does not tell")
    mean = max(0.0, float(np.mean(shares)))
    return _note(name, mean, bound, mean <= bound, f"{mean:.1%} {words}")


def _check_throttling(trace: MachineTrace, chosen: Sequence[int]) -> NoiseCheck:
    if not trace.gpus:
        return _unseen("throttling", THROTTLING_BOUND, "there is no GPU that tells")
    slowed = [
        any(set(gpu.throttle_reasons[index]) - _HARMLESS for gpu in trace.gpus if index < len(gpu.throttle_reasons))
        for index in chosen
    ]
    share = float(np.mean(slowed)) if slowed else 0.0
    seen = {reason for gpu in trace.gpus for reasons in gpu.throttle_reasons for reason in reasons} - _HARMLESS
    words = f" ({', '.join(sorted(seen))})" if seen else ""
    text = f"a GPU was slowed at {share:.0%} of the moments{words}"
    return _note("throttling", share, THROTTLING_BOUND, share <= THROTTLING_BOUND, text)


def _check_resolution(series: Series) -> NoiseCheck:
    middle = series.quantiles[0]
    if middle.value_ms is None or middle.low_ms is None or middle.high_ms is None or middle.value_ms <= 0:
        text = middle.reason or "there is no interval of the median"
        return NoiseCheck(name="resolution", value=None, bound=RESOLUTION_BOUND, passed=False, text=text)
    width = (middle.high_ms - middle.low_ms) / middle.value_ms
    text = f"the interval of the median is {width:.1%} wide"
    return _note("resolution", width, RESOLUTION_BOUND, width <= RESOLUTION_BOUND, text)


def _moments(trace: MachineTrace, series: Series) -> list[int]:
    """Which moments of the trace lie within the series, with one interval of grace; all, where none do."""
    begin = min(series.at_s) - trace.interval_s
    end = max(series.at_s) + max(series.values_ms) / 1000 + trace.interval_s
    inside = [index for index, at in enumerate(trace.at_s) if begin <= at <= end]
    return inside or list(range(len(trace.at_s)))


def _take(column: Sequence[float | None], chosen: Sequence[int]) -> list[float | None]:
    return [column[index] for index in chosen]


def _note(name: str, value: float | None, bound: float, passed: bool, text: str) -> NoiseCheck:
    rounded = round(value, 6) if value is not None else None
    return NoiseCheck(name=name, value=rounded, bound=bound, passed=passed, text=text)


def _unseen(name: str, bound: float, text: str) -> NoiseCheck:
    return NoiseCheck(name=name, value=None, bound=bound, passed=True, text=text)
