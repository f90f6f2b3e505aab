"""The accuracy view: label accuracy beside speed at each CRF setting.

The reference is float32 on ONNX Runtime's CPU provider with the CRF off, or with the bundle's CRF for all settings
that use one. Latency is from prepare to labels of the same images, repeated; the timed runs' labels are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...dependencies import import_crf
from ..evaluation.confusion import ConfusionMatrix
from ..segmentation import Labels
from ..segmenter import Segmenter
from .plan import BenchPlan, Sample
from .results import Accuracy
from .statistics import estimate_quantiles
from .timing import Clock

if TYPE_CHECKING:
    from ..crf import CrfParameters

OFF, BUNDLE, FAST_CRF = "off", "bundle", "fast"
_SHORT_ITERATIONS = (1, 2, 5)

References = Mapping[str, Sequence[Labels]]


class CrfSetting(NamedTuple):
    """One way to run the CRF: its parameters (None: off) and its shortcuts."""

    parameters: CrfParameters | None
    shortcuts: Mapping[str, Any] = {}


def list_crf_settings(parameters: CrfParameters | None, *, sweep: bool = True) -> dict[str, CrfSetting]:
    """The settings to compare by name: off, the bundle's, and with `sweep` faster versions of the bundle's."""
    settings = {OFF: CrfSetting(None)}
    if parameters is None:
        return settings
    settings[BUNDLE] = CrfSetting(parameters)
    if sweep:
        for count in _SHORT_ITERATIONS:
            if count < parameters.iterations:
                name = f"{count} iteration{'s' if count > 1 else ''}"
                settings[name] = CrfSetting(replace(parameters, iterations=count))
        settings["float16"] = CrfSetting(parameters, {"storage": "float16"})
        settings[FAST_CRF] = CrfSetting(parameters, import_crf().FAST)
        settings["reduce=2"] = CrfSetting(parameters, {"reduce": 2})
    return settings


def label_references(segmenter: Segmenter, samples: Sequence[Sample]) -> dict[str, list[Labels]]:
    """The reference's labels by setting: "off", and "bundle" where the segmenter has a CRF."""
    bare = Segmenter(segmenter.bundle, segmenter.backend, sizing=segmenter.sizing)
    found = {OFF: [bare(sample.image) for sample in samples]}
    if segmenter.crf is not None:
        found[BUNDLE] = [segmenter(sample.image) for sample in samples]
    return found


def measure_accuracy(
    plan: BenchPlan,
    segmenter: Segmenter,
    references: References | None,
    *,
    reference_name: str,
    settings: Mapping[str, CrfSetting],
    clock: Clock,
) -> tuple[tuple[Accuracy, ...], dict[str, list[Labels]]]:
    """Label all images at each CRF setting; returns one row per setting, and the labels by setting.

    `references` are the labels to compare with, by "off" and "bundle"; None where the segmenter is the reference. The
    network runs once for all settings of an image; a setting's latency is prepare and network plus its own rest.
    """
    samples = plan.samples
    options: dict[str, Any] = {"threads": plan.threads, "sizing": segmenter.sizing}
    variants = {
        name: Segmenter(segmenter.bundle, segmenter.backend, crf=crf, crf_shortcuts=shortcuts, **options)
        for name, (crf, shortcuts) in settings.items()
    }
    labels: dict[str, list[Labels]] = {}
    latencies_ms: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(plan.repeats):
        labels = {name: [] for name in settings}
        for sample in samples:
            start_ns = clock.now_ns()
            feeds = segmenter.prepare(sample.image)
            raw = segmenter.run_network(feeds) if feeds else None
            network_ns = clock.now_ns() - start_ns
            for name, variant in variants.items():
                start_ns = clock.now_ns()
                labels[name].append(variant.finish(sample.image, raw).labels)
                latencies_ms[name].append((network_ns + clock.now_ns() - start_ns) / 1e6)
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
                images_per_s=1000 / max(float(np.mean(latencies_ms[name])), 1e-9),
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
    """Mean IoU and pixel accuracy against the true labels; None unless all images have labels."""
    matrix = ConfusionMatrix(classes)
    for ours, sample in zip(labels, samples, strict=True):
        if sample.truth is None:
            return None, None
        matrix.add(ours, sample.truth)
    iou, accuracy = matrix.mean_iou, matrix.pixel_accuracy
    return (None, None) if np.isnan(iou) else (iou, accuracy)
