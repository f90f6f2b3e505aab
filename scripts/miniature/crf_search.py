"""Choosing the CRF's parameters on validation scenes, from coarse to fine.

The way of the DeepLab paper: fixed iterations, a grid over the bilateral term, then smaller and smaller steps around
the best. The steps here are factors, the same for every parameter, and the Gaussian term takes part in them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from ...runtime.crf import BilateralTerm, CrfParameters, GaussianTerm

ITERATIONS = 10
_WEIGHTS, _SXY, _SRGB = (4.0, 10.0), (25.0, 50.0, 100.0), (3.0, 6.0, 12.0)
_GAUSSIAN = (3.0, 3.0)  # sxy, weight: DeepLab's own, where the search starts
_FACTORS = (1.5, 1.2)
_COORDINATES = 5

Point = tuple[float, float, float, float, float]
"""Bilateral weight, sxy, srgb; Gaussian weight, sxy."""


def make_parameters(point: Point) -> CrfParameters:
    """A point of the search as parameters of the mode "deeplab", rounded to what is worth writing down."""
    weight, sxy, srgb, near_weight, near_sxy = (float(f"{value:.2g}") for value in point)
    return CrfParameters(
        mode="deeplab",
        iterations=ITERATIONS,
        gaussian=(GaussianTerm(sxy=near_sxy, weight=near_weight),),
        bilateral=(BilateralTerm(sxy=sxy, srgb=srgb, weight=weight),),
    )


def search_parameters(
    judge: Callable[[CrfParameters], float],
    grid: tuple[Sequence[float], Sequence[float], Sequence[float]] = (_WEIGHTS, _SXY, _SRGB),
    factors: Sequence[float] = _FACTORS,
) -> CrfParameters:
    """Find parameters that score high.

    Args:
        judge: the score of parameters, higher is better; asked once for each.
        grid: the coarse grid's values of bilateral weight, sxy and srgb.
        factors: the steps of the refinement, in order: each parameter in turn is multiplied or divided by the factor
            as long as that helps, until no parameter moves.

    Returns:
        The best parameters met.
    """
    known: dict[str, float] = {}

    def judge_point(point: Point) -> float:
        parameters = make_parameters(point)
        key = repr(parameters)
        if key not in known:
            known[key] = judge(parameters)
        return known[key]

    near_sxy, near_weight = _GAUSSIAN
    coarse: list[Point] = [(*point, near_weight, near_sxy) for point in itertools.product(*grid)]
    best = max(coarse, key=judge_point)
    for factor in factors:
        moved = True
        while moved:
            moved = False
            for coordinate in range(_COORDINATES):
                rivals = (_scale_point(best, coordinate, step) for step in (factor, 1 / factor))
                better = max(rivals, key=judge_point)
                if judge_point(better) > judge_point(best):
                    best, moved = better, True
    return make_parameters(best)


def _scale_point(point: Point, coordinate: int, factor: float) -> Point:
    weight, sxy, srgb, near_weight, near_sxy = (
        value * factor if index == coordinate else value for index, value in enumerate(point)
    )
    return weight, sxy, srgb, near_weight, near_sxy
