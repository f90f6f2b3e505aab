"""Scores points of the search on images whose network output is known.

Kept between points: the network's probabilities (in a file), and for each image and set of sigmas a CRF with its
lattices, since weights only change the compatibilities. Images are scored in parallel, one thread each; in a race in
groups, and the points that are not yet discarded go over each group.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ....bundle.crf_parameters import Mode
from ....errors import MemoryLimitError
from ...crf import CrfParameters, DenseCRF, dense_crf
from ...crf.image import add_terms
from ...tiles.memory import MemoryGate, MemoryModel
from ...tiles.planner import write_size
from ..bootstrap import Parts, bootstrap_gain, mean_iou_of_parts, take_parts
from ..confusion import Counts, LabelMap, count_confusion
from .points import ITERATIONS, Point

if TYPE_CHECKING:
    from ...segmenter import Segmenter
    from ..datasets.dataset import Dataset, Pair

_GROUP = 4  # images between two decisions which points to discard
_RACE_DRAWS = 500
_NO_LIMIT = MemoryGate(1 << 62)


class TunedImage(Protocol):
    """An image of a search, scored by the network; its calls may run in several threads."""

    @property
    def name(self) -> str:
        """Its name in the dataset."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""

    def count(self) -> Counts:
        """Confusion of the network's own labels, (classes, classes)."""

    def refine(self, points: Sequence[Point], mode: Mode, iterations: int) -> list[Parts]:
        """Parts after the CRF, (2, classes), of points with the same sigmas."""

    def apply(self, parameters: CrfParameters) -> Parts:
        """Parts after a CRF with any parameters, (2, classes)."""


class ScoreFile:
    """Arrays in one temporary file without a name, which ends with this object; a map of each would hold it open."""

    def __init__(self) -> None:
        self._file = TemporaryFile(prefix="atrous-tune-")  # noqa: SIM115 (it ends with this object)
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def add(self, array: npt.NDArray[np.float32]) -> StoredArray:
        """Write an array."""
        with self._lock:
            offset = self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(array).data)
        return StoredArray(self, offset, array.shape)

    def read(self, offset: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Read an array."""
        found = np.empty(shape, np.float32)
        with self._lock:
            self._file.seek(offset)
            self._file.readinto(found.data.cast("B"))
        return found


@dataclass(frozen=True)
class StoredArray:
    """A float32 array in a file; NumPy reads it."""

    file: ScoreFile
    offset: int
    shape: tuple[int, ...]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[np.float32]:
        """The array."""
        return self.file.read(self.offset, self.shape)


@dataclass(frozen=True)
class ScoredImage:
    """An image, its truth, and the network's output for it."""

    name: str
    image: npt.NDArray[np.uint8]  # H x W x 3 RGB
    truth: LabelMap  # H x W, classes and void
    probabilities: npt.NDArray[np.float32] | StoredArray  # L x H x W, before the CRF
    gate: MemoryGate = _NO_LIMIT  # shared by images whose CRFs run at a time

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]

    def count(self) -> Counts:
        """Confusion of the network's own labels, (classes, classes)."""
        return self._count(np.asarray(self.probabilities))

    def refine(self, points: Sequence[Point], mode: Mode, iterations: int) -> list[Parts]:
        """Parts after the CRF, for points with the same sigmas, which share one lattice of each kind."""
        classes, height, width = self.probabilities.shape
        with self.gate.reserve(_estimate_crf(self.size, classes)):
            belief = np.asarray(self.probabilities)
            crf = DenseCRF((height, width), classes, threads=1)
            add_terms(crf, self.image, points[0].to_parameters(mode, iterations))
            counted = []
            for point in points:
                crf.set_probabilities(belief)
                crf.set_compatibilities([point.near_weight, point.weight])
                crf.prune_labels()  # labels proven unable to win at any pixel
                counted.append(take_parts(self._count(crf.inference(iterations, keep=False))))
        return counted

    def apply(self, parameters: CrfParameters) -> Parts:
        """Parts after a CRF with any parameters, (2, classes)."""
        with self.gate.reserve(_estimate_crf(self.size, self.probabilities.shape[0])):
            belief = np.asarray(self.probabilities)
            return take_parts(self._count(dense_crf(self.image, belief, parameters=parameters, threads=1)))

    def _count(self, belief: npt.NDArray[np.float32]) -> Counts:
        return count_confusion(self.truth, belief.argmax(0).astype(np.uint8), len(belief))


def score_images(
    segmenter: Segmenter, dataset: Dataset, advance: Callable[[int], None] = lambda steps: None
) -> list[ScoredImage]:
    """Run the network once on every image; its probabilities are in a temporary file.

    Raises:
        MemoryLimitError: if the CRF of an image, which runs on the whole of it, exceeds the segmenter's memory.
    """
    file, gate, scored = ScoreFile(), MemoryGate(segmenter.memory_bytes), []
    for pair in dataset.pairs:
        scored.append(score_image(segmenter, dataset, pair, file, gate))
        advance(1)
    return scored


def score_image(segmenter: Segmenter, dataset: Dataset, pair: Pair, file: ScoreFile, gate: MemoryGate) -> ScoredImage:
    """Run the network on an image; MemoryLimitError as of `score_images`."""
    example = dataset.load(pair)
    _check_memory(example.name, example.image, len(dataset.classes), segmenter.memory_bytes)
    kept = file.add(segmenter.to_probabilities(segmenter.scores(example.image)))
    return ScoredImage(example.name, example.image, example.truth, kept, gate)


def _estimate_crf(size: tuple[int, int], labels: int) -> int:
    """Bytes of the CRF of an image of (height, width)."""
    model = MemoryModel(labels, None, network_on_host=True, has_crf=True)
    return int(size[0] * size[1] * model.finish(crf=True))


def _check_memory(name: str, image: npt.NDArray[np.uint8], labels: int, limit_bytes: int) -> None:
    needed = _estimate_crf((image.shape[0], image.shape[1]), labels)
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

    images: Sequence[TunedImage]
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
        step = max(_GROUP, self.workers) if self.race else len(self.images)
        for first in range(0, len(self.images), step):
            some = self.images[first : first + step]
            for counts in pool.map(lambda image: image.refine(alive, self.mode, self.iterations), some):  # noqa: B023
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


def count_with(images: Sequence[TunedImage], parameters: CrfParameters, workers: int = 1) -> Parts:
    """Parts after a CRF with any parameters: (images, 2, classes)."""
    with ThreadPoolExecutor(workers) as pool:
        return np.stack(list(pool.map(lambda image: image.apply(parameters), images)))
