"""Error rates of `compare`: runs drawn with the noise of a shared machine, identical or 10 % apart.

    python -m pytest tests/runtime/benchmark/alarm_rates.py -s

prints the table of docs/benchmarking.md (a minute); pytest does not collect it by itself.
"""

from __future__ import annotations

import numpy as np

from atrous.runtime.benchmark.compare import compare_between, compare_within

from .simulation import make_result, make_subject

SAMPLES = 60


def draw_run(rng: np.random.Generator, count: int = SAMPLES, slowdown: float = 1.0) -> np.ndarray:
    """Times on a shared machine: a level per run (1 %), correlated neighbors, 3 % noise, rare stalls."""
    level = 100 * slowdown * np.exp(0.01 * rng.standard_normal())
    drift = np.empty(count)
    drift[0] = rng.standard_normal()
    for index in range(1, count):
        drift[index] = 0.7 * drift[index - 1] + np.sqrt(1 - 0.49) * rng.standard_normal()
    stalls = (rng.random(count) < 0.03) * rng.exponential(60, count)
    return level * np.exp(0.02 * drift + 0.03 * rng.standard_normal(count)) + stalls


def draw_pair(rng: np.random.Generator, slowdown: float) -> tuple[np.ndarray, np.ndarray]:
    """Two subjects in turns: they share the machine's drift, and have noise of their own."""
    shared = draw_run(rng)
    own = [np.exp(0.02 * rng.standard_normal(SAMPLES)) for _ in range(2)]
    return shared * own[0], shared * own[1] * slowdown


def judge_apart(rng: np.random.Generator, slowdown: float) -> str:
    results = [make_result(make_subject(draw_run(rng, slowdown=factor))) for factor in (1.0, slowdown)]
    return compare_between(*results)[0].verdict


def judge_in_turns(rng: np.random.Generator, slowdown: float) -> str:
    first, second = draw_pair(rng, slowdown)
    return compare_within([make_subject(first), make_subject(second, "torch:fp32")])[0].verdict


def test_print_rates() -> None:
    for judge in (judge_apart, judge_in_turns):
        for slowdown in (1.0, 1.10):
            rng = np.random.default_rng(2024)
            verdicts = [judge(rng, slowdown) for _ in range(500)]
            rates = {name: verdicts.count(name) / 500 for name in ("regression", "same", "inconclusive", "improvement")}
            print(judge.__name__, slowdown, rates)
