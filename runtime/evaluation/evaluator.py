"""A bundle on a data set: each image through the network once, judged before and after the CRF.

Stages: decode (image and truth), network, crf (scores, labels, CRF), judge (confusion, bands). A label image that is
not what its data set says ends the run, since that mistake is seldom of one file alone, and so does a network or CRF
that cannot run. An image that cannot be read, or that the network does not take, is a failure of its own, and the score
is of the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError, BundleError, DatasetError, InferenceError, InputError
from ..pipeline import Pipeline, Stage
from ..pipeline.engine import count_cores
from .bootstrap import bootstrap_parts, bootstrap_parts_gain, take_parts
from .boundaries import WIDTHS, Reference, count_bands, measure_distance
from .confusion import ConfusionMatrix, Counts, LabelMap, mean_iou, pixel_accuracy
from .datasets import Dataset, Example

if TYPE_CHECKING:
    from ..pipeline import PipelineReport
    from ..segmenter import Segmenter
    from .datasets import Pair

NETWORK, CRF = "network", "crf"
GALLERY = 6
_SHIFT_GAIN = 0.1  # mean IoU that shifted labels must gain before anybody is warned


@dataclass(frozen=True)
class ImageScore:
    """How one image fared.

    Attributes:
        name: the data set's name of it.
        height, width: in pixels.
        judged: how many pixels are not void.
        mean_iou: by variant, over the classes that occur in this image; None if nothing was judged.
        pixel_accuracy: by variant; None if nothing was judged.
    """

    name: str
    height: int
    width: int
    judged: int
    mean_iou: Mapping[str, float | None]
    pixel_accuracy: Mapping[str, float | None]


@dataclass(frozen=True)
class Bad:
    """One of the worst images, kept to be looked at; all arrays H x W (x 3), labels by variant."""

    score: ImageScore
    image: npt.NDArray[np.uint8]
    truth: LabelMap
    labels: Mapping[str, LabelMap]


@dataclass
class Tally:
    """The sums of one variant.

    Attributes:
        matrix: over all images.
        bands: (widths, classes, classes) int64, over all images.
        parts: (2, classes) of each image, for intervals.
    """

    matrix: ConfusionMatrix
    bands: Counts
    parts: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def interval(self) -> tuple[float, float]:
        """The central 95 % of the mean IoU over images drawn again with replacement."""
        return bootstrap_parts(np.stack(self.parts))

    def band_ious(self) -> list[float]:
        """Mean IoU in each band; nan where no pixel lies in it."""
        return [mean_iou(counts) for counts in self.bands]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        bundle: the bundle's name.
        dataset: the part of the data set that was evaluated.
        classes: names by label, as the bundle gives them.
        variants: "network", "crf" or both, in this order -> their sums.
        widths: of the bands.
        reference: of the bands.
        images: one score for each image that could be done, in the data set's order.
        failures: (image, what was wrong) of the others.
        worst: the worst images of the last variant, worst first.
        warnings: what makes the figures doubtful.
        pipeline: rates and bottleneck of the run.
    """

    bundle: str
    dataset: Dataset
    classes: tuple[str, ...]
    variants: Mapping[str, Tally]
    widths: tuple[int, ...]
    reference: Reference
    images: tuple[ImageScore, ...]
    failures: tuple[tuple[str, str], ...]
    worst: tuple[Bad, ...]
    warnings: tuple[str, ...]
    pipeline: PipelineReport

    def gain_interval(self) -> tuple[float, float] | None:
        """The central 95 % of what the CRF gains in mean IoU; None unless both were evaluated."""
        if set(self.variants) != {NETWORK, CRF}:
            return None
        before, after = (np.stack(self.variants[name].parts) for name in (NETWORK, CRF))
        return bootstrap_parts_gain(before, after)


@dataclass
class _Work:
    pair: Pair
    example: Example
    raw: Any = None
    labels: dict[str, LabelMap] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)


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
        dataset: what to evaluate on.
        variants: "network", "crf" or both.
        widths: of the boundary bands, rising, in pixels.
        reference: of the bands; None for void on PASCAL VOC, label borders elsewhere.
        gallery: how many of the worst images to keep.
        cores: for network and CRF together; None for all this process may use.
        advance: called with 1 after each image.

    Raises:
        InputError: if the classes do not fit, the variants cannot be had, or not one image could be done.
        DatasetError: for the first label image that is not what the data set says.
        BundleError: if the network is not what the manifest promises.
        BackendError: if the network or the CRF cannot run.
    """
    classes = segmenter.bundle.manifest.classes
    warnings = check_classes(classes, dataset)
    _check_variants(segmenter, variants)
    band_reference: Reference = reference or ("void" if dataset.key == "voc2012" else "labels")
    empty = np.zeros((len(widths), len(classes), len(classes)), np.int64)
    tallies = {name: Tally(ConfusionMatrix(len(classes)), empty.copy()) for name in (NETWORK, CRF) if name in variants}
    last = list(tallies)[-1]
    images: list[ImageScore] = []
    failures: list[tuple[str, str]] = []
    heap: list[tuple[float, int, Bad]] = []
    stages = _make_stages(segmenter, dataset, tallies, widths, band_reference, cores)
    with Pipeline(stages, cores=cores, fatal=(DatasetError, BackendError, BundleError)) as pipeline:
        for outcome in pipeline.run(dataset.pairs):
            advance(1)
            if outcome.error is not None:
                if not isinstance(outcome.error, InferenceError):
                    raise outcome.error
                failures.append((outcome.item.name, str(outcome.error)))
                continue
            work: _Work = outcome.value
            score = _add_up(work, tallies)
            images.append(score)
            if (quality := score.mean_iou[last]) is not None and gallery:
                bad = Bad(score, work.example.image, work.example.truth, work.labels)
                (heapq.heappush if len(heap) < gallery else heapq.heappushpop)(heap, (-quality, outcome.index, bad))
        report = pipeline.report()
    if not images:
        raise InputError(f"not one of the {len(dataset)} images could be evaluated; the first: {failures[0][1]}")
    if not any(tally.matrix.counts.any() for tally in tallies.values()):
        warnings.append("every pixel of the labels is void: nothing was judged")
    warnings += find_label_shift(next(iter(tallies.values())).matrix.counts)
    return Evaluation(
        bundle=segmenter.bundle.manifest.name,
        dataset=dataset,
        classes=classes,
        variants=tallies,
        widths=tuple(widths),
        reference=band_reference,
        images=tuple(images),
        failures=tuple(failures),
        worst=tuple(bad for _, _, bad in sorted(heap, key=lambda entry: -entry[0])),
        warnings=tuple(warnings),
        pipeline=report,
    )


def check_classes(classes: Sequence[str], dataset: Dataset) -> list[str]:
    """Compare a bundle's classes with a data set's; returns warnings.

    Raises:
        InputError: if their numbers differ, or the same names stand in another order.
    """
    if len(classes) != len(dataset.classes):
        raise InputError(
            f"the bundle has {len(classes)} classes, {dataset.title} has {len(dataset.classes)}: a net can only be "
            "evaluated on the classes it was trained for"
        )
    ours, theirs = ([_plain_name(name) for name in names] for names in (classes, dataset.classes))
    different = [index for index in range(len(ours)) if ours[index] != theirs[index]]
    if different and set(ours) == set(theirs):
        index = different[0]
        raise InputError(
            f'the bundle counts its classes in another order: its {index} is "{classes[index]}", that of '
            f'{dataset.title} is "{dataset.classes[index]}"; convert the net again with the names in its own order, '
            "and label images to match"
        )
    if different:
        index = different[0]
        return [
            f'{len(different)} of the {len(classes)} classes go by other names: {index} is "{classes[index]}" in the '
            f'bundle and "{dataset.classes[index]}" in {dataset.title}'
        ]
    return []


def find_label_shift(counts: Counts) -> list[str]:
    """A warning if the truth, shifted by one class, fits far better: labels that count from another number."""
    here = mean_iou(counts)
    for step, remedy in ((-1, "labels seem to be one too high"), (1, "labels seem to be one too low")):
        shifted = mean_iou(np.roll(counts, step, axis=0))
        if shifted > 2 * here and shifted > here + _SHIFT_GAIN:
            return [f"the {remedy}: shifted by {step:+d}, the mean IoU would be {shifted:.1%} instead of {here:.1%}"]
    return []


def _check_variants(segmenter: Segmenter, variants: Sequence[str]) -> None:
    if not variants or not set(variants) <= {NETWORK, CRF}:
        raise InputError(f'variants are "{NETWORK}" and "{CRF}", not {list(variants)}')
    if CRF in variants and segmenter.crf is None:
        raise InputError("the bundle was loaded without a CRF, so there is nothing to evaluate after it")


def _make_stages(
    segmenter: Segmenter,
    dataset: Dataset,
    tallies: Mapping[str, Tally],
    widths: Sequence[int],
    reference: Reference,
    cores: int | None,
) -> list[Stage]:
    total = cores or count_cores()
    classes = len(segmenter.bundle.manifest.classes)

    def decode(pair: Pair) -> _Work:
        return _Work(pair, dataset.load(pair))

    def run_network(work: _Work) -> _Work:
        work.raw = segmenter.run_network(segmenter.prepare(work.example.image))
        return work

    def label(work: _Work, threads: int = 1) -> _Work:
        image = work.example.image
        if NETWORK in tallies and segmenter.head == "labels":
            work.labels[NETWORK] = work.raw
        elif NETWORK in tallies:
            size = (image.shape[0], image.shape[1])
            work.labels[NETWORK] = segmenter.complete_scores(work.raw, size).argmax(0).astype(np.uint8)
        if CRF in tallies:
            work.labels[CRF] = segmenter.finish(image, work.raw, threads=threads).labels
        work.raw = None
        return work

    def judge(work: _Work) -> _Work:
        truth = work.example.truth
        distance = measure_distance(truth, reference, widths[-1])
        for name, labels in work.labels.items():
            work.counts[name] = count_bands(truth, labels, classes, widths, distance)
        return work

    is_local, has_crf = segmenter.backend.device == "cpu", CRF in tallies
    return [
        Stage("decode", decode, waits=False, hint="faster storage for the images"),
        Stage(
            "network",
            run_network,
            max_workers=1,
            cores=total if is_local else 0,
            hint="a bundle in another precision, a GPU",
        ),
        Stage("crf" if has_crf else "labels", label, waits=has_crf, max_cores=total if has_crf else None),
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
        tally.matrix.add_counts(whole)
        tally.matrix.ignored += height * width - judged
        tally.bands += counts[:-1]
        tally.parts.append(take_parts(whole))
        ious[name] = mean_iou(whole) if judged else None
        accuracies[name] = pixel_accuracy(whole) if judged else None
    return ImageScore(work.pair.name, height, width, judged, ious, accuracies)


def _plain_name(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
