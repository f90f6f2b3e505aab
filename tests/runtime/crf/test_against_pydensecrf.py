"""The exact mode and the drop-in against the original, pydensecrf2 from PyPI, over random settings.

`make pydensecrf-check` builds it and runs these tests.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import atrous.runtime.crf.compat as dcrf
from atrous.bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm
from atrous.runtime.crf import DenseCRF, dense_crf, recipes
from atrous.runtime.crf.compat import utils

from .conftest import make_problem
from .random_terms import draw_compatibility

original = pytest.importorskip(
    "pydensecrf.densecrf", reason="the original pydensecrf is not installed (make pydensecrf-check)"
)
original_utils = pytest.importorskip("pydensecrf.utils")

Random = np.random.Generator
Marginals = npt.NDArray[np.float32]

SETTINGS = 200
BLOCKS = 8


def assert_equal(found: Any, expected: Any, name: str) -> None:
    """Equal labels, marginals within 1e-5; a hundred thousandth of the pixels, undecided, may differ by 1e-4."""
    found, expected = np.asarray(found), np.array(expected)
    assert np.isfinite(expected).all(), name
    differences = np.abs(found - expected).max(axis=0)
    assert (differences > 1e-5).sum() <= 1 + differences.size / 1e5, name
    assert differences.max() <= 1e-4, name
    np.testing.assert_array_equal(found.argmax(axis=0), expected.argmax(axis=0), err_msg=name)


def draw_unary(random: Random, labels: int, points: int) -> Marginals:
    """Energies (L, N), now and then with infinite or huge ones, never at all labels of a point."""
    scores = random.normal(0, random.uniform(0.5, 3), (labels, points))
    energies = -np.log(np.exp(scores) / np.exp(scores).sum(axis=0)).astype(np.float32)
    if labels > 1 and random.random() < 0.4:
        removed = random.random(energies.shape) < 0.2
        removed[random.integers(labels), :] = False
        energies[removed] = random.choice([np.inf, 1e30, 3e38])
    return energies


def draw_sigma(random: Random) -> Any:
    """A number or a pair, now and then mirrored or without effect."""
    x, y = random.uniform(1.5, 40, 2)
    odd = random.choice([1.0, 1.0, 1.0, -1.0, math.inf])
    return float(x) if random.random() < 0.5 else (float(x * odd), np.float32(y))


def draw_term(random: Random, width: int, height: int, labels: int) -> Callable[[Any, Any], None]:
    """A call that adds a random term to either implementation."""
    normalization = int(random.integers(4))
    strength = float(random.uniform(0.5, 4)) * (0.05 if normalization == 0 else 1)
    compat = draw_compatibility(random, labels, strength)
    kinds = {"kernel": int(random.integers(3)), "normalization": normalization}
    sxy, image = draw_sigma(random), make_problem(height, width, 2, int(random.integers(1 << 30)))[0]
    srgb: Any = float(random.uniform(3, 20))
    srgb = srgb if random.random() < 0.5 else tuple(random.uniform(3, 20, 3))
    match random.integers(4):
        case 0:
            return lambda crf, helpers: crf.addPairwiseGaussian(sxy, compat, **kinds)
        case 1 | 2:
            return lambda crf, helpers: crf.addPairwiseBilateral(sxy, srgb, image, compat, **kinds)
    sdims, channels = (float(random.uniform(2, 30)), np.float64(random.uniform(2, 30))), float(random.uniform(3, 20))

    def add(crf: Any, helpers: Any) -> None:
        features = helpers.create_pairwise_bilateral(sdims, channels, image, 2)
        crf.addPairwiseEnergy(features, compat, **kinds)

    return add


@pytest.mark.filterwarnings("ignore::atrous.runtime.crf.CrfWarning")
@pytest.mark.parametrize("block", range(BLOCKS))
def test_drop_in(block: int) -> None:
    for seed in range(block * SETTINGS // BLOCKS, (block + 1) * SETTINGS // BLOCKS):
        random = np.random.default_rng(seed)
        width, height = random.integers(1, 60, 2).tolist()
        labels, updates = int(random.integers(1, 24)), int(random.integers(0, 8))
        unary = draw_unary(random, labels, width * height)
        terms = [draw_term(random, width, height, labels) for _ in range(int(random.integers(1, 4)))]
        sizes = (width + 0.7, height, labels) if random.random() < 0.3 else (width, height, labels)
        results, divergences, steps = [], [], []
        for module, helpers in ((dcrf, utils), (original, original_utils)):
            crf = module.DenseCRF2D(*sizes)
            crf.setUnaryEnergy(unary)
            for add in terms:
                add(crf, helpers)
            q = crf.inference(updates)
            results.append(np.array(q))
            divergences.append(crf.klDivergence(q))
            q, first, second = crf.startInference()
            for _ in range(updates):
                crf.stepInference(q, first, second)
            steps.append(np.array(q))
        assert_equal(*results, f"setting {seed}")
        assert_equal(*steps, f"steps of setting {seed}")
        close = pytest.approx(divergences[1], rel=1e-4, abs=1e-4 * width * height, nan_ok=True)
        assert divergences[0] == close, seed


@pytest.mark.parametrize("seed", range(12))
def test_exact_mode_and_backend(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(20, 90, 2).tolist()
    image, probabilities = make_problem(height, width, int(random.integers(2, 22)), seed)
    parameters = CrfParameters(
        mode=random.choice(["pydensecrf", "deeplab"]),
        iterations=int(random.integers(1, 11)),
        gaussian=(GaussianTerm(float(random.uniform(1, 5)), float(random.uniform(1, 5))),),
        bilateral=(BilateralTerm(float(random.uniform(20, 120)), float(random.uniform(3, 13)), 4.0),),
    )
    found = dense_crf(image, probabilities, parameters=parameters)
    assert_equal(found, dense_crf(image, probabilities, parameters=parameters, backend="pydensecrf"), f"{parameters}")


def test_start_without_unary_is_zero_also_after_an_inference() -> None:
    results = []
    for module in (dcrf, original):
        crf = module.DenseCRF2D(7, 5, 3)
        crf.addPairwiseGaussian(3, 3)
        uniform = np.array(crf.inference(2))
        results.append([uniform, np.array(crf.startInference()[0])])
    np.testing.assert_allclose(*results, atol=1e-6)


def test_points_without_a_grid() -> None:
    random = np.random.default_rng(0)
    features, unary = random.normal(0, 2, (7, 500)).astype(np.float32), draw_unary(random, 6, 500)
    results = []
    for module in (dcrf, original):
        crf = module.DenseCRF(np.prod((50, 10.0)), 6)
        crf.setUnary(module.ConstUnary(unary))
        crf.addPairwiseEnergy(features, 2, module.FULL_KERNEL, module.NORMALIZE_AFTER)
        results.append(crf.inference(3.9))
    assert_equal(*results, "free points")


def test_volume() -> None:
    """Three axes, through features; the model's own position term has the other axis order and the same kernel."""
    random = np.random.default_rng(1)
    unary = draw_unary(random, 3, 6 * 7 * 8)
    features = original_utils.create_pairwise_gaussian((2, 3, 4), (6, 7, 8))
    np.testing.assert_array_equal(utils.create_pairwise_gaussian((2, 3, 4), (6, 7, 8)), features)
    crf = original.DenseCRF(336, 3)
    crf.setUnaryEnergy(unary)
    crf.addPairwiseEnergy(features, 3)
    own = DenseCRF(336, 3)
    own.set_unary(np.minimum(unary, 1e10))
    own.add_features(features, 3)
    assert_equal(own.inference(4), crf.inference(4), "volume")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [None, 0.7, np.float32(0.3), 1.0])
@pytest.mark.parametrize("clip", [None, 1e-5, 0.01])
def test_unary_from_softmax(dtype: Any, scale: Any, clip: float | None) -> None:
    probabilities = np.random.default_rng(2).dirichlet(np.ones(5), (9, 11)).transpose(2, 0, 1).astype(dtype)
    expected = original_utils.unary_from_softmax(probabilities, scale, clip)
    np.testing.assert_array_equal(utils.unary_from_softmax(probabilities, scale, clip), expected)


@pytest.mark.filterwarnings("ignore::atrous.runtime.crf.CrfWarning")
@pytest.mark.parametrize("zero_unsure", [True, False])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_unary_from_labels(zero_unsure: bool, dtype: Any) -> None:
    labels = np.random.default_rng(3).integers(int(zero_unsure), 6, (9, 11)).astype(dtype)
    if dtype != np.uint8:  # there, pydensecrf turns 0 into 255
        labels[0, 0], labels[1, 1] = 0, -2
    for count, probability in ((6, 0.7), (6, np.float32(0.9)), (np.uint8(6), 0.7)):  # uint8: a map's maximum + 1
        expected = original_utils.unary_from_labels(labels, count, probability, zero_unsure)
        np.testing.assert_array_equal(utils.unary_from_labels(labels, count, probability, zero_unsure), expected)


@pytest.mark.filterwarnings("ignore::atrous.runtime.crf.CrfWarning")
def test_features() -> None:
    random = np.random.default_rng(4)
    for sdims, schan, image, axis in (
        ((3, 5), 0.1, random.random((6, 7)), -1),
        ((3.3, -5.1), (0.1, 7), random.integers(0, 255, (6, 7, 2)), 2),
        ((np.float64(3.3), np.float32(5.1)), np.float64(0.3), random.random((3, 6, 7)).astype(np.float32), 0),
        ((3,), 0.1, random.integers(0, 255, (6, 7, 3)).astype(np.uint8), -1),
        ((3, 5), (0.1,), random.integers(0, 255, (6, 7, 3)).astype(np.uint8), 2),
    ):
        expected = original_utils.create_pairwise_bilateral(sdims, schan, image, axis)
        np.testing.assert_array_equal(utils.create_pairwise_bilateral(sdims, schan, image, axis), expected)


def run_original(unary: Any, image: Any, iterations: int, gaussian: Any, bilateral: Any) -> Marginals:
    """Marginals (L, H, W) of energies, with (sxy, weight) and (sxy, srgb, weight)."""
    height, width = image.shape[:2]
    crf = original.DenseCRF2D(width, height, len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary))
    crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
    crf.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=np.array(image), compat=bilateral[2])
    return np.array(crf.inference(iterations)).reshape(-1, height, width)


@pytest.mark.parametrize("seed", range(20))
def test_recipes(seed: int) -> None:
    """The four copied functions with random arguments: the settings are those of their repositories."""
    random = np.random.default_rng(seed)
    height, width, labels = int(random.integers(5, 90)), int(random.integers(5, 90)), int(random.integers(2, 22))
    image, probabilities = make_problem(height, width, labels, seed, float(random.uniform(1, 4)))
    scores = (probabilities ** random.uniform(0.3, 1)).astype(random.choice([np.float32, np.float64]))
    softmax = original_utils.unary_from_softmax
    updates, scale = int(random.integers(1, 11)), float(random.choice([1, 2, 0.5]))

    pos_w, pos_xy, bi_w, bi_xy, bi_rgb = (float(n) for n in random.uniform(1, [7, 5, 10, 120, 13]))
    found = recipes.DenseCRF(updates, pos_w, pos_xy, bi_w, bi_xy, bi_rgb)(image, scores)
    assert_equal(
        found, run_original(softmax(scores), image, updates, (pos_xy, pos_w), (bi_xy, bi_rgb, bi_w)), "DenseCRF"
    )

    found = recipes.crf_inference(image, scores, updates, scale, labels)
    expected = run_original(softmax(scores), image, updates, (3 / scale, 3), (80 / scale, 13, 10))
    assert_equal(found, expected, "crf_inference")

    given = probabilities.argmax(axis=0)
    unary = original_utils.unary_from_labels(given, labels, gt_prob=0.7, zero_unsure=False)
    expected = run_original(unary, image, updates, (3, 3), (50, 5, 10)).argmax(axis=0)
    np.testing.assert_array_equal(recipes.crf_inference_label(image, given, updates, labels), expected)

    mask = (probabilities[0] > np.median(probabilities[0])).astype(np.float64)
    sides = np.exp([1 - mask, mask]) / np.exp([1 - mask, mask]).sum(axis=0)
    expected = run_original(softmax(sides), image, 10, (3, 7), (50, 5, 10)).argmax(axis=0)
    np.testing.assert_array_equal(recipes.densecrf(image, mask), expected)


def test_backend_is_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which the name belongs to the drop-in cannot compare with the original."""
    image, probabilities = make_problem(8, 9, 3)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", dcrf.densecrf)
    with pytest.raises(ValueError, match="without install"):
        dense_crf(image, probabilities, backend="pydensecrf")
