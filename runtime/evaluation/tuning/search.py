"""The whole search: two parts of a data set, one to choose on and one to check on.

The images of the data set are dealt out: every third is held out. Points are scored on the others only; the winner, the
bundle's present parameters and the network alone are then scored on both. A winner that does worse than the present
parameters on the held-out images has been fitted to chance, and `is_better` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ....errors import InputError
from ...crf import CrfParameters
from ...crf.parameters import Mode
from ..bootstrap import Parts, bootstrap_parts, bootstrap_parts_gain
from .judging import GivenUp, Judge, Scored, count_with, mean_iou_of_parts
from .points import FACTOR_GRID, GRIDS, ITERATIONS, START, Grid, Memory, Point, find_best, search_factors, search_grid

Method = Literal["iclr2015", "pami2018", "factors"]
METHODS: tuple[Method, ...] = ("pami2018", "iclr2015", "factors")
HELD_OUT_EVERY = 3


@dataclass(frozen=True)
class Part:
    """The figures of one part of the images: hits and unions, (images, 2, classes).

    Attributes:
        names: of its images.
        network: of the network alone.
        present: with the bundle's present parameters; None if it has none.
        chosen: with the winner.
    """

    names: tuple[str, ...]
    network: Parts
    present: Parts | None
    chosen: Parts

    def describe(self) -> dict[str, Any]:
        """Mean IoU of each, intervals, and the winner's gain over the network and over the present parameters."""
        return {
            "images": len(self.names),
            "network": mean_iou_of_parts(self.network),
            "present": None if self.present is None else mean_iou_of_parts(self.present),
            "chosen": mean_iou_of_parts(self.chosen),
            "chosen_95": list(bootstrap_parts(self.chosen)),
            "gain_over_network_95": list(bootstrap_parts_gain(self.network, self.chosen)),
            "gain_over_present_95": (
                None if self.present is None else list(bootstrap_parts_gain(self.present, self.chosen))
            ),
        }


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        method: how it went.
        grid: its coarse grid.
        memory: all points met, with their scores on the images chosen on.
        given_up: where the points stood that a race gave up.
        best: the winner.
        parameters: the winner, as the runtime takes it.
        chosen_on, held_out: the figures of the two parts; no held-out part where there are too few images.
        runs, builds: how often a CRF ran, and how often its lattices were built.
    """

    method: Method
    grid: Grid
    memory: Memory
    given_up: Mapping[Point, GivenUp]
    best: Point
    parameters: CrfParameters
    chosen_on: Part
    held_out: Part | None
    runs: int
    builds: int

    @property
    def is_better(self) -> bool:
        """Whether the winner is at least as good as what there was, on images it was not chosen on if there are any."""
        part = self.held_out or self.chosen_on
        before = part.network if part.present is None else part.present
        return mean_iou_of_parts(part.chosen) >= mean_iou_of_parts(before)


def split_images(images: Sequence[Scored], every: int = HELD_OUT_EVERY) -> tuple[list[Scored], list[Scored]]:
    """Deal images out: (to choose on, held out); every `every`-th is held out, none if `every` is 0."""
    if every == 1:
        raise InputError("holding out every image leaves none to choose on")
    held = [image for index, image in enumerate(images) if every and index % every == every - 1]
    rest = [image for index, image in enumerate(images) if not every or index % every != every - 1]
    return rest, held


def plan_grid(method: Method) -> Grid:
    """The coarse grid of a method."""
    return FACTOR_GRID if method == "factors" else GRIDS[method]


def search_crf(
    images: Sequence[Scored],
    *,
    method: Method = "pami2018",
    grid: Grid | None = None,
    present: CrfParameters | None = None,
    mode: Mode = "deeplab",
    iterations: int = ITERATIONS,
    workers: int = 1,
    race: bool = False,
    held_out_every: int = HELD_OUT_EVERY,
    advance: Callable[[int], None] = lambda steps: None,
) -> Search:
    """Search the CRF's parameters.

    Args:
        images: all images, scored by the network.
        method: "pami2018" or "iclr2015" for DeepLab's grids, "factors" for all five parameters.
        grid: another coarse grid than the method's own.
        present: parameters to compare with. They take part in the search where its method could have met them, so that
            the winner is no worse on the images it is chosen on.
        mode: of the CRF.
        iterations: of the CRF.
        workers: images at a time.
        race: give points up early, see `Judge`.
        held_out_every: every how-manieth image is held out; 0 for none.
        advance: called with the number of points done.

    Raises:
        InputError: if there is no image to choose on, or the method is unknown.
        CrfInputError: if the CRF takes a point not.
    """
    if method not in METHODS:
        raise InputError(f'"{method}" is none of the searches {", ".join(METHODS)}')
    chosen_on, held = split_images(images, held_out_every)
    if not chosen_on:
        raise InputError("there is no image to choose the CRF's parameters on")
    judge = Judge(chosen_on, mode, iterations, workers, race, advance)
    coarse = grid or plan_grid(method)
    also = _find_start(present, method, mode, iterations)
    memory = search_factors(judge, coarse, also=also) if method == "factors" else search_grid(judge, coarse, also)
    best = find_best(memory)
    parameters = best.to_parameters(mode, iterations)

    def measure(some: Sequence[Scored], chosen: Parts | None = None) -> Part:
        return Part(
            tuple(image.name for image in some),
            np.stack([image.count_network() for image in some]),
            None if present is None else count_with(some, present, workers),
            count_with(some, parameters, workers) if chosen is None else chosen,
        )

    return Search(
        method=method,
        grid=coarse,
        memory=memory,
        given_up=judge.given_up,
        best=best,
        parameters=parameters,
        chosen_on=measure(chosen_on, judge.parts[best]),
        held_out=measure(held) if held else None,
        runs=judge.runs,
        builds=judge.builds,
    )


def _find_start(present: CrfParameters | None, method: Method, mode: Mode, iterations: int) -> list[Point]:
    """The present parameters as a point of the search, if they are one."""
    if present is None or (present.mode, present.iterations) != (mode, iterations):
        return []
    try:
        point = Point.from_parameters(present)
    except InputError:
        return []
    is_reachable = method == "factors" or (point.near_weight, point.near_sxy) == (START.near_weight, START.near_sxy)
    return [point] if is_reachable else []
