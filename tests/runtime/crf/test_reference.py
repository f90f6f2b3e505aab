"""The core against plain NumPy in float64: exact sums, one-pixel edges, volumes, many dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from atrous.runtime.crf import CrfWarning, DenseCRF

from .conftest import make_problem
from .reference import Array, Lattice, MeanField, Term, grid_features, softmax


def exact_filter(features: Array, values: Array) -> Array:
    """The sums that the lattice approximates: sum_j exp(-|f_i - f_j|^2 / 2) values_j / n, normalized after."""
    squares = ((features[:, :, None] - features[:, None, :]) ** 2).sum(axis=0)
    kernel = np.exp(-squares / 2)
    return (kernel @ values) / kernel.sum(axis=1, keepdims=True)


def test_lattice_approximates_gaussian_sums() -> None:
    image, probabilities = make_problem(24, 24, 3, seed=5)
    features = grid_features((24, 24), [6.0, 6.0], image, [40.0, 40.0, 40.0])
    values = probabilities.reshape(3, -1).T.astype(np.float64)
    lattice = Lattice(features)
    approximate = lattice(values) / lattice(np.ones((len(values), 1)))
    exact = exact_filter(features.astype(np.float64), values)
    spread = values.std()
    assert np.abs(approximate - exact).mean() < 0.05 * spread
    # The same sums through the core: one update with a Potts term, undone by the logarithm.
    crf = DenseCRF((24, 24), 3)
    crf.set_unary(np.ascontiguousarray(-np.log(probabilities)))
    crf.add_bilateral(6.0, 40.0, image, 1.0, normalization="after")
    updated = crf.inference(1).reshape(3, -1).T.astype(np.float64)
    np.testing.assert_allclose(updated, softmax(np.log(values) + approximate), atol=1e-6)
    np.testing.assert_allclose(updated, softmax(np.log(values) + exact), atol=0.02)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 67), (67, 1), (33, 31)])
def test_tiny_and_odd_sizes(height: int, width: int) -> None:
    image, probabilities = make_problem(height, width, 3, seed=height * 100 + width)
    image[:1, :1] = 0  # near-black near the origin: where the padding of the reference can be felt
    energies = -np.log(np.clip(probabilities.reshape(3, -1), 1e-5, 1)).T
    crf = DenseCRF((height, width), 3)
    crf.set_probabilities(probabilities)
    crf.add_gaussian(3.0, 3.0)
    crf.add_bilateral(20.0, 10.0, image, 4.0)
    terms = [
        Term(grid_features((height, width), [3.0, 3.0]), 3.0),
        Term(grid_features((height, width), [20.0, 20.0], image, [10.0] * 3), 4.0),
    ]
    expected = MeanField(energies.astype(np.float64), terms).run(5)
    np.testing.assert_allclose(crf.inference(5).reshape(3, -1).T, expected, rtol=0, atol=1e-5)


def test_volume_with_float_channels() -> None:
    random = np.random.default_rng(3)
    shape = (5, 9, 11)
    volume = random.normal(0, 1, (*shape, 2)).astype(np.float32)
    energies = random.uniform(0, 3, (4, *shape)).astype(np.float32)
    crf = DenseCRF(shape, 4)
    crf.set_unary(energies)
    crf.add_gaussian((2.0, 3.0, 4.0), 2.0)
    crf.add_bilateral((4.0, 5.0, 6.0), (0.5, 0.7), volume, 3.0, normalization="after")
    terms = [
        Term(grid_features(shape, [2.0, 3.0, 4.0]), 2.0),
        Term(grid_features(shape, [4.0, 5.0, 6.0], volume, [0.5, 0.7]), 3.0, "after"),
    ]
    expected = MeanField(energies.reshape(4, -1).T.astype(np.float64), terms).run(4)
    found = crf.inference(4)
    assert found.shape == (4, *shape)
    np.testing.assert_allclose(found.reshape(4, -1).T, expected, rtol=0, atol=1e-5)


def test_many_dimensions() -> None:
    random = np.random.default_rng(4)
    features = random.normal(0, 0.5, (24, 50)).astype(np.float32)  # keys of several words
    energies = random.uniform(0, 3, (3, 50)).astype(np.float32)
    crf = DenseCRF(50, 3)
    crf.set_unary(energies)
    crf.add_features(features, 2.0)
    expected = MeanField(energies.T.astype(np.float64), [Term(features, 2.0)]).run(3)
    np.testing.assert_allclose(crf.inference(3).T, expected, rtol=0, atol=1e-5)


def test_positive_vector_warns() -> None:
    crf = DenseCRF((4, 4), 2)
    with pytest.warns(CrfWarning, match="negate"):
        crf.add_gaussian(3.0, np.array([1.0, 2.0], np.float32))
