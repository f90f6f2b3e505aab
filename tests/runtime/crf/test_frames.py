"""Frames one after the other, against `dense_crf` of each alone."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.runtime.crf import BilateralTerm, CrfInputError, CrfParameters, DenseCRF, FrameCrf, GaussianTerm, dense_crf

PARAMETERS = CrfParameters(
    mode="deeplab", iterations=6, gaussian=(GaussianTerm(3, 3),), bilateral=(BilateralTerm(20, 10, 4),)
)


def make_frame(seed: int, height: int = 40, width: int = 50) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    image = dice.integers(0, 256, (height, width, 3)).astype(np.uint8)
    scores = dice.normal(0, 2, (4, height, width)).astype(np.float32)
    return image, scores


def test_every_frame_is_refined_as_an_image_of_its_own() -> None:
    crf = FrameCrf(PARAMETERS)
    for seed, size in enumerate([(40, 50), (40, 50), (30, 20), (40, 50)]):
        image, scores = make_frame(seed, *size)
        assert np.array_equal(crf(image, scores=scores), dense_crf(image, scores=scores, parameters=PARAMETERS))
    assert crf.warm_starts == 0


def test_a_frame_starts_from_the_one_before() -> None:
    image, scores = make_frame(0)
    crf = FrameCrf(PARAMETERS, updates=2)
    crf(image, scores=scores)
    found = crf(image, scores=scores)
    straight = dense_crf(image, scores=scores, parameters=CrfParameters(**{**vars(PARAMETERS), "iterations": 8}))
    assert np.array_equal(found, straight)  # 6 updates and 2 more
    assert crf.warm_starts == 1


def test_a_cut_starts_afresh() -> None:
    crf = FrameCrf(PARAMETERS, updates=2)
    image, scores = make_frame(0)
    crf(image, scores=scores)
    image, scores = make_frame(1)
    assert np.array_equal(crf(image, scores=scores), dense_crf(image, scores=scores, parameters=PARAMETERS))
    assert crf.warm_starts == 0


def test_an_error_starts_the_next_frame_afresh() -> None:
    image, scores = make_frame(0)
    crf = FrameCrf(PARAMETERS, updates=2)
    crf(image, scores=scores)
    with pytest.raises(CrfInputError):
        crf(image, scores=scores.astype(np.float64))
    assert np.array_equal(crf(image, scores=scores), dense_crf(image, scores=scores, parameters=PARAMETERS))
    with pytest.raises(CrfInputError, match="updates"):
        FrameCrf(PARAMETERS, updates=7)


def test_another_image_replaces_the_bilateral_terms_alone() -> None:
    (first, scores), (second, _) = make_frame(0), make_frame(1)
    crfs = []
    for image in (first, second):
        crf = DenseCRF((40, 50), 4)
        crf.set_scores(scores)
        crf.add_bilateral(20, 10, image, 4)
        crf.add_gaussian(3, 3)
        crf.add_bilateral(5, 30, image, 2)
        crfs.append(crf)
    crfs[0].inference(2)
    crfs[0].set_image(second)
    assert np.array_equal(crfs[0].inference(3), crfs[1].inference(3))
    with pytest.raises(CrfInputError):
        crfs[0].set_image(second[:20])
    crfs[0].clear_terms()
    crfs[0].set_image(first)
    assert crfs[0].lattice_vertices == []
