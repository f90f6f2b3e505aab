"""A part of an image has the marginals of the whole, away from its ends, if its origin is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atrous.runtime.crf import CrfParameters, dense_crf

from .conftest import make_problem

IMAGE, PROBABILITIES = make_problem(60, 90, 4)
PARAMETERS = CrfParameters.from_dict(
    {
        "mode": "deeplab",
        "iterations": 2,
        "gaussian": [{"sxy": [1.1, 0.9], "weight": 3.0}],
        "bilateral": [{"sxy": 2.0, "srgb": [20.0, 25.0, 30.0], "weight": 4.0}],
    }
)
TOP, LEFT, END = 17, 29, 20  # where the part begins, and how much of its ends depends on what is outside


def refine_part(**options: Any) -> np.ndarray[Any, Any]:
    part = np.ascontiguousarray(IMAGE[TOP:, LEFT:])
    belief = np.ascontiguousarray(PROBABILITIES[:, TOP:, LEFT:])
    return dense_crf(part, belief, parameters=PARAMETERS, threads=1, **options)[:, END:, END:]


def test_marginals_of_a_part() -> None:
    whole = dense_crf(IMAGE, PROBABILITIES, parameters=PARAMETERS, threads=1)[:, TOP + END :, LEFT + END :]
    with_origin = np.abs(refine_part(origin=(TOP, LEFT)) - whole)
    without = np.abs(refine_part() - whole)
    assert np.median(with_origin) < 1e-4
    assert np.mean(with_origin) < np.mean(without) / 20
    assert without.max() > 0.05  # the lattice lies elsewhere


def test_a_reduced_part() -> None:
    """Blocks of 2 x 2 pixels: an even origin."""
    whole = dense_crf(IMAGE, PROBABILITIES, parameters=PARAMETERS, threads=1, reduce=2)
    part = np.ascontiguousarray(IMAGE[TOP - 1 :, LEFT - 1 :])
    belief = np.ascontiguousarray(PROBABILITIES[:, TOP - 1 :, LEFT - 1 :])
    found = dense_crf(part, belief, parameters=PARAMETERS, threads=1, reduce=2, origin=(TOP - 1, LEFT - 1))
    difference = np.abs(found - whole[:, TOP - 1 :, LEFT - 1 :])[:, END:, END:]
    assert np.median(difference) < 1e-4


@pytest.mark.parametrize("origin", [(0, 0), (0.0, 0.0)])
def test_an_origin_of_zero_changes_nothing(origin: Any) -> None:
    np.testing.assert_array_equal(refine_part(origin=origin), refine_part())
