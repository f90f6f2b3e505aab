"""Limits, rounding and losses of the narrow types, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.converter.precision.float_types import BFLOAT16, FLOAT8, FLOAT16, FloatType, WeightLoss, measure_loss


@pytest.mark.parametrize(
    ("kind", "largest", "smallest_normal"),
    [
        (FLOAT16, 65504.0, 2.0**-14),
        (BFLOAT16, (2 - 2.0**-7) * 2.0**127, 2.0**-126),
        (FLOAT8, 448.0, 2.0**-6),
    ],
)
def test_limits(kind: FloatType, largest: float, smallest_normal: float) -> None:
    assert (kind.largest, kind.smallest_normal) == (largest, smallest_normal)


@pytest.mark.parametrize(
    ("kind", "value", "rounded"),
    [
        (FLOAT16, 2049.0, 2048.0),  # between 2048 and 2050: a tie, to even
        (FLOAT16, 2051.0, 2052.0),
        (FLOAT16, 2.0**-25, 0.0),  # half of the smallest
        (FLOAT16, 1.1 * 2.0**-25, 2.0**-24),
        (BFLOAT16, 257.0, 256.0),
        (BFLOAT16, 259.0, 260.0),
        (FLOAT8, 17.0, 16.0),
        (FLOAT8, 19.0, 20.0),
    ],
)
def test_rounding_is_to_nearest_even(kind: FloatType, value: float, rounded: float) -> None:
    assert kind.round(np.array([value], np.float32)) == [rounded]


def test_losses_are_counted() -> None:
    weights = np.array([0.0, 1.0, -7e4, 1e-8, -1e-5, 6.2e-5], np.float32)
    loss = measure_loss([weights], FLOAT16)
    assert (loss.nonzero_weights, loss.overflowing, loss.largest) == (5, 1, 7e4)
    assert (loss.flushed_share, loss.subnormal_share) == pytest.approx((1 / 5, 1 / 5))
    both = measure_loss([weights, np.array([[1e5]], np.float32)], FLOAT16)
    assert (both.nonzero_weights, both.overflowing, both.largest) == (6, 2, 1e5)
    assert (both.flushed_share, both.subnormal_share) == pytest.approx((1 / 6, 1 / 6))


def test_zeros_lose_nothing() -> None:
    assert measure_loss([np.zeros((2, 2), np.float32)], FLOAT16) == WeightLoss(0, 0.0, 0, 0.0, 0.0)
