"""The drop-in against pydensecrf's interface: names, argument orders, sign conventions, published usage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import atrous.runtime.crf.compat as dcrf
from atrous.errors import MissingDependencyError
from atrous.runtime.crf import CrfInputError, CrfWarning, dense_crf
from atrous.runtime.crf.compat.utils import (
    create_pairwise_bilateral,
    create_pairwise_gaussian,
    unary_from_labels,
    unary_from_softmax,
)

from .conftest import make_problem


@pytest.mark.parametrize("name", ["voc-21-symmetric", "voc-21-after", "matrix-compat", "vector-compat", "anisotropic"])
def test_recorded_marginals_through_the_old_interface(shared_dir: Path, name: str) -> None:
    with np.load(shared_dir / "crf" / f"{name}.npz") as data:
        case = json.loads(str(data["case"]))
        image, probabilities, expected = data["image"], data["probabilities"], data["marginals"]
    labels, height, width = probabilities.shape
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(unary_from_softmax(probabilities))
    for term in case["terms"]:
        compat = term["compat"] if np.ndim(term["compat"]) == 0 else np.array(term["compat"], np.float32)
        kind = {"symmetric": dcrf.NORMALIZE_SYMMETRIC, "after": 2}[term["normalization"]]
        if term["kind"] == "gaussian":
            crf.addPairwiseGaussian(sxy=term["sxy"], compat=compat, kernel=dcrf.DIAG_KERNEL, normalization=kind)
        else:
            crf.addPairwiseBilateral(sxy=term["sxy"], srgb=term["srgb"], rgbim=image, compat=compat, normalization=kind)
    found = np.array(crf.inference(case["iterations"]))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-5)


def test_steps_change_q_in_place() -> None:
    image, probabilities = make_problem(20, 30, 4)
    crf = dcrf.DenseCRF2D(30, 20, 4)
    crf.setUnaryEnergy(unary_from_softmax(probabilities))
    crf.addPairwiseGaussian(sxy=(3, 3), compat=3)
    crf.addPairwiseBilateral(sxy=(80, 80), srgb=(13, 13, 13), rgbim=image, compat=10)
    whole = crf.inference(5)
    q, first, second = crf.startInference()
    divergences = []
    for _ in range(5):
        divergences.append(crf.klDivergence(q))
        crf.stepInference(q, first, second)
    np.testing.assert_array_equal(q, whole)
    assert crf.klDivergence(q) < divergences[0]


def test_features_are_the_2d_methods_in_another_orientation() -> None:
    image, probabilities = make_problem(20, 30, 4)
    flat = dcrf.DenseCRF(20 * 30, 4)
    flat.setUnary(dcrf.ConstUnary(unary_from_softmax(probabilities)))
    flat.addPairwiseEnergy(create_pairwise_gaussian(sdims=(3, 3), shape=(20, 30)), compat=3)
    features = create_pairwise_bilateral(sdims=(80, 80), schan=(13, 13, 13), img=image, chdim=2)
    assert features.shape == (5, 600)
    assert features.dtype == np.float32
    flat.addPairwiseEnergy(features, compat=10, normalization=dcrf.NormalizationType.NORMALIZE_SYMMETRIC)
    grid = dcrf.DenseCRF2D(30, 20, 4)
    grid.setUnaryEnergy(unary_from_softmax(probabilities))
    grid.addPairwiseGaussian(3, 3)
    grid.addPairwiseBilateral(80, 13, image, 10)
    different = np.array(flat.inference(5)).argmax(axis=0) != np.array(grid.inference(5)).argmax(axis=0)
    assert different.mean() < 0.06


def test_divergence_does_not_depend_on_a_label_without_probability() -> None:
    """pydensecrf's sum has energy * probability: an energy of 1e29 or 1e31 beside a probability of 0 adds nothing."""
    energies = np.random.default_rng(0).uniform(1, 5, (3, 600)).astype(np.float32)
    divergences = []
    for removed in (1e27, 1e29, 1e31):
        energies[2, ::2] = removed
        crf = dcrf.DenseCRF2D(30, 20, 3)
        crf.setUnaryEnergy(energies)
        crf.addPairwiseGaussian(3, 3)
        divergences.append(crf.klDivergence(crf.inference(2)))
    assert divergences == [pytest.approx(divergences[0], rel=1e-6)] * 3


def test_without_unary() -> None:
    crf = dcrf.DenseCRF2D(6, 5, 3)
    crf.addPairwiseGaussian(3, 3)
    np.testing.assert_allclose(crf.inference(3), 1 / 3, atol=1e-6)
    assert not crf.startInference()[0].any()


def test_unary_from_labels() -> None:
    energies = unary_from_labels(np.array([[0, 1], [2, 1]]), 2, gt_prob=0.8)
    expected = -np.log([[0.5, 0.8, 0.2, 0.8], [0.5, 0.2, 0.8, 0.2]])
    np.testing.assert_allclose(energies, expected, rtol=1e-6)
    labels = np.array([0, 1, 2], np.uint8)
    certain = unary_from_labels(labels, labels.max() + np.uint8(1), gt_prob=0.7, zero_unsure=False)
    np.testing.assert_allclose(np.exp(-certain), np.where(np.eye(3, dtype=bool), 0.7, 0.15), rtol=1e-6)
    with pytest.raises(CrfInputError, match="unknown"):
        unary_from_labels(np.array([0, 1, 3]), 2, gt_prob=0.7)


def test_labels_from_zero_taken_as_unknown_warn() -> None:
    with pytest.warns(CrfWarning, match="zero_unsure=False"):
        unary_from_labels(np.array([0, 1, 2]), 3, gt_prob=0.7)


def test_probabilities_as_energies_warn() -> None:
    _, probabilities = make_problem(20, 30, 4)
    with pytest.warns(CrfWarning, match="sum to 1"):
        dcrf.DenseCRF2D(30, 20, 4).setUnaryEnergy(probabilities.reshape(4, -1).copy())


def test_unary_from_softmax() -> None:
    probabilities = np.array([[[0.0, 0.5]], [[1.0, 0.5]]], np.float32)
    np.testing.assert_allclose(unary_from_softmax(probabilities), -np.log([[1e-5, 0.5], [1, 0.5]]), rtol=1e-6)
    np.testing.assert_allclose(
        unary_from_softmax(probabilities, scale=0.6), -np.log([[0.2, 0.5], [0.8, 0.5]]), rtol=1e-6
    )


def test_pairwise_features() -> None:
    features = create_pairwise_gaussian(sdims=(2, 4), shape=(2, 3))
    np.testing.assert_allclose(features, [[0, 0, 0, 0.5, 0.5, 0.5], [0, 0.25, 0.5, 0, 0.25, 0.5]])
    gray = create_pairwise_bilateral(sdims=(1, 1), schan=0.5, img=np.arange(6.0).reshape(2, 3))
    np.testing.assert_allclose(gray[2], np.arange(6) * 2)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda crf: crf.setUnaryEnergy(np.zeros((600, 4), np.float32)),
        lambda crf: crf.setUnaryEnergy(np.zeros((4, 20, 30), np.float32)),
        lambda crf: crf.setUnaryEnergy(np.zeros((4, 600), np.float64)),
        lambda crf: crf.setUnaryEnergy(np.full((4, 600), np.nan, np.float32)),
        lambda crf: crf.setUnaryEnergy(np.full((4, 600), np.inf, np.float32)),
        lambda crf: crf.setUnaryEnergy(np.full((4, 600), -np.inf, np.float32)),
        lambda crf: crf.setUnary(np.zeros((4, 600), np.float32)),
        lambda crf: crf.addPairwiseBilateral(80, 13, np.zeros((30, 20, 3), np.uint8), 10),
        lambda crf: crf.addPairwiseBilateral(80, 13, np.zeros((20, 30), np.uint8), 10),
        lambda crf: crf.addPairwiseBilateral(80, 13, np.zeros((20, 30, 3), np.float64), 10),
        lambda crf: crf.addPairwiseBilateral(80, 13, np.zeros((20, 30, 3), np.float32), 10),  # 0 to 1, often
        lambda crf: crf.addPairwiseBilateral(80, 0.001, np.zeros((20, 30, 3), np.uint8), 10),
        lambda crf: create_pairwise_gaussian((3, 3, 3), (20, 30)),
        lambda crf: create_pairwise_gaussian((0, 3), (20, 30)),
        lambda crf: create_pairwise_bilateral((80, 80), (13, 13, 13, 13), np.zeros((20, 30, 3)), 2),
        lambda crf: create_pairwise_gaussian((np.nan, 3), (20, 30)),
        lambda crf: unary_from_labels(np.zeros(600, int), 0, gt_prob=0.7),
        lambda crf: crf.addPairwiseGaussian(3, 3, normalization=7),
        lambda crf: crf.addPairwiseGaussian(3, 3, kernel="ROUND_KERNEL"),
        lambda crf: crf.addPairwiseGaussian(0, 3),
        lambda crf: crf.addPairwiseGaussian((3, float("nan")), 3),
        lambda crf: crf.addPairwiseGaussian((3,), 3),
        lambda crf: crf.addPairwiseGaussian("33", 3),
        lambda crf: crf.addPairwiseGaussian(3, float("inf")),
        lambda crf: crf.addPairwiseGaussian(3, -np.ones(3, np.float32)),  # read beyond its end by pydensecrf
        lambda crf: crf.addPairwiseGaussian(3, -np.ones(4)),  # float64
        lambda crf: crf.setUnary(dcrf.ConstUnary(np.zeros((3, 600), np.float32))),
        lambda crf: dcrf.DenseCRF2D(0, 5, 2),
        lambda crf: dcrf.DenseCRF2D("30", 20, 2),
    ],
)
def test_mistakes_are_value_errors(mistake: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        mistake(dcrf.DenseCRF2D(30, 20, 4))


def test_missing_original(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    image, probabilities = make_problem(8, 9, 3)
    with pytest.raises(MissingDependencyError, match="pip install"):
        dense_crf(image, probabilities, backend="pydensecrf")


@pytest.mark.parametrize(
    "extra", [{"settle": 0.9}, {"storage": "float16"}, {"mask": np.ones((8, 9), bool)}, {"reduce": 2}]
)
def test_original_backend_refuses_what_it_lacks(extra: dict[str, Any]) -> None:
    image, probabilities = make_problem(8, 9, 3)
    with pytest.raises(CrfInputError, match="neither mask, shortcuts nor token"):
        dense_crf(image, probabilities, backend="pydensecrf", **extra)
