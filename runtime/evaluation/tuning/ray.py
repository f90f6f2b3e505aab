"""`score_on_ray`: the images of a search on the nodes of a Ray cluster.

Each image belongs to one actor, which runs the network on it once and keeps the result; the unit of work is then one
image with the points of one set of sigmas. After a restart, an actor runs the network again on the images it is asked
for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....bundle.crf_parameters import Mode
from ...crf import CrfParameters
from ...ray_pool import BundleActor, RayNodes, RayPool
from ...tiles.memory import MemoryGate
from ..bootstrap import Parts
from ..confusion import Counts
from ..datasets.dataset import Dataset, Pair
from .points import Point
from .scoring import ScoredImage, ScoreFile, score_image

_CALLS_PER_CORE = 2  # from the driver: one runs, one waits
_STORE = None  # the key of the file and the gate, beside the names of the images, in what an actor keeps


@contextmanager
def score_on_ray(
    bundle: str | Path,
    dataset: Dataset,
    *,
    nodes: RayNodes | None = None,
    advance: Callable[[int], None] = lambda steps: None,
    **load_options: Any,
) -> Iterator[tuple[list[RemoteImage], int]]:
    """Run the network once on every image, on a Ray cluster; images and number of workers for `search_crf`.

    Args:
        bundle: a bundle's folder, the same on all nodes, as the dataset's files are.
        dataset: the images and their truth.
        nodes: the cluster, and the resources of the actors.
        advance: called with 1 after each image.
        load_options: further arguments of `runtime.load`.

    Raises:
        InputError: also if the cluster lacks the resources.
        MemoryLimitError: if the CRF of an image, which runs on the whole of it, exceeds an actor's memory.
        MissingDependencyError: if Ray is not installed.
        BundleError, BackendError, DatasetError: from any actor.
    """
    common, pairs = replace(dataset, pairs=()), dataset.make_absolute().pairs
    with RayPool(nodes or RayNodes(), bundle, common, calls_at_once=True, load_options=load_options) as pool:

        def score(index: int) -> RemoteImage:
            size, counts = pool.ask(index, _describe, pairs[index])
            return RemoteImage(pool, index, pairs[index], size, counts)

        workers, images = pool.actors * pool.cores, []
        with ThreadPoolExecutor(pool.actors * _CALLS_PER_CORE) as threads:
            for image in threads.map(score, range(len(pairs))):
                images.append(image)
                advance(1)
        yield images, workers


@dataclass(frozen=True)
class RemoteImage:
    """An image of a search that an actor keeps."""

    pool: RayPool
    index: int
    pair: Pair
    size: tuple[int, int]
    counts: Counts

    @property
    def name(self) -> str:
        """Its name in the dataset."""
        return self.pair.name

    def count(self) -> Counts:
        """Confusion of the network's own labels, (classes, classes)."""
        return self.counts

    def refine(self, points: Sequence[Point], mode: Mode, iterations: int) -> list[Parts]:
        """Parts after the CRF, (2, classes), of points with the same sigmas."""
        found: list[Parts] = self.pool.ask(self.index, _refine, (self.pair, points, mode, iterations))
        return found

    def apply(self, parameters: CrfParameters) -> Parts:
        """Parts after a CRF with any parameters, (2, classes)."""
        found: Parts = self.pool.ask(self.index, _apply, (self.pair, parameters))
        return found


def _describe(actor: BundleActor, pair: Pair) -> tuple[tuple[int, int], Counts]:
    image = _find(actor, pair)
    return image.size, image.count()


def _refine(actor: BundleActor, item: tuple[Pair, Sequence[Point], Mode, int]) -> list[Parts]:
    pair, points, mode, iterations = item
    return _find(actor, pair).refine(points, mode, iterations)


def _apply(actor: BundleActor, item: tuple[Pair, CrfParameters]) -> Parts:
    return _find(actor, item[0]).apply(item[1])


def _find(actor: BundleActor, pair: Pair) -> ScoredImage:
    """The image, scored by the network if it is new to this process."""
    with actor.lock:
        if pair.name not in actor.kept:
            if _STORE not in actor.kept:
                actor.kept[_STORE] = ScoreFile(), MemoryGate(actor.segmenter.memory_bytes)
            actor.kept[pair.name] = score_image(actor.segmenter, actor.common, pair, *actor.kept[_STORE])
        image: ScoredImage = actor.kept[pair.name]
    return image
