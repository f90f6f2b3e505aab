"""Points of the search, and the two ways through them.

`search_grid` is DeepLab's (Chen et al. 2015 and 2018, section "Experimental evaluation"): the position term fixed at
weight 3 and sigma 3, ten iterations, a coarse grid over the bilateral term's weight w1, position sigma (sigma_alpha)
and color sigma (sigma_beta), then finer steps around the best. It may leave the grid: the released sigma_alpha of 121
is outside the ranges of both papers. `search_factors` is for images unlike photographs: the position term takes part,
and steps are factors.

Both get a function that scores many points at once, and never score a point twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ....bundle.crf_parameters import Mode
from ....errors import InputError
from ...crf import BilateralTerm, CrfParameters, GaussianTerm

ITERATIONS = 10


@dataclass(frozen=True, order=True)
class Point:
    """Parameters of a search: the bilateral term's, then the position term's."""

    weight: float
    sxy: float
    srgb: float
    near_weight: float = 3.0
    near_sxy: float = 3.0

    @property
    def sigmas(self) -> tuple[float, float, float]:
        """The parameters that the lattices depend on: (sxy, srgb, near_sxy)."""
        return self.sxy, self.srgb, self.near_sxy

    def to_parameters(self, mode: Mode = "deeplab", iterations: int = ITERATIONS) -> CrfParameters:
        """Convert to the runtime's parameters."""
        return CrfParameters(
            mode=mode,
            iterations=iterations,
            gaussian=(GaussianTerm(sxy=self.near_sxy, weight=self.near_weight),),
            bilateral=(BilateralTerm(sxy=self.sxy, srgb=self.srgb, weight=self.weight),),
        )

    @classmethod
    def from_parameters(cls, parameters: CrfParameters) -> Point:
        """Convert the runtime's parameters: one term of each kind, with one sigma for all axes and channels."""
        if len(parameters.gaussian) != 1 or len(parameters.bilateral) != 1:
            raise InputError("a search can only start from a CRF of one position term and one bilateral term")
        near, far = parameters.gaussian[0], parameters.bilateral[0]
        sigmas = [float(sigma) for sigma in (far.sxy, far.srgb, near.sxy) if not isinstance(sigma, tuple)]
        if len(sigmas) < 3:
            raise InputError("a search cannot start from sigmas that differ by axis or channel")
        sxy, srgb, near_sxy = sigmas
        return cls(far.weight, sxy, srgb, near.weight, near_sxy)


START = Point(0, 0, 0)
"""The position term of the coarse grids: DeepLab's weight 3 and sigma 3."""

Score = Callable[[Sequence[Point]], Mapping[Point, float]]
"""Points to their scores, higher is better; minus infinity for a discarded point."""


@dataclass(frozen=True)
class Grid:
    """A coarse grid over the bilateral term: ascending values."""

    weights: tuple[float, ...]
    sxys: tuple[float, ...]
    srgbs: tuple[float, ...]
    halvings: int = 2  # number of times the steps are halved around the best

    def points(self, like: Point) -> list[Point]:
        """All of its points, with the position term of `like`."""
        combined = itertools.product(self.weights, self.sxys, self.srgbs)
        return [replace(like, weight=weight, sxy=sxy, srgb=srgb) for weight, sxy, srgb in combined]

    def steps(self) -> tuple[float, float, float]:
        """The widest distance between neighbors: weight, sxy, srgb."""
        weight, sxy, srgb = (
            max((b - a for a, b in itertools.pairwise(values)), default=0.0)
            for values in (self.weights, self.sxys, self.srgbs)
        )
        return weight, sxy, srgb


GRIDS = {
    # Chen et al. 2015: w1 in {5, 10}, sigma_alpha in 50:10:100, sigma_beta in 3:1:10
    "iclr2015": Grid((5, 10), tuple(range(50, 101, 10)), tuple(range(3, 11))),
    # Chen et al. 2018: w1 in 3:6, sigma_alpha in 30:10:100, sigma_beta in 3:6
    "pami2018": Grid((3, 4, 5, 6), tuple(range(30, 101, 10)), (3, 4, 5, 6)),
    "factors": Grid((4, 10), (25, 50, 100), (3, 6, 12)),
}
"""The coarse grid of each search method."""

FACTORS = (1.5, 1.2)
_FIELDS = ("weight", "sxy", "srgb", "near_weight", "near_sxy")


class ScoreBook:
    """Scores each point once; `scores` has all points so far."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self.scores: dict[Point, float] = {}

    def find_best(self, points: Sequence[Point] | None = None) -> Point:
        """The best of these points, which are scored if they are new; None for all so far. Ties go to the first."""
        points = list(self.scores) if points is None else points
        new = [point for point in dict.fromkeys(points) if point not in self.scores]
        if new:
            self.scores.update(self._score(new))
        return max(points, key=lambda point: self.scores[point])


def search_grid(score: Score, grid: Grid, also: Sequence[Point] = ()) -> ScoreBook:
    """Search in DeepLab's way; `also` are further points of the coarse round, such as the present parameters."""
    book = ScoreBook(score)
    best = book.find_best([*also, *grid.points(START)])
    steps = grid.steps()
    for _ in range(grid.halvings):
        steps = (steps[0] / 2, steps[1] / 2, steps[2] / 2)
        while True:
            better = book.find_best(_surround(best, steps))
            if book.scores[better] <= book.scores[best]:
                break
            best = better
    return book


def search_factors(
    score: Score, grid: Grid = GRIDS["factors"], factors: Sequence[float] = FACTORS, also: Sequence[Point] = ()
) -> ScoreBook:
    """Search all five parameters: the coarse grid, then each in turn times or over a factor as long as that helps."""
    book = ScoreBook(score)
    best = book.find_best([*also, *(_round(point) for point in grid.points(START))])
    for factor in factors:
        moved = True
        while moved:
            moved = False
            for name in _FIELDS:
                value = getattr(best, name)
                better = book.find_best(
                    [_round(replace(best, **{name: value * step})) for step in (factor, 1 / factor)]
                )
                if book.scores[better] > book.scores[best]:
                    best, moved = better, True
    return book


def _surround(point: Point, steps: tuple[float, float, float]) -> list[Point]:
    """The point and its 26 neighbors at `steps`, those with positive sigmas and weight."""
    around = []
    for turns in itertools.product((0, -1, 1), repeat=3):
        weight, sxy, srgb = (
            round(value + turn * step, 6)
            for value, turn, step in zip((point.weight, point.sxy, point.srgb), turns, steps, strict=True)
        )
        if weight > 0 and sxy >= 1 and srgb >= 0.5:
            around.append(replace(point, weight=weight, sxy=sxy, srgb=srgb))
    return around


def _round(point: Point) -> Point:
    """Round to two significant digits."""
    return Point(*(float(f"{getattr(point, name):.2g}") for name in _FIELDS))
