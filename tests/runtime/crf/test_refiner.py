from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from atrous.errors import CrfInputError
from atrous.runtime.crf import BilateralTerm, CrfParameters, GaussianTerm, dense_crf
from atrous.runtime.crf.refiner import Refiner
from atrous.runtime.upsampling import softmax, upsample_scores


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


@pytest.mark.parametrize("reduce", [2, 3, 16])
@pytest.mark.parametrize("kind", ["scores", "coarse", "padded", "as large as the image", "probabilities"])
def test_blocks_have_the_mean_probability(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], kind: str, reduce: int
) -> None:
    image, scores, coarse = problem
    padded = (41, 57) if kind in ("padded", "as large as the image") else None
    given = coarse if kind in ("coarse", "padded") else scores
    whole = softmax(upsample_scores(given, padded or (37, 52), (37, 52)))
    unary = {"probabilities": whole} if kind == "probabilities" else {"scores": given, "padded": padded}
    refine = Refiner(image, **unary, reduce=reduce)
    rows, columns = range(0, 37, reduce), range(0, 52, reduce)
    edged = np.pad(whole, ((0, 0), (0, -37 % reduce), (0, -52 % reduce)), mode="edge")
    means = [[edged[:, y : y + reduce, x : x + reduce].mean(axis=(1, 2)) for x in columns] for y in rows]
    expected = np.moveaxis(np.array(means), -1, 0)  # (L, ceil(37 / reduce), ceil(52 / reduce))
    np.testing.assert_allclose(refine(replace(START, iterations=0)), expected, atol=1e-4)
    first = refine(START)
    assert np.abs(first - expected).max() > 0.01
    refine(START, fast=True)
    np.testing.assert_array_equal(refine(START), first)


@pytest.mark.parametrize("reduce", [0, 17, 1.5, "2", None])
def test_sides_of_blocks_are_checked(problem: tuple[np.ndarray, np.ndarray, np.ndarray], reduce: Any) -> None:
    with pytest.raises(CrfInputError, match="reduce must be an integer from 1 to 16"):
        Refiner(problem[0], scores=problem[1], reduce=reduce)


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
