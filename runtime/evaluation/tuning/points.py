"""Points of the search, and the two ways through them.

`search_grid` is DeepLab's (Chen et al. 2015 and 2018, section "Experimental evaluation"): the position term fixed at
weight 3 and sigma 3, ten iterations, a coarse grid over the bilateral term's weight w1, position sigma (sigma_alpha)
and colour sigma (sigma_beta), then finer steps around the best. It may leave the grid: the released sigma_alpha of 121
lies outside both papers' ranges. `search_factors` is for images unlike photographs: the position term takes part, and
steps are factors.

Both are given a function that scores many points at once, and never ask for a point twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ....errors import InputError
from ...crf import BilateralTerm, CrfParameters, GaussianTerm
from ...crf.parameters import Mode

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
        """What the lattices depend on: (sxy, srgb, near_sxy)."""
        return self.sxy, self.srgb, self.near_sxy

    def to_parameters(self, mode: Mode = "deeplab", iterations: int = ITERATIONS) -> CrfParameters:
        """As the runtime takes them."""
        return CrfParameters(
            mode=mode,
            iterations=iterations,
            gaussian=(GaussianTerm(sxy=self.near_sxy, weight=self.near_weight),),
            bilateral=(BilateralTerm(sxy=self.sxy, srgb=self.srgb, weight=self.weight),),
        )

    @classmethod
    def from_parameters(cls, parameters: CrfParameters) -> Point:
        """The inverse.

        Raises:
            InputError: if there is not one term of each kind, or a sigma differs by axis or channel.
        """
        if len(parameters.gaussian) != 1 or len(parameters.bilateral) != 1:
            raise InputError("only a CRF of one position term and one bilateral term can be searched from")
        near, far = parameters.gaussian[0], parameters.bilateral[0]
        sigmas = (far.sxy, far.srgb, near.sxy)
        if any(isinstance(sigma, tuple) for sigma in sigmas):
            raise InputError("sigmas that differ by axis or channel cannot be searched from")
        sxy, srgb, near_sxy = (float(sigma) for sigma in sigmas if not isinstance(sigma, tuple))
        return cls(far.weight, sxy, srgb, near.weight, near_sxy)


START = Point(0, 0, 0)
"""Whose position term the coarse grids have: DeepLab's weight 3 and sigma 3."""

Score = Callable[[Sequence[Point]], Mapping[Point, float]]
"""Points to their scores, higher is better; minus infinity for one that was given up."""


@dataclass(frozen=True)
class Grid:
    """A coarse grid over the bilateral term.

    Attributes:
        weights, sxys, srgbs: rising values.
        halvings: how often the steps are halved around the best.
    """

    weights: tuple[float, ...]
    sxys: tuple[float, ...]
    srgbs: tuple[float, ...]
    halvings: int = 2

    def points(self, like: Point) -> list[Point]:
        """All of its points, position term as in `like`."""
        combined = itertools.product(self.weights, self.sxys, self.srgbs)
        return [replace(like, weight=weight, sxy=sxy, srgb=srgb) for weight, sxy, srgb in combined]

    def steps(self) -> tuple[float, float, float]:
        """The distance between neighbours: weight, sxy, srgb; of the widest gap where they differ."""

        def widest(values: Sequence[float]) -> float:
            return max((b - a for a, b in itertools.pairwise(values)), default=0.0)

        return widest(self.weights), widest(self.sxys), widest(self.srgbs)


GRIDS = {
    # Chen et al. 2015: w1 in {5, 10}, sigma_alpha in 50:10:100, sigma_beta in 3:1:10
    "iclr2015": Grid((5, 10), tuple(range(50, 101, 10)), tuple(range(3, 11))),
    # Chen et al. 2018: w1 in 3:6, sigma_alpha in 30:10:100, sigma_beta in 3:6
    "pami2018": Grid((3, 4, 5, 6), tuple(range(30, 101, 10)), (3, 4, 5, 6)),
}
FACTOR_GRID = Grid((4, 10), (25, 50, 100), (3, 6, 12))
FACTORS = (1.5, 1.2)
_FIELDS = ("weight", "sxy", "srgb", "near_weight", "near_sxy")


class Memory:
    """Scores points once each.

    Attributes:
        scores: all points met and their scores.
    """

    def __init__(self, score: Score) -> None:
        self._score = score
        self.scores: dict[Point, float] = {}

    def best_of(self, points: Sequence[Point]) -> Point:
        """The best of these points; of equals the first."""
        new = [point for point in dict.fromkeys(points) if point not in self.scores]
        if new:
            self.scores.update(self._score(new))
        return max(points, key=lambda point: self.scores[point])


def search_grid(score: Score, grid: Grid, also: Sequence[Point] = ()) -> Memory:
    """DeepLab's way; the last halving's best is the best of all points met.

    Args:
        score: as above.
        grid: the coarse grid, and how often its steps are halved.
        also: further points of the coarse round, such as the present parameters.

    Returns:
        All points met.
    """
    memory = Memory(score)
    best = memory.best_of([*also, *grid.points(START)])
    steps = grid.steps()
    for _ in range(grid.halvings):
        steps = (steps[0] / 2, steps[1] / 2, steps[2] / 2)
        while True:
            better = memory.best_of(list(_surround(best, steps)))
            if memory.scores[better] <= memory.scores[best]:
                break
            best = better
    return memory


def search_factors(
    score: Score, grid: Grid = FACTOR_GRID, factors: Sequence[float] = FACTORS, also: Sequence[Point] = ()
) -> Memory:
    """All five parameters: the coarse grid, then each in turn multiplied or divided as long as that helps.

    Args:
        score: as above.
        grid: the coarse grid over the bilateral term.
        factors: the steps, in order.
        also: further points of the coarse round, such as the present parameters.

    Returns:
        All points met.
    """
    memory = Memory(score)
    best = memory.best_of([*also, *(_round(point) for point in grid.points(START))])
    for factor in factors:
        moved = True
        while moved:
            moved = False
            for name in _FIELDS:
                value = getattr(best, name)
                rivals = [_round(replace(best, **{name: value * step})) for step in (factor, 1 / factor)]
                better = memory.best_of(rivals)
                if memory.scores[better] > memory.scores[best]:
                    best, moved = better, True
    return memory


def find_best(memory: Memory) -> Point:
    """The best of all points met; of equals the first met."""
    return max(memory.scores, key=lambda point: memory.scores[point])


def _surround(point: Point, steps: tuple[float, float, float]) -> list[Point]:
    """The point and its 26 neighbours at `steps`, those with positive sigmas and weight."""
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
    """To two digits, what is worth writing down."""
    return Point(*(float(f"{getattr(point, name):.2g}") for name in _FIELDS))
