"""Scores of a coarser grid, also of an image that was padded for the network, against NumPy's upsampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atrous.runtime.crf import CrfInputError, CrfParameters, DenseCRF, FrameCrf, dense_crf
from atrous.runtime.crf.refiner import Refiner

from .conftest import make_problem
from .reference import softmax


def upsample(coarse: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.float64]:
    """Corners on corners, in float64."""
    result = coarse.astype(np.float64)
    for axis, full in ((1, height), (2, width)):
        size = result.shape[axis]
        places = np.linspace(0, size - 1, full) if full > 1 else np.zeros(1)
        low = np.minimum(places.astype(int), max(size - 2, 0))
        high = np.minimum(low + 1, size - 1)
        share = (places - low).reshape([-1 if a == axis else 1 for a in range(3)])
        result = result.take(low, axis) * (1 - share) + result.take(high, axis) * share
    return result


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("padded", [(19, 26), (25, 33), (19, 40)])
@pytest.mark.parametrize("coarse", [(5, 7), (1, 1), (1, 26), (19, 3), (18, 25)])
def test_coarse_scores_are_upsampled(dtype: Any, coarse: tuple[int, int], padded: tuple[int, int]) -> None:
    image, _ = make_problem(19, 26, 6)
    scores = np.random.default_rng(1).normal(0, 3, (6, *coarse)).astype(dtype)
    full = upsample(scores, *padded)[:, :19, :26]
    probabilities = np.moveaxis(softmax(np.moveaxis(full, 0, -1)), -1, 0)
    crf = DenseCRF((19, 26), 6)
    crf.set_scores(scores, padded=padded)
    clipped = np.maximum(probabilities, 1e-5)
    np.testing.assert_allclose(crf.start(), clipped / clipped.sum(axis=0), atol=1e-5)
    expected = dense_crf(image, probabilities.astype(np.float32), iterations=3)
    found = dense_crf(image, scores=scores, padded=padded, iterations=3)
    np.testing.assert_allclose(found, expected, atol=3e-5)


WRONG_SIZES = [(18, 26), (19, 25), (19,), (19, 26, 1), 26, (19.5, 26), (None, 26), ((19, 26), 26), (2**31, 26), "ab"]


@pytest.mark.parametrize("padded", WRONG_SIZES)
def test_padded_sizes_are_checked(padded: Any) -> None:
    crf = DenseCRF((19, 26), 6)
    with pytest.raises(CrfInputError, match="padded must be two integers"):
        crf.set_scores(np.zeros((6, 5, 7), np.float32), padded=padded)


@pytest.mark.parametrize("shape", [(), (6,), (6, 19 * 26), (6, 1, 5, 7), (5, 5, 7), (7, 6, 5)])
def test_scores_of_a_padded_image_have_three_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(CrfInputError, match="expected 6 labels first, then height and width"):
        DenseCRF((19, 26), 6).set_scores(np.zeros(shape, np.float32), padded=(25, 33))


@pytest.mark.parametrize("call", [dense_crf, Refiner, FrameCrf(CrfParameters())])
def test_a_unary_is_one_array(call: Any) -> None:
    image, probabilities = make_problem(19, 26, 6)
    coarse = np.zeros((6, 5, 7), np.float32)
    for both in ({}, {"probabilities": probabilities, "scores": coarse}):
        with pytest.raises(CrfInputError, match="either probabilities or scores"):
            call(image, **both)
    with pytest.raises(CrfInputError, match="padded is the size that scores"):
        call(image, probabilities, padded=(25, 33))
    call(image, scores=coarse, padded=np.array((25, 33)))
