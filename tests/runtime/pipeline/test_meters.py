"""Levels and quantiles against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.runtime.pipeline.meters import Durations, Level


def test_level() -> None:
    level = Level(threshold=2)
    level.start(10.0)
    for value, now_s in ((1, 11.0), (3, 12.0), (0, 14.0)):
        level.set(value, now_s)
    assert level.integral_s(20.0) == pytest.approx(0 * 1 + 1 * 1 + 3 * 2 + 0 * 6)
    assert level.above_s(20.0) == pytest.approx(2)
    assert (level.value, level.highest) == (0, 3)
    level.add(2, 20.0)
    assert level.integral_s(21.0) == pytest.approx(9)


def test_durations_against_numpy() -> None:
    samples = np.random.default_rng(3).lognormal(-3, 1, 5000)
    durations = Durations()
    for sample in samples:
        durations.add(float(sample))
    assert durations.count == 5000
    assert durations.mean_s == pytest.approx(samples.mean())
    for share in (0.01, 0.5, 0.9, 0.99):
        assert durations.quantile_s(share) == pytest.approx(
            np.quantile(samples, share, method="inverted_cdf"), rel=0.01
        )


def test_no_durations() -> None:
    assert (Durations().mean_s, Durations().quantile_s(0.5)) == (0.0, 0.0)
