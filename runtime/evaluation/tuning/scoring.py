"""Scores points of the search on images whose network output is known.

Kept between points: the network's probabilities (in files that are mapped into memory), and for each image and set of
sigmas a CRF with its lattices, since weights only change the compatibilities. Images are scored in parallel, one thread
each, in groups; the points that are not yet discarded go over each group.
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
from ....errors import MemoryLimitError
from ...crf import CrfParameters, DenseCRF, dense_crf
from ...crf.image import add_terms
from ...tiles.memory import MemoryModel
from ...tiles.planner import write_size
from ..bootstrap import Parts, bootstrap_gain, mean_iou_of_parts, take_parts
from ..confusion import Counts, LabelMap, count_confusion
from .points import ITERATIONS, Point

if TYPE_CHECKING:
    from ...segmenter import Segmenter
    from ..datasets.dataset import Dataset

_GROUP = 4  # images between two decisions which points to discard
_RACE_DRAWS = 500


@dataclass(frozen=True)
class ScoredImage:
    """An image, its truth, and the network's output for it."""

    name: str
    image: npt.NDArray[np.uint8]  # H x W x 3 RGB
    truth: LabelMap  # H x W, classes and void
    probabilities: npt.NDArray[np.float32]  # L x H x W, before the CRF

    def count(self, belief: npt.NDArray[np.float32] | None = None) -> Counts:
        """Confusion of the labels of L x H x W `belief`; None for the network's own."""
        belief = self.probabilities if belief is None else belief
        return count_confusion(self.truth, belief.argmax(0).astype(np.uint8), len(belief))


@contextmanager
def score_images(
    segmenter: Segmenter, dataset: Dataset, advance: Callable[[int], None] = lambda steps: None
) -> Iterator[list[ScoredImage]]:
    """Run the network once on every image; its probabilities are in a temporary folder while the block runs.

    Raises:
        MemoryLimitError: if the CRF of an image, which runs on the whole of it, exceeds the segmenter's memory.
    """
    with TemporaryDirectory(prefix="atrous-tune-") as folder:
        scored = []
        for index, pair in enumerate(dataset.pairs):
            example = dataset.load(pair)
            _check_memory(example.name, example.image, len(dataset.classes), segmenter.memory_bytes)
            path = Path(folder) / f"{index}.npy"
            np.save(path, segmenter.to_probabilities(segmenter.scores(example.image)), allow_pickle=False)
            kept: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
            scored.append(ScoredImage(example.name, example.image, example.truth, kept))
            advance(1)
        yield scored


def choose_workers(images: Sequence[ScoredImage], limit_bytes: int, most: int) -> int:
    """The number of images, at most `most`, to refine in parallel within a limit of memory."""
    largest = max(_estimate_crf(image.image, len(image.probabilities)) for image in images)
    return max(1, min(most, limit_bytes // largest))


def _estimate_crf(image: npt.NDArray[np.uint8], labels: int) -> int:
    """Bytes of the CRF of an H x W x 3 image."""
    model = MemoryModel(labels, None, network_on_host=True, has_crf=True)
    return int(image.shape[0] * image.shape[1] * model.finish(crf=True))


def _check_memory(name: str, image: npt.NDArray[np.uint8], labels: int, limit_bytes: int) -> None:
    needed = _estimate_crf(image, labels)
    if needed > limit_bytes:
        raise MemoryLimitError(
            f"{name}: the CRF of {image.shape[1]}x{image.shape[0]} pixels needs about {write_size(needed)}, and it can "
            f"have {write_size(limit_bytes)}: raise --memory, or shrink the images and their labels"
        )


@dataclass(frozen=True)
class Discarded:
    """The state of a point when a race discarded it."""

    images: int  # scored by then
    behind: float  # mean IoU behind the best point on these images, a fraction of 1


@dataclass
class PointScorer:
    """Scores points by their mean IoU on some images.

    With `race`, a point is discarded as soon as it is significantly worse than the best so far: the upper end of the
    95 % interval of its gain, on the images scored so far, is below zero.
    """

    images: Sequence[ScoredImage]
    mode: Mode = "deeplab"
    iterations: int = ITERATIONS
    workers: int = 1  # images in parallel
    race: bool = False
    advance: Callable[[int], None] = lambda steps: None  # called with the number of points after each group of them
    parts: dict[Point, Parts] = field(default_factory=dict)  # (images, 2, classes) of points that were not discarded
    discarded: dict[Point, Discarded] = field(default_factory=dict)
    runs: int = 0  # of the CRF on an image
    builds: int = 0  # of its lattices
    _best: tuple[float, Point] | None = None

    def __call__(self, points: Sequence[Point]) -> dict[Point, float]:
        """Mean IoU by point; minus infinity for discarded ones."""
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
                alive = [point for point in alive if not self._discard(point, np.stack(found[point]))]
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

    def _discard(self, point: Point, parts: Parts) -> bool:
        """Discard a point if it is significantly worse than the best so far."""
        if self._best is None:
            return False
        best = self.parts[self._best[1]][: len(parts)]
        if bootstrap_gain(best, parts, draws=_RACE_DRAWS)[1] >= 0:
            return False
        self.discarded[point] = Discarded(len(parts), mean_iou_of_parts(best) - mean_iou_of_parts(parts))
        return True


def count_refined(image: ScoredImage, points: Sequence[Point], mode: Mode, iterations: int) -> list[Parts]:
    """Parts after the CRF, for points with the same sigmas, which share one lattice of each kind."""
    classes, height, width = image.probabilities.shape
    crf = DenseCRF((height, width), classes, threads=1)
    add_terms(crf, image.image, points[0].to_parameters(mode, iterations))
    counted = []
    for point in points:
        crf.set_probabilities(np.asarray(image.probabilities))
        crf.set_compatibilities([point.near_weight, point.weight])
        crf.prune_labels()  # labels proven unable to win at any pixel
        counted.append(take_parts(image.count(crf.inference(iterations, keep=False))))
    return counted


def count_with(images: Sequence[ScoredImage], parameters: CrfParameters, workers: int = 1) -> Parts:
    """Parts after a CRF with any parameters: (images, 2, classes)."""

    def count(image: ScoredImage) -> Parts:
        belief = np.asarray(image.probabilities)
        return take_parts(image.count(dense_crf(image.image, belief, parameters=parameters, threads=1)))

    with ThreadPoolExecutor(workers) as pool:
        return np.stack(list(pool.map(count, images)))
