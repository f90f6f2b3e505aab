from __future__ import annotations

import numpy as np
import pytest

from atrous.runtime.benchmark.statistics import (
    QUANTILES,
    choose_block,
    count_needed,
    describe_series,
    estimate_quantiles,
    estimate_ratio,
)


def draw_latencies(rng: np.random.Generator, count: int) -> np.ndarray:
    """Log-normal around 10 ms, two in a hundred with an exponential delay on top."""
    return 10 * np.exp(0.1 * rng.standard_normal(count)) + (rng.random(count) < 0.02) * rng.exponential(5, count)


def draw_alike(rng: np.random.Generator, count: int, likeness: float = 0.6) -> np.ndarray:
    """The same without delays, each sample like the one before it."""
    steps = rng.standard_normal(count)
    values = np.empty(count)
    values[0] = steps[0]
    for index in range(1, count):
        values[index] = likeness * values[index - 1] + np.sqrt(1 - likeness**2) * steps[index]
    return 10 * np.exp(0.1 * values)


@pytest.mark.parametrize("count", [2, 10, 37, 500, 5000])
def test_quantiles_are_numpys(count: int) -> None:
    values = draw_latencies(np.random.default_rng(count), count)
    for found in estimate_quantiles(values):
        if found.value_ms is not None:
            assert found.value_ms == pytest.approx(np.quantile(values, found.q), abs=1e-6)


@pytest.mark.parametrize(("q", "needed"), [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3688)])
def test_an_interval_needs_samples_beyond_the_quantile(q: float, needed: int) -> None:
    assert count_needed(q) == needed
    assert q**needed <= 0.025 < q ** (needed - 1)
    values = np.random.default_rng(3).permutation(np.linspace(1, 2, needed))
    assert choose_block(values) == 1
    (enough,) = estimate_quantiles(values, (q,))
    (lacking,) = estimate_quantiles(values[:-1], (q,))
    assert enough.low_ms is not None
    assert enough.high_ms is not None
    assert enough.reason is None
    assert lacking.low_ms is None
    assert lacking.high_ms is None
    assert lacking.reason is not None
    assert f"needs {needed} samples" in lacking.reason


def test_p999_of_too_few_samples_is_refused_not_the_maximum_renamed() -> None:
    *_, p999 = estimate_quantiles(draw_latencies(np.random.default_rng(0), 999))
    assert (p999.value_ms, p999.low_ms, p999.high_ms) == (None, None, None)
    assert "p99.9 needs 3688 samples for a value and an interval" in p999.reason


def test_every_sample_is_kept_in_order() -> None:
    values = [1.0, 2.0, 900.0, 1.5]
    series = describe_series([0.0, 0.1, 0.2, 1.2], values)
    assert list(series.values_ms) == values
    assert series.max_ms == 900
    assert series.mean_ms == pytest.approx(np.mean(values))


def test_the_same_samples_give_the_same_interval() -> None:
    values = draw_latencies(np.random.default_rng(5), 300)
    assert estimate_quantiles(values) == estimate_quantiles(values.copy())


@pytest.mark.parametrize(
    ("draw", "count", "q", "least"),
    [(draw_latencies, 100, 0.5, 0.90), (draw_latencies, 500, 0.9, 0.90), (draw_alike, 600, 0.5, 0.85)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(draw, count: int, q: float, least: float) -> None:
    rng = np.random.default_rng(7)
    truth = np.quantile(np.concatenate([draw(rng, 4000) for _ in range(20)]), q)
    hits = 0
    for _ in range(150):
        (found,) = estimate_quantiles(draw(rng, count), (q,))
        assert found.low_ms is not None
        assert found.high_ms is not None
        hits += found.low_ms <= truth <= found.high_ms
    assert hits / 150 >= least


def test_samples_that_are_alike_get_wider_intervals() -> None:
    rng = np.random.default_rng(1)
    values = draw_alike(rng, 600, 0.8)
    mixed = rng.permutation(values)
    assert choose_block(values) > 5
    assert choose_block(mixed) == 1
    wide, narrow = (estimate_quantiles(one, (0.5,))[0] for one in (values, mixed))
    assert wide.high_ms - wide.low_ms > 1.3 * (narrow.high_ms - narrow.low_ms)


def test_a_constant_series_has_a_point_for_an_interval() -> None:
    (middle, *_) = estimate_quantiles(np.full(50, 3.0), QUANTILES)
    assert (middle.low_ms, middle.value_ms, middle.high_ms) == (3, 3, 3)


def test_a_ratio_of_pairs_cancels_common_slowdowns() -> None:
    rng = np.random.default_rng(2)
    drift = np.cumsum(rng.standard_normal(200)) * 0.02 + 10  # the machine drifts
    baseline = drift * np.exp(0.01 * rng.standard_normal(200))
    candidate = 1.10 * drift * np.exp(0.01 * rng.standard_normal(200))
    paired = estimate_ratio(baseline, candidate, paired=True)
    apart = estimate_ratio(baseline, candidate, paired=False)
    assert paired.low < 1.10 < paired.high
    assert paired.high - paired.low < apart.high - apart.low


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="paired"):
        estimate_ratio(np.ones(3), np.ones(4), paired=True)
    with pytest.raises(ValueError, match="at least one"):
        describe_series([], [])
