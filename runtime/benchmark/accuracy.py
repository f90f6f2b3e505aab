"""Accuracy beside speed: what the labels are worth at each CRF setting.

The reference is float32 on ONNX Runtime's CPU provider with the same CRF setting, the bundle's own for those that
shorten it: by fewer iterations, or by the shortcuts of the CRF itself. Latency is prepare to labels of the same images,
repeated; the labels that are compared are those whose making was timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...dependencies import import_crf
from ..evaluation.confusion import ConfusionMatrix
from ..segmenter import Labels, Segmenter
from .clocks import Clock
from .results import Accuracy
from .runners import Sample
from .statistics import estimate_quantiles

if TYPE_CHECKING:
    from ..crf import CrfParameters

OFF, BUNDLE, FAST_CRF = "off", "bundle", "fast"
_SHORT_ITERATIONS = (1, 2, 5)

References = Mapping[str, Sequence[Labels]]


@dataclass(frozen=True)
class CrfSetting:
    """One way to run the CRF: its parameters (None: off), and what it may leave out."""

    parameters: CrfParameters | None
    shortcuts: Mapping[str, Any] = field(default_factory=dict)


def list_crf_settings(parameters: CrfParameters | None, *, short: bool = True) -> dict[str, CrfSetting]:
    """The settings to compare: off, the bundle's, and (unless `short` is off) what shortens the bundle's."""
    settings = {OFF: CrfSetting(None)}
    if parameters is None:
        return settings
    settings[BUNDLE] = CrfSetting(parameters)
    if not short:
        return settings
    for iterations in _SHORT_ITERATIONS:
        if iterations < parameters.iterations:
            words = f"{iterations} iteration{'s' if iterations > 1 else ''}"
            settings[words] = CrfSetting(replace(parameters, iterations=iterations))
    settings["float16"] = CrfSetting(parameters, {"storage": "float16"})
    settings[FAST_CRF] = CrfSetting(parameters, import_crf().FAST)
    settings["reduce=2"] = CrfSetting(parameters, {"reduce": 2})
    return settings


def label_references(segmenter: Segmenter, samples: Sequence[Sample]) -> dict[str, list[Labels]]:
    """The reference's labels with the CRF off, and with the bundle's where the segmenter has one."""
    bare = Segmenter(segmenter.bundle, segmenter.backend)
    found = {OFF: [bare(sample.image) for sample in samples]}
    if segmenter.crf is not None:
        found[BUNDLE] = [segmenter(sample.image) for sample in samples]
    return found


def measure_accuracy(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    references: References | None,
    *,
    reference_name: str,
    clock: Clock,
    settings: Mapping[str, CrfSetting],
    threads: int | None = None,
    repeats: int = 3,
    on_image: Callable[[int], None] = lambda images: None,
) -> tuple[tuple[Accuracy, ...], dict[str, list[Labels]]]:
    """Label all images at every setting, and compare.

    The network runs once for all settings of an image; a setting's latency is prepare and network, and its own rest.

    Args:
        segmenter: what is measured.
        samples: its images.
        references: labels to agree with, by setting: "off" and "bundle"; None where the segmenter itself is the
            reference.
        reference_name: what made them.
        clock: what times the runs.
        settings: of the CRF, by name.
        threads: of the CRF.
        repeats: how often every image is run.
        on_image: is called with 1 after each image.

    Returns:
        One row a setting, and the labels by setting.
    """
    variants = {
        name: Segmenter(
            segmenter.bundle,
            segmenter.backend,
            crf=setting.parameters,
            crf_shortcuts=setting.shortcuts,
            threads=threads,
        )
        for name, setting in settings.items()
    }
    labels: dict[str, list[Labels]] = {}
    latencies_ms: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(repeats):
        labels = {name: [] for name in settings}
        for sample in samples:
            start_ns = clock.now_ns()
            raw = segmenter.run_network(segmenter.prepare(sample.image))
            network_ns = clock.now_ns() - start_ns
            for name, variant in variants.items():
                start_ns = clock.now_ns()
                labels[name].append(variant.finish(sample.image, raw).labels)
                latencies_ms[name].append((network_ns + clock.now_ns() - start_ns) / 1e6)
            on_image(1)
    targets = references if references is not None else labels
    rows = []
    for name, setting in settings.items():
        kind = OFF if setting.parameters is None else BUNDLE
        miou, accuracy = score_labels(labels[name], samples, len(segmenter.bundle.manifest.classes))
        rows.append(
            Accuracy(
                crf=name,
                images=len(samples),
                reference=f"{reference_name}, CRF {kind}",
                label_agreement=measure_agreement(labels[name], targets[kind]),
                miou=miou,
                pixel_accuracy=accuracy,
                latency_ms=estimate_quantiles(np.asarray(latencies_ms[name]), (0.5,))[0],
                images_per_s=round(1000 / max(float(np.mean(latencies_ms[name])), 1e-9), 6),
            )
        )
    return tuple(rows), labels


def measure_agreement(labels: Sequence[Labels], references: Sequence[Labels]) -> float:
    """Share of pixels with the same label, over all images."""
    same = sum(int((ours == theirs).sum()) for ours, theirs in zip(labels, references, strict=True))
    return same / sum(theirs.size for theirs in references)


def score_labels(
    labels: Sequence[Labels], samples: Sequence[Sample], classes: int
) -> tuple[float | None, float | None]:
    """Mean IoU and pixel accuracy against the true labels; None where not every image has some."""
    matrix = ConfusionMatrix(classes)
    for ours, sample in zip(labels, samples, strict=True):
        if sample.truth is None:
            return None, None
        matrix.add(ours, sample.truth)
    iou, accuracy = matrix.mean_iou, matrix.pixel_accuracy
    return (None, None) if np.isnan(iou) else (iou, accuracy)
