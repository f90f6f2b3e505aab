"""200 random settings of everything at once, against plain NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atrous.runtime.crf import DenseCRF

from .random_terms import draw_compatibility
from .reference import MeanField, Term, grid_features, softmax

SETTINGS = 200
BLOCKS = 10

Random = np.random.Generator


def draw_grid(random: Random) -> tuple[int, ...]:
    """One to five axes, a thousand points or so, odd ones too."""
    axes = int(random.choice([1, 2, 2, 2, 3, 4, 5]))
    longest = {1: 900, 2: 40, 3: 11, 4: 6, 5: 4}[axes]
    return tuple(int(n) for n in random.integers(1, longest + 1, axes))


def draw_image(random: Random, grid: tuple[int, ...]) -> npt.NDArray[Any]:
    """Noise around slow changes, one to four channels, uint8 or float32."""
    channels = int(random.choice([1, 3, 3, 4]))
    slow = sum(np.meshgrid(*[np.linspace(0, random.uniform(-99, 99), n) for n in grid], indexing="ij"))
    image = 120 + slow[..., None] + random.normal(0, 9, (*grid, channels))
    clipped = np.clip(image, 0, 255)
    return clipped.astype(np.uint8) if random.random() < 0.6 else clipped.astype(np.float32)


def add_term(random: Random, crf: DenseCRF, grid: tuple[int, ...]) -> Term:
    """One random term, to the CRF and as the reference takes it."""
    normalization: Any = random.choice(["symmetric", "after", "before", "none"])
    strength = float(random.uniform(0.5, 4)) * (0.05 if normalization == "none" else 1)
    compatibility = draw_compatibility(random, crf.labels, strength)
    sxy = [float(s) for s in random.uniform(1.5, 40, len(grid))]
    match random.integers(0, 3):
        case 0:
            crf.add_gaussian(sxy, compatibility, normalization=normalization)
            features = grid_features(grid, sxy)
        case 1:
            image = draw_image(random, grid)
            srgb = [float(s) for s in random.uniform(3, 20, image.shape[-1])]
            crf.add_bilateral(sxy, srgb, image, compatibility, normalization=normalization)
            features = grid_features(grid, sxy, image, srgb)
        case _:
            features = random.normal(0, 2, (int(random.integers(1, 6)), crf.points)).astype(np.float32)
            crf.add_features(features, compatibility, normalization=normalization)
    return Term(features, compatibility, normalization)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_settings(block: int) -> None:
    for seed in range(block * SETTINGS // BLOCKS, (block + 1) * SETTINGS // BLOCKS):
        random = np.random.default_rng(seed)
        grid, labels = draw_grid(random), int(random.integers(1, 41))
        mask = random.random(grid) < random.uniform(0, 1) if random.random() < 0.25 else None
        crf = DenseCRF(grid, labels, threads=int(random.integers(1, 4)), mask=mask)
        scores = random.normal(0, float(random.uniform(0.5, 3)), (crf.points, labels))
        energies = np.minimum(-np.log(softmax(scores)), -np.log(1e-5)).astype(np.float32)
        unary = energies.T.reshape(labels, *grid)
        match random.integers(0, 3):
            case 0:
                crf.set_unary(unary)
            case 1:
                crf.set_scores(np.ascontiguousarray(scores.T, np.float32).reshape(labels, *grid))
            case _:
                crf.set_probabilities(softmax(scores).T.astype(np.float32).reshape(labels, *grid))
        terms = [add_term(random, crf, grid) for _ in range(int(random.integers(1, 4)))]
        reference = MeanField(energies.astype(np.float64), terms, mask)
        iterations = int(random.integers(0, 4))
        found = crf.inference(iterations).reshape(labels, -1).T
        expected = reference.run(iterations)
        # float32 keeps 6e-8 of the largest energy, which "none" does not bound
        largest = float(np.abs(reference.messages(expected) - reference.unary).max())
        tolerance = max(1e-5, 1e-6 * largest)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=f"setting {seed}")
        divergence = reference.kl(expected)
        assert crf.kl_divergence() == pytest.approx(divergence, rel=1e-4, abs=1e-4 * crf.points)
