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
    from ...bundle.folder import Bundle
    from ..pipeline import PipelineReport
    from ..resizing import Sizing
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


RankedImage = tuple[float, int, WorstImage]
"""Mean IoU, index in the dataset, and the image."""


@dataclass
class Tally:
    """The sums of one variant over all images."""

    matrix: ConfusionMatrix
    bands: Counts  # (widths, classes, classes)
    parts: list[Parts] = field(default_factory=list)  # (2, classes) of each image, for intervals

    def add(self, later: Tally) -> None:
        """Add the sums of later images."""
        self.matrix.add_counts(later.matrix.counts, ignored=later.matrix.ignored, images=later.matrix.images)
        self.bands += later.bands
        self.parts += later.parts

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
    pipeline: PipelineReport | None  # None if several processes shared the images
    backend: str
    device: str  # of the network
    precision: str
    sizing: Sizing
    ignored: Mapping[str, int] = field(default_factory=dict)  # pixels by class of the labels without a counterpart
    suggested_map: Mapping[str, str] | None = None  # for --map, where the classes seem to be in another order

    def gain_interval(self) -> tuple[float, float] | None:
        """The central 95 % of the CRF's gain in mean IoU; None unless both variants were evaluated."""
        if set(self.variants) != {NETWORK, CRF}:
            return None
        return bootstrap_gain(self.variants[NETWORK].parts, self.variants[CRF].parts)


@dataclass
class Sums:
    """The figures of some images of a dataset; those of its parts add up to those of the whole, exactly."""

    variants: dict[str, Tally]
    backend: str
    device: str
    precision: str
    sizing: Sizing
    images: list[ImageScore] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    worst: list[RankedImage] = field(default_factory=list)

    def add(self, later: Sums) -> None:
        """Add the figures of images that come later in the dataset."""
        for name, tally in self.variants.items():
            tally.add(later.variants[name])
        self.images += later.images
        self.failures += later.failures
        self.ignored.update(later.ignored)


def keep_worst(images: Sequence[RankedImage], gallery: int) -> list[RankedImage]:
    """The worst of these images."""
    return sorted(images, key=lambda entry: entry[:2])[:gallery]


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
    warnings = check_classes(segmenter.bundle.manifest.classes, dataset)
    settings = Settings(widths, choose_reference(reference, dataset), gallery)
    sums, report = sum_images(segmenter, dataset, 0, variants, settings, cores or count_cores(), advance)
    return conclude(segmenter.bundle, dataset, settings, sums, warnings, report)


@dataclass(frozen=True)
class Settings:
    """The arguments of `evaluate` that all parts of a dataset share."""

    widths: Sequence[int]
    reference: Reference
    gallery: int


def choose_reference(reference: Reference | None, dataset: Dataset) -> Reference:
    """The reference of the bands; None for the dataset's own."""
    return reference or ("void" if dataset.has_void_borders else "labels")


def choose_variants(crf: bool | None, segmenter: Segmenter) -> Sequence[str]:
    """The variants of `evaluate --crf` (True), `--no-crf` (False) or neither (None)."""
    return (NETWORK,) if segmenter.crf is None else (NETWORK, CRF) if crf is None else (CRF,)


def sum_images(
    segmenter: Segmenter,
    dataset: Dataset,
    first: int,
    variants: Sequence[str],
    settings: Settings,
    cores: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> tuple[Sums, PipelineReport]:
    """The figures of all images of a part of a dataset that begins at the index `first`; the rest as in `evaluate`."""
    if not variants or not set(variants) <= {NETWORK, CRF}:
        raise InputError(f'variants are "{NETWORK}" and "{CRF}", not {list(variants)}')
    if CRF in variants and segmenter.crf is None:
        raise InputError("the bundle was loaded without a CRF, so its result cannot be evaluated")
    classes, backend = len(segmenter.bundle.manifest.classes), segmenter.backend
    empty = np.zeros((len(settings.widths), classes, classes), np.int64)
    tallies = {name: Tally(ConfusionMatrix(classes), empty.copy()) for name in (NETWORK, CRF) if name in variants}
    sums = Sums(tallies, backend.name, backend.device, segmenter.precision, segmenter.sizing)
    last = list(tallies)[-1]
    stages = _make_stages(segmenter, dataset, tuple(tallies), settings.widths, settings.reference, cores)
    with Pipeline(stages, cores=cores, fatal=(DatasetError, BackendError, BundleError)) as pipeline:
        for result in pipeline.run(dataset.pairs):
            advance(1)
            if result.error is not None:
                if not isinstance(result.error, AtrousError):
                    raise result.error
                sums.failures.append((result.item.name, str(result.error)))
                continue
            work: _Work = result.value
            score = _add_up(work, tallies)
            sums.ignored.update(work.example.ignored)
            sums.images.append(score)
            if (quality := score.mean_iou[last]) is not None:
                bad = WorstImage(score, work.example.image, work.example.truth, work.labels)
                sums.worst = keep_worst([*sums.worst, (quality, first + result.index, bad)], settings.gallery)
        return sums, pipeline.report()


def conclude(
    bundle: Bundle,
    dataset: Dataset,
    settings: Settings,
    sums: Sums,
    warnings: Sequence[str],
    report: PipelineReport | None,
) -> Evaluation:
    """The evaluation of a dataset with these sums; InputError if all images failed."""
    if not sums.images:
        raise InputError(f"all {len(dataset)} images failed; the first: {sums.failures[0][1]}")
    classes, first = bundle.manifest.classes, find_first_number(dataset)
    counts = next(iter(sums.variants.values())).matrix.counts
    found = [] if counts.any() else ["every pixel of the label images is void: there is nothing to evaluate"]
    found += find_class_order(counts, classes, first)
    found += sums.sizing.find_warnings([(image.height, image.width) for image in sums.images])
    return Evaluation(
        bundle=bundle.manifest.name,
        dataset=dataset,
        classes=classes,
        variants=sums.variants,
        widths=tuple(settings.widths),
        reference=settings.reference,
        images=tuple(sums.images),
        failures=tuple(sums.failures),
        worst=tuple(bad for _, _, bad in sums.worst),
        warnings=(*warnings, *found),
        pipeline=report,
        backend=sums.backend,
        device=sums.device,
        precision=sums.precision,
        sizing=sums.sizing,
        ignored=dict(sums.ignored.most_common()),
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
