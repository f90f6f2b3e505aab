from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atrous.runtime.crf import BilateralTerm, CrfParameters, GaussianTerm, dense_crf
from atrous.runtime.crf.refiner import Refiner


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, full-size scores and coarse scores."""
    random = np.random.default_rng(3)
    image = random.integers(0, 255, (37, 52, 3), np.uint8)
    return image, random.normal(0, 3, (4, 37, 52)).astype(np.float32), random.normal(0, 2, (4, 5, 7)).astype(np.float32)


START = CrfParameters(iterations=4, bilateral=(BilateralTerm(20.0, 12.0, 3.0),))
MOVES = [
    START,
    replace(START, bilateral=(BilateralTerm(20.0, 12.0, 6.0),)),
    replace(START, iterations=0),
    replace(START, mode="pydensecrf"),
    replace(START, gaussian=(GaussianTerm(1.5, 2.0),)),
    replace(START, gaussian=(), bilateral=(BilateralTerm(33.0, 9.0, 1.0),)),
    START,
]


@pytest.mark.parametrize("kind", ["scores", "coarse", "padded", "probabilities"])
def test_every_move_is_a_call_of_its_own(problem: tuple[np.ndarray, np.ndarray, np.ndarray], kind: str) -> None:
    image, scores, coarse = problem
    shifted = np.exp(scores - scores.max(axis=0))
    unary = {
        "scores": {"scores": scores},
        "coarse": {"scores": coarse},
        "padded": {"scores": coarse, "padded": (41, 57)},
        "probabilities": {"probabilities": shifted / shifted.sum(axis=0)},
    }[kind]
    refine = Refiner(image, **unary, threads=2)
    for parameters in MOVES:
        options = {"parameters": parameters, "threads": 1, **unary}
        np.testing.assert_array_equal(refine(parameters), dense_crf(image, **options))
        fast = dense_crf(image, prune=0.01, settle=0.999, **options)
        np.testing.assert_array_equal(refine(parameters, fast=True), fast)


def test_half_the_resolution(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, scores, coarse = problem
    for unary in ({"scores": scores}, {"scores": coarse}, {"scores": coarse, "padded": (41, 57)}):
        small = Refiner(image, **unary, reduce=2)(START)
        assert small.shape == (4, 19, 26)
        np.testing.assert_allclose(small.sum(axis=0), 1, atol=1e-5)


def test_lattices_are_kept(problem: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.runtime.crf import refiner

    built = []
    build = refiner.build_grid_lattice
    monkeypatch.setattr(refiner, "build_grid_lattice", lambda *arguments: built.append(1) or build(*arguments))
    refine = Refiner(problem[0], scores=problem[1])
    for weight in (1.0, 2.0, 3.0):
        refine(replace(START, iterations=2, bilateral=(BilateralTerm(20.0, 12.0, weight),)))
    assert len(built) == 2
    assert refine.size_bytes > 0
    for sxy in range(10, 30):
        refine(replace(START, bilateral=(BilateralTerm(float(sxy), 12.0, 1.0),)))
    assert len(refine._lattices) == 4
