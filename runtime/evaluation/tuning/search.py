"""The whole search: parameters are chosen on one part of a dataset, checked on the other, and written to the bundle.

Every third image is held out. Points are scored on the others only; the winner, the bundle's present parameters and the
network alone are then scored on both parts. A winner that is worse than the present parameters on the held-out images
was fitted to chance, and `is_better` is False.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....bundle.crf_parameters import Mode
from ....errors import InputError
from ...crf import CrfParameters
from ..bootstrap import Parts, bootstrap_gain, bootstrap_mean_iou, mean_iou_of_parts, take_parts
from . import METHODS
from .points import GRIDS, ITERATIONS, START, Grid, Point, search_factors, search_grid
from .scoring import Discarded, PointScorer, TunedImage, count_with

HELD_OUT_EVERY = 3


@dataclass(frozen=True)
class Part:
    """The figures on one part of the images, as (images, 2, classes) parts."""

    names: tuple[str, ...]
    network: Parts
    present: Parts | None  # with the bundle's present parameters, if it has any
    chosen: Parts  # with the winner

    def describe(self) -> dict[str, Any]:
        """Mean IoU of each, intervals, and the gain of the winner over the network and the present parameters."""
        present = self.present
        return {
            "images": len(self.names),
            "network": mean_iou_of_parts(self.network),
            "present": None if present is None else mean_iou_of_parts(present),
            "chosen": mean_iou_of_parts(self.chosen),
            "chosen_95": list(bootstrap_mean_iou(self.chosen)),
            "gain_over_network_95": list(bootstrap_gain(self.network, self.chosen)),
            "gain_over_present_95": None if present is None else list(bootstrap_gain(present, self.chosen)),
        }


@dataclass(frozen=True)
class Search:
    """The result of a search."""

    method: str
    grid: Grid
    scores: Mapping[Point, float]  # of all points, on the images chosen on
    discarded: Mapping[Point, Discarded]
    best: Point
    parameters: CrfParameters  # the best point as the runtime's parameters
    chosen_on: Part
    held_out: Part | None  # None if there are too few images
    runs: int  # of the CRF on an image
    builds: int  # of its lattices

    @property
    def is_better(self) -> bool:
        """Whether the winner is no worse than the present parameters, on the held-out images if there are any."""
        part = self.held_out or self.chosen_on
        before = part.network if part.present is None else part.present
        return mean_iou_of_parts(part.chosen) >= mean_iou_of_parts(before)


def split_images(
    images: Sequence[TunedImage], every: int = HELD_OUT_EVERY
) -> tuple[list[TunedImage], list[TunedImage]]:
    """Split into images to choose on and held-out ones: every `every`-th is held out, none if `every` is 0."""
    if every == 1:
        raise InputError("holding out every image leaves none to choose on")
    held = [image for index, image in enumerate(images) if every and index % every == every - 1]
    rest = [image for index, image in enumerate(images) if not every or index % every != every - 1]
    return rest, held


def search_crf(
    images: Sequence[TunedImage],
    *,
    method: str = METHODS[0],
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
        method: one of `METHODS`.
        grid: the coarse grid; None for the method's own.
        present: parameters to compare with. They take part in the search if its method could have reached them, so
            that the winner is no worse on the images it is chosen on.
        mode: of the CRF.
        iterations: of the CRF.
        workers: number of images in parallel.
        race: whether to discard points early, see `PointScorer`.
        held_out_every: every how many images one is held out; 0 for none.
        advance: called with a number of scored points.

    Raises:
        InputError: if there is no image to choose on, or the method is unknown.
        CrfInputError: if the CRF rejects a point.
    """
    if method not in METHODS:
        raise InputError(f'unknown search "{method}": use one of {", ".join(METHODS)}')
    chosen_on, held = split_images(images, held_out_every)
    if not chosen_on:
        raise InputError("there is no image to choose the CRF's parameters on")
    scorer = PointScorer(chosen_on, mode, iterations, workers, race, advance)
    coarse = grid or GRIDS[method]
    also = _find_start(present, method, mode, iterations)
    book = search_factors(scorer, coarse, also=also) if method == "factors" else search_grid(scorer, coarse, also)
    best = book.find_best()
    parameters = best.to_parameters(mode, iterations)

    def measure(some: Sequence[TunedImage], chosen: Parts | None = None) -> Part:
        return Part(
            tuple(image.name for image in some),
            np.stack([take_parts(image.count()) for image in some]),
            None if present is None else count_with(some, present, workers),
            count_with(some, parameters, workers) if chosen is None else chosen,
        )

    return Search(
        method=method,
        grid=coarse,
        scores=book.scores,
        discarded=scorer.discarded,
        best=best,
        parameters=parameters,
        chosen_on=measure(chosen_on, scorer.parts[best]),
        held_out=measure(held) if held else None,
        runs=scorer.runs,
        builds=scorer.builds,
    )


def _find_start(present: CrfParameters | None, method: str, mode: Mode, iterations: int) -> list[Point]:
    """The present parameters as a point of the search, if they are one."""
    if present is None or (present.mode, present.iterations) != (mode, iterations):
        return []
    try:
        point = Point.from_parameters(present)
    except InputError:
        return []
    is_reachable = method == "factors" or (point.near_weight, point.near_sxy) == (START.near_weight, START.near_sxy)
    return [point] if is_reachable else []
