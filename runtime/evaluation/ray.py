"""`evaluate_on_ray`: `evaluate` on the nodes of a Ray cluster, each on parts of the dataset; the result is equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...bundle.folder import read_bundle
from ...errors import InputError
from ..ray_pool import BundleActor, RayNodes, RayPool, pack
from .boundaries import WIDTHS, Reference
from .datasets.dataset import Dataset, Pair
from .evaluator import (
    GALLERY,
    Evaluation,
    RankedImage,
    Settings,
    Sums,
    check_classes,
    choose_reference,
    choose_variants,
    conclude,
    keep_worst,
    sum_images,
)


@dataclass(frozen=True)
class _Task:
    dataset: Dataset  # without its pairs
    crf: bool | None
    settings: Settings


def evaluate_on_ray(
    bundle: str | Path,
    dataset: Dataset,
    *,
    nodes: RayNodes | None = None,
    crf: bool | None = None,
    widths: Sequence[int] = WIDTHS,
    reference: Reference | None = None,
    gallery: int = GALLERY,
    advance: Callable[[int], None] = lambda steps: None,
    **load_options: Any,
) -> Evaluation:
    """Evaluate a bundle on a Ray cluster; a part whose actor dies is evaluated again.

    Args:
        bundle: a bundle's folder, the same on all nodes, as the dataset's files are.
        dataset: as in `evaluate`.
        nodes: the cluster, and the resources of the actors.
        crf: whether to evaluate after the CRF only (True), without it (False), or both (None, if the bundle has one).
        widths: as in `evaluate`.
        reference: as in `evaluate`.
        gallery: as in `evaluate`.
        advance: called with the number of images of each part that is done.
        load_options: further arguments of `runtime.load`.

    Raises:
        InputError: also if the cluster lacks the resources.
        MissingDependencyError: if Ray is not installed.
        BundleError, BackendError, DatasetError: as `evaluate`, from any actor.
    """
    read = read_bundle(bundle)
    warnings = check_classes(read.manifest.classes, dataset)
    if not dataset.pairs:
        raise InputError("there are no images")
    pairs = dataset.make_absolute().pairs
    settings = Settings(widths, choose_reference(reference, dataset), gallery)
    options = {"crf": "auto" if crf is None else crf, **load_options}
    task = _Task(replace(dataset, pairs=()), crf, settings)
    with RayPool(nodes or RayNodes(), bundle, task, load_options=options) as pool:
        count = pool.count_parts(len(dataset))
        bounds = [len(dataset) * index // count for index in range(count + 1)]
        contents = [pack((bounds[index], pairs[bounds[index] : bounds[index + 1]])) for index in range(count)]
        parts: dict[int, Sums] = {}
        worst: list[RankedImage] = []
        for index, part in pool.map(_sum_part, contents):
            worst, part.worst = keep_worst([*worst, *part.worst], gallery), []
            parts[index] = part
            advance(bounds[index + 1] - bounds[index])
    parts[0].worst = worst
    for index in range(1, count):
        parts[0].add(parts[index])
    return conclude(read, dataset, settings, parts[0], warnings, None)


def _sum_part(actor: BundleActor, item: tuple[int, tuple[Pair, ...]]) -> Sums:
    (first, pairs), task = item, actor.common
    dataset = replace(task.dataset, pairs=pairs)
    variants = choose_variants(task.crf, actor.segmenter)
    return sum_images(actor.segmenter, dataset, first, variants, task.settings, actor.cores)[0]
