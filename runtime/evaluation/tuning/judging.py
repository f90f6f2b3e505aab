"""Scores points on images whose network output is known.

What is kept between points: the network's probabilities (on disk, mapped into memory), and, for each image and each set
of sigmas, the CRF with its lattices: other weights only change the compatibilities. Images go in parallel, one thread
each, in groups; the points still alive go over each group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ....bundle.crf_parameters import Mode
from ...crf import CrfParameters, DenseCRF
from ...crf.image import add_terms
from ..bootstrap import Parts, bootstrap_parts_gain, take_parts
from ..confusion import LabelMap, count_confusion
from .points import ITERATIONS, Point

if TYPE_CHECKING:
    from ...segmenter import Segmenter
    from ..datasets import Dataset

_GROUP = 4  # images between two looks at which points are still worth going on with
_RACE_DRAWS = 500


@dataclass(frozen=True)
class Scored:
    """An image, its truth, and the network's word on it.

    Attributes:
        name: of the image.
        image: H x W x 3 uint8 RGB.
        truth: H x W uint8, classes and void.
        probabilities: L x H x W float32, before the CRF.
    """

    name: str
    image: npt.NDArray[np.uint8]
    truth: LabelMap
    probabilities: npt.NDArray[np.float32]

    def count_network(self) -> Parts:
        """Hits and unions of the network's own labels, (2, classes)."""
        labels = self.probabilities.argmax(0).astype(np.uint8)
        return take_parts(count_confusion(self.truth, labels, len(self.probabilities)))


@contextmanager
def score_images(
    segmenter: Segmenter, dataset: Dataset, advance: Callable[[int], None] = lambda steps: None
) -> Iterator[list[Scored]]:
    """Run the network once on every image; its probabilities lie in a temporary folder while the block runs.

    Raises:
        InputError: if the network takes an image not, or gives labels only.
        DatasetError: if a label image is not what the data set says.
        ImageError: if an image cannot be read.
    """
    with TemporaryDirectory(prefix="atrous-tune-") as folder:
        scored = []
        for index, pair in enumerate(dataset.pairs):
            example = dataset.load(pair)
            size = (example.image.shape[0], example.image.shape[1])
            raw = segmenter.run_network(segmenter.prepare(example.image))
            belief = segmenter.to_probabilities(segmenter.complete_scores(raw, size))
            path = Path(folder) / f"{index}.npy"
            np.save(path, belief, allow_pickle=False)
            kept: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
            scored.append(Scored(example.name, example.image, example.truth, kept))
            advance(1)
        yield scored


@dataclass(frozen=True)
class GivenUp:
    """Where a point stood when a race gave it up.

    Attributes:
        images: how many were seen.
        behind: mean IoU it lay behind the best so far on these, a fraction of 1.
    """

    images: int
    behind: float


@dataclass
class Judge:
    """Scores points by their mean IoU on some images.

    Attributes:
        images: to judge on.
        mode: of the CRF.
        iterations: of the CRF.
        workers: images at a time.
        race: give a point up as soon as it is shown to be worse than the best so far: the upper end of the 95 %
            interval of its gain, over the images seen, lies below zero.
        advance: called with 1 after each point.
        parts: hits and unions of each image, (images, 2, classes), by point; those given up are missing.
        given_up: where those stood.
        runs: how many times a CRF ran on an image.
        builds: how many times its lattices were built.
    """

    images: Sequence[Scored]
    mode: Mode = "deeplab"
    iterations: int = ITERATIONS
    workers: int = 1
    race: bool = False
    advance: Callable[[int], None] = lambda steps: None
    parts: dict[Point, Parts] = field(default_factory=dict)
    given_up: dict[Point, GivenUp] = field(default_factory=dict)
    runs: int = 0
    builds: int = 0
    _best: tuple[float, Point] | None = None

    def __call__(self, points: Sequence[Point]) -> dict[Point, float]:
        """Mean IoU by point; minus infinity for those given up."""
        scores: dict[Point, float] = {}
        ordered = sorted(points, key=lambda point: point.sigmas)
        with ThreadPoolExecutor(self.workers) as pool:
            for _, group in groupby(ordered, key=lambda point: point.sigmas):
                scores.update(self._score_group(list(group), pool))
        return scores

    def _score_group(self, group: list[Point], pool: ThreadPoolExecutor) -> Mapping[Point, float]:
        found: dict[Point, list[Parts]] = {point: [] for point in group}
        alive = list(group)
        step = max(_GROUP, self.workers)
        for first in range(0, len(self.images), step):
            some = self.images[first : first + step]
            for counts in pool.map(lambda image: count_refined(image, alive, self.mode, self.iterations), some):  # noqa: B023
                for point, parts in zip(alive, counts, strict=True):
                    found[point].append(parts)
            self.runs += len(some) * len(alive)
            self.builds += len(some)
            if self.race and first + step < len(self.images):
                alive = [point for point in alive if not self._is_beaten(point, np.stack(found[point]))]
                if not alive:
                    break
        scores = dict.fromkeys(group, -np.inf)
        for point in alive:
            self.parts[point] = np.stack(found[point])
            scores[point] = mean_iou_of_parts(self.parts[point])
            if self._best is None or scores[point] > self._best[0]:
                self._best = (scores[point], point)
        self.advance(len(group))
        return scores

    def _is_beaten(self, point: Point, parts: Parts) -> bool:
        if self._best is None:
            return False
        best = self.parts[self._best[1]][: len(parts)]
        if bootstrap_parts_gain(best, parts, draws=_RACE_DRAWS)[1] >= 0:
            return False
        self.given_up[point] = GivenUp(len(parts), mean_iou_of_parts(best) - mean_iou_of_parts(parts))
        return True


def count_refined(image: Scored, points: Sequence[Point], mode: Mode, iterations: int) -> list[Parts]:
    """Hits and unions after the CRF, for points that share their sigmas: one lattice of each kind for all."""
    classes, height, width = image.probabilities.shape
    crf = DenseCRF((height, width), classes, threads=1)
    add_terms(crf, image.image, points[0].to_parameters(mode, iterations))
    counted = []
    for point in points:
        crf.set_probabilities(np.asarray(image.probabilities))
        crf.set_compatibilities([point.near_weight, point.weight])
        crf.prune_labels()  # those proven unable to win at any pixel
        labels = crf.inference(iterations, keep=False).argmax(0).astype(np.uint8)
        counted.append(take_parts(count_confusion(image.truth, labels, classes)))
    return counted


def count_with(images: Sequence[Scored], parameters: CrfParameters, workers: int = 1) -> Parts:
    """Hits and unions after a CRF of any parameters: (images, 2, classes)."""
    from ...crf import dense_crf

    def count(image: Scored) -> Parts:
        marginals = dense_crf(image.image, np.asarray(image.probabilities), parameters=parameters, threads=1)
        labels = marginals.argmax(0).astype(np.uint8)
        return take_parts(count_confusion(image.truth, labels, len(marginals)))

    with ThreadPoolExecutor(workers) as pool:
        return np.stack(list(pool.map(count, images)))


def mean_iou_of_parts(parts: Parts) -> float:
    """Mean IoU of pictures pooled: (pictures, 2, classes) hits and unions."""
    hits, unions = parts.sum(0)
    occurs = unions > 0
    return float((hits[occurs] / unions[occurs]).mean()) if occurs.any() else float("nan")
