from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from atrous.runtime import InputError
from atrous.runtime.crf import BilateralTerm, CrfParameters, GaussianTerm
from atrous.runtime.evaluation.tuning.points import (
    GRIDS,
    START,
    Grid,
    Point,
    search_factors,
    search_grid,
)


class Hill:
    """A score with one summit; records the points it scored."""

    def __init__(self, aim: Point) -> None:
        self.aim, self.seen = aim, list[Point]()

    def __call__(self, points: Sequence[Point]) -> dict[Point, float]:
        self.seen += points
        return {point: self.score(point) for point in points}

    def score(self, point: Point) -> float:
        names = ("weight", "sxy", "srgb", "near_weight", "near_sxy")
        return -sum(abs(math.log(getattr(point, name) / getattr(self.aim, name))) for name in names)


def test_published_grids_have_the_published_ranges() -> None:
    v1, v2 = GRIDS["iclr2015"], GRIDS["pami2018"]
    assert len(v1.points(START)) == 2 * 6 * 8
    assert len(v2.points(START)) == 4 * 8 * 4
    assert (v1.steps(), v2.steps()) == ((5, 10, 1), (1, 10, 1))
    assert {(p.near_weight, p.near_sxy) for p in v1.points(START)} == {(3, 3)}


@pytest.mark.parametrize("name", ["iclr2015", "pami2018"])
def test_grid_search_reaches_the_summit_and_asks_nothing_twice(name: str) -> None:
    hill = Hill(Point(4, 67, 3))
    memory = search_grid(hill, GRIDS[name])
    best = memory.find_best()
    assert len(hill.seen) == len(set(hill.seen)) == len(memory.scores)
    assert (best.near_weight, best.near_sxy) == (3, 3)
    assert abs(best.weight - 4) <= GRIDS[name].steps()[0] / 4
    assert abs(best.sxy - 67) <= 2.5 / 2
    assert best.srgb == 3


def test_grid_search_leaves_the_grid_where_the_summit_is_outside() -> None:
    best = search_grid(Hill(Point(4, 121, 5)), GRIDS["pami2018"]).find_best()
    assert (best.weight, best.srgb) == (4, 5)
    assert abs(best.sxy - 121) <= 2.5


def test_grid_search_stays_positive_and_stops_without_halvings() -> None:
    grid = Grid((1, 2), (2, 4), (1, 2), halvings=0)
    assert len(search_grid(Hill(Point(1, 2, 1)), grid).scores) == 8
    far = search_grid(Hill(Point(0.01, 0.01, 0.01)), Grid((1, 2), (2, 4), (1, 2), halvings=2))
    assert min(point.weight for point in far.scores) > 0
    assert min(point.sxy for point in far.scores) >= 1
    assert min(point.srgb for point in far.scores) >= 0.5


def test_factor_search_finds_all_five_parameters_and_asks_nothing_twice() -> None:
    hill = Hill(Point(6, 40, 9, 2, 1.5))
    memory = search_factors(hill)
    assert len(hill.seen) == len(set(hill.seen))
    assert hill.score(memory.find_best()) > -5 * math.log(1.2)
    assert all(float(f"{point.sxy:.2g}") == point.sxy for point in memory.scores)  # worth writing down


def test_discarded_points_never_win() -> None:
    def score(points: Sequence[Point]) -> dict[Point, float]:
        return {point: -math.inf if point.weight > 3 else point.weight for point in points}

    assert search_grid(score, GRIDS["pami2018"]).find_best().weight <= 3


def test_parameters_there_and_back() -> None:
    point = Point(6.7, 38, 6, 3.6, 1.1)
    parameters = point.to_parameters()
    assert parameters == CrfParameters("deeplab", 10, (GaussianTerm(1.1, 3.6),), (BilateralTerm(38, 6, 6.7),))
    assert Point.from_parameters(parameters) == point


def test_parameters_that_are_no_point() -> None:
    with pytest.raises(InputError, match="one position term and one bilateral"):
        Point.from_parameters(CrfParameters(gaussian=()))
    with pytest.raises(InputError, match="differ by axis"):
        Point.from_parameters(CrfParameters(bilateral=(BilateralTerm(sxy=(3.0, 4.0)),)))
