"""Evaluates a bundle on a dataset: each image passes the network once and is scored before and after the CRF.

Stages: decode (image and truth), network, crf (scores, labels, CRF), judge (confusion, bands). An invalid label image
ends the run, since such mistakes rarely concern one file alone, and so does a failing network or CRF. An image that
cannot be read, or that the network rejects, is a failure of its own, and the scores are of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import AtrousError, BackendError, BundleError, DatasetError, InputError
from ..pipeline import Pipeline, Stage
from ..pipeline.engine import count_cores
from ..tiles.memory import MemoryGate, Reservation
from .bootstrap import Parts, bootstrap_gain, bootstrap_mean_iou, mean_iou_of_parts, take_parts
from .boundaries import WIDTHS, Reference, count_bands, measure_distance
from .class_order import find_class_order, suggest_map
from .confusion import ConfusionMatrix, Counts, LabelMap, divide, mean_iou
from .datasets.class_maps import simplify_name
from .datasets.names import FOLDER

if TYPE_CHECKING:
    from ..pipeline import PipelineReport
    from ..segmenter import Segmenter
    from .datasets.dataset import Dataset, Example, Pair

NETWORK, CRF = "network", "crf"
VARIANT_TITLES = {NETWORK: "network alone", CRF: "with the dense CRF"}
GALLERY = 6


@dataclass(frozen=True)
class ImageScore:
    """The scores of one image, by variant; None if all of its pixels are void."""

    name: str
    height: int
    width: int
    judged: int  # number of pixels that are not void
    mean_iou: Mapping[str, float | None]  # over the classes that occur in this image
    pixel_accuracy: Mapping[str, float | None]


@dataclass(frozen=True)
class WorstImage:
    """One of the images with the lowest mean IoU; arrays are H x W (x 3) uint8, labels by variant."""

    score: ImageScore
    image: npt.NDArray[np.uint8]
    truth: LabelMap
    labels: Mapping[str, LabelMap]


@dataclass
class Tally:
    """The sums of one variant over all images."""

    matrix: ConfusionMatrix
    bands: Counts  # (widths, classes, classes)
    parts: list[Parts] = field(default_factory=list)  # (2, classes) of each image, for intervals

    def interval(self) -> tuple[float, float]:
        """The central 95 % of the mean IoU over images drawn with replacement."""
        return bootstrap_mean_iou(self.parts)

    def band_ious(self) -> list[float]:
        """Mean IoU in each band; nan without pixels."""
        return [mean_iou(counts) for counts in self.bands]


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    bundle: str  # its name
    dataset: Dataset  # the part that was evaluated
    classes: tuple[str, ...]  # names by label, from the bundle
    variants: Mapping[str, Tally]  # of "network", "crf" or both, in this order
    widths: tuple[int, ...]  # of the bands
    reference: Reference  # of the bands
    images: tuple[ImageScore, ...]  # of those that did not fail, in the order of the dataset
    failures: tuple[tuple[str, str], ...]  # (image, error) of the others
    worst: tuple[WorstImage, ...]  # by the last variant, worst first
    warnings: tuple[str, ...]  # reasons to doubt the figures
    pipeline: PipelineReport
    size: Mapping[str, object]  # the rule of the network's size, and the size the net was made for
    ignored: Mapping[str, int] = field(default_factory=dict)  # pixels by class of the labels without a counterpart
    suggested_map: Mapping[str, str] | None = None  # for --map, where the classes seem to be in another order

    def gain_interval(self) -> tuple[float, float] | None:
        """The central 95 % of the CRF's gain in mean IoU; None unless both variants were evaluated."""
        if set(self.variants) != {NETWORK, CRF}:
            return None
        return bootstrap_gain(self.variants[NETWORK].parts, self.variants[CRF].parts)


@dataclass
class _Work:
    pair: Pair
    example: Example
    raw: Any = None
    labels: dict[str, LabelMap] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    memory: Reservation | None = None  # ends with this object, wherever the image leaves the pipeline


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    variants: Sequence[str] = (NETWORK, CRF),
    widths: Sequence[int] = WIDTHS,
    reference: Reference | None = None,
    gallery: int = GALLERY,
    cores: int | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> Evaluation:
    """Evaluate a bundle.

    Args:
        segmenter: loaded with the CRF if "crf" is among the variants.
        dataset: the images and their truth.
        variants: "network", "crf" or both.
        widths: of the boundary bands, ascending, in pixels.
        reference: of the bands; None for void if the dataset draws it around objects, else label borders.
        gallery: number of worst images to keep.
        cores: for network and CRF together; None for all that this process may use.
        advance: called with 1 after each image.

    Raises:
        InputError: if the classes do not fit, a variant is unavailable, or all images failed.
        DatasetError: for the first invalid label image.
        BundleError: if the network does not match the manifest.
        BackendError: if the network or the CRF cannot run.
    """
    classes = segmenter.bundle.manifest.classes
    warnings = check_classes(classes, dataset)
    if not variants or not set(variants) <= {NETWORK, CRF}:
        raise InputError(f'variants are "{NETWORK}" and "{CRF}", not {list(variants)}')
    if CRF in variants and segmenter.crf is None:
        raise InputError("the bundle was loaded without a CRF, so its result cannot be evaluated")
    band_reference: Reference = reference or ("void" if dataset.has_void_borders else "labels")
    empty = np.zeros((len(widths), len(classes), len(classes)), np.int64)
    tallies = {name: Tally(ConfusionMatrix(len(classes)), empty.copy()) for name in (NETWORK, CRF) if name in variants}
    last = list(tallies)[-1]
    images: list[ImageScore] = []
    failures: list[tuple[str, str]] = []
    ignored: Counter[str] = Counter()
    worst: list[tuple[float, int, WorstImage]] = []
    cores = cores or count_cores()
    stages = _make_stages(segmenter, dataset, tuple(tallies), widths, band_reference, cores)
    with Pipeline(stages, cores=cores, fatal=(DatasetError, BackendError, BundleError)) as pipeline:
        for result in pipeline.run(dataset.pairs):
            advance(1)
            if result.error is not None:
                if not isinstance(result.error, AtrousError):
                    raise result.error
                failures.append((result.item.name, str(result.error)))
                continue
            work: _Work = result.value
            score = _add_up(work, tallies)
            ignored.update(work.example.ignored)
            images.append(score)
            if (quality := score.mean_iou[last]) is not None:
                bad = WorstImage(score, work.example.image, work.example.truth, work.labels)
                worst = sorted([*worst, (quality, result.index, bad)], key=lambda entry: entry[:2])[:gallery]
        report = pipeline.report()
    if not images:
        raise InputError(f"all {len(dataset)} images failed; the first: {failures[0][1]}")
    counts = next(iter(tallies.values())).matrix.counts
    if not counts.any():
        warnings.append("every pixel of the label images is void: there is nothing to evaluate")
    first = find_first_number(dataset)
    warnings += find_class_order(counts, classes, first)
    warnings += segmenter.sizing.find_warnings([(image.height, image.width) for image in images])
    return Evaluation(
        bundle=segmenter.bundle.manifest.name,
        dataset=dataset,
        classes=classes,
        variants=tallies,
        widths=tuple(widths),
        reference=band_reference,
        images=tuple(images),
        failures=tuple(failures),
        worst=tuple(bad for _, _, bad in worst),
        warnings=tuple(warnings),
        pipeline=report,
        size=segmenter.sizing.to_json(),
        ignored=dict(ignored.most_common()),
        suggested_map=None if first is None else suggest_map(counts, classes, first),
    )


def check_classes(classes: Sequence[str], dataset: Dataset) -> list[str]:
    """Warn where class names differ from the dataset's; InputError if number or order differs."""
    if len(classes) != len(dataset.classes):
        raise InputError(
            f"the bundle has {len(classes)} classes, {dataset.title} has {len(dataset.classes)}: a net can only be "
            f"evaluated on the classes it was trained for; --label-classes {dataset.key} brings the labels to them"
        )
    ours, theirs = ([simplify_name(name) for name in names] for names in (classes, dataset.classes))
    different = [index for index in range(len(ours)) if ours[index] != theirs[index]]
    if not different:
        return []
    index = different[0]
    if set(ours) == set(theirs):
        raise InputError(
            f'the bundle has its classes in another order: its class {index} is "{classes[index]}", that of '
            f'{dataset.title} is "{dataset.classes[index]}"; if these are the names in the order of the net, '
            f"--label-classes {dataset.key} brings the labels to them by name, else convert the net again"
        )
    return [
        f'{len(different)} of the {len(classes)} classes have other names: {index} is "{classes[index]}" in the bundle '
        f'and "{dataset.classes[index]}" in {dataset.title}'
    ]


def find_first_number(dataset: Dataset) -> int | None:
    """The number of the first class in label images whose order may be wrong; None if their classes have names."""
    if dataset.key != FOLDER or dataset.mapping is not None:
        return None
    return min(dataset.find_numbers(), default=None)


def _make_stages(
    segmenter: Segmenter,
    dataset: Dataset,
    variants: Sequence[str],
    widths: Sequence[int],
    reference: Reference,
    cores: int,
) -> list[Stage]:
    classes = len(segmenter.bundle.manifest.classes)
    gate = MemoryGate(segmenter.memory_bytes)

    def decode(pair: Pair) -> _Work:
        example = dataset.load(pair)
        needed = segmenter.plan(example.image.shape[0], example.image.shape[1]).bytes
        return _Work(pair, example, memory=gate.reserve(needed))

    def run_network(work: _Work) -> _Work:
        feeds = segmenter.prepare(work.example.image)
        work.raw = segmenter.run_network(feeds) if feeds else None
        return work

    def label(work: _Work, threads: int = 1) -> _Work:
        image = work.example.image
        if NETWORK in variants:
            work.labels[NETWORK] = segmenter.finish(image, work.raw, crf=False, threads=threads).labels
        if CRF in variants:
            work.labels[CRF] = segmenter.finish(image, work.raw, threads=threads).labels
        work.raw = None
        return work

    def judge(work: _Work) -> _Work:
        truth = work.example.truth
        distance = measure_distance(truth, reference, widths[-1])
        for name, labels in work.labels.items():
            work.counts[name] = count_bands(truth, labels, classes, widths, distance)
        work.memory = None
        return work

    is_local, has_crf = segmenter.backend.device == "cpu", CRF in variants
    hint = "a bundle in another precision, a GPU"
    return [
        Stage("decode", decode, waits=False, hint="faster storage for the images"),
        Stage("network", run_network, max_workers=1, cores=cores if is_local else 0, hint=hint),
        Stage("crf" if has_crf else "labels", label, waits=has_crf, max_cores=cores if has_crf else None),
        Stage("judge", judge, waits=False),
    ]


def _add_up(work: _Work, tallies: Mapping[str, Tally]) -> ImageScore:
    ious: dict[str, float | None] = {}
    accuracies: dict[str, float | None] = {}
    height, width = work.example.truth.shape
    judged = 0
    for name, tally in tallies.items():
        counts = work.counts[name]  # (widths + 1, classes, classes)
        whole = counts[-1]
        judged = int(whole.sum())
        tally.matrix.add_counts(whole, ignored=height * width - judged)
        tally.bands += counts[:-1]
        tally.parts.append(take_parts(whole))
        ious[name] = mean_iou_of_parts(tally.parts[-1][None]) if judged else None
        accuracies[name] = float(divide(np.trace(whole), judged)) if judged else None
    return ImageScore(work.pair.name, height, width, judged, ious, accuracies)
