"""An evaluation as JSON, and as a folder of pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...bundle.files import prepare_folder, write_file
from .confusion import VOID
from .evaluator import VARIANT_TITLES, Evaluation, Tally
from .published import PublishedResult, find_published

REPORT_VERSION = 1
REPORT_NAME = "evaluation.json"
FIGURES = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")


def describe_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Plain JSON data: fractions of 1, not rounded; null for undefined figures (nan)."""
    dataset = evaluation.dataset
    matrix = next(iter(evaluation.variants.values())).matrix
    described = {
        **{name: getattr(evaluation, name) for name in ("backend", "device", "precision", "bundle")},
        "dataset": {
            **{name: str(getattr(dataset, name)) for name in ("key", "title", "split", "root")},
            "images": len(dataset),
            "mapping": None if dataset.mapping is None else dataset.mapping.describe(evaluation.classes),
        },
        "evaluated": len(evaluation.images),
        "judged_pixels": int(matrix.counts.sum()),
        "void_pixels": matrix.ignored,
        "ignored_pixels": dict(evaluation.ignored),
        "variants": {
            name: {
                **_describe_tally(tally, evaluation.classes, evaluation.widths),
                "mean_iou_mapped": mean_iou_of_mapped(evaluation, tally),
            }
            for name, tally in evaluation.variants.items()
        },
        "crf_gain_95": evaluation.gain_interval(),
        "bands": {"reference": evaluation.reference, "widths": list(evaluation.widths)},
        "published": [asdict(result) for result in list_published(evaluation)],
        "warnings": list(evaluation.warnings),
        "suggested_map": evaluation.suggested_map,
        "failures": [{"image": name, "error": error} for name, error in evaluation.failures],
        "worst": [bad.score.name for bad in evaluation.worst],
        "images": [asdict(score) for score in evaluation.images],
        "size": evaluation.sizing.to_json(),
        "pipeline": None if evaluation.pipeline is None else evaluation.pipeline.to_json(),
    }
    return {key: _replace_nan(value) for key, value in described.items()}


def list_published(evaluation: Evaluation) -> list[PublishedResult]:
    """Published results of the same net and data set; none where labels were mapped to other classes."""
    dataset = evaluation.dataset
    return [] if dataset.mapping is not None else list(find_published(evaluation.bundle, dataset.key))


def mean_iou_of_mapped(evaluation: Evaluation, tally: Tally) -> float | None:
    """Mean IoU over the classes that the labels of a mapped data set can have; None without a mapping."""
    mapping = evaluation.dataset.mapping
    if mapping is None:
        return None
    ious = tally.matrix.class_ious[sorted(set(mapping.targets) - {VOID})]
    known = ious[ious == ious]  # not nan
    return float(known.mean()) if known.size else None


def write_evaluation(evaluation: Evaluation, folder: Path) -> dict[str, Path]:
    """Write `evaluation.json` and the pictures; the files are "report", "confusion_<variant>", "bands", "worst"."""
    from .drawing import draw_bands, draw_confusion, draw_worst

    prepare_folder(folder)
    pictures = {}
    for name, tally in evaluation.variants.items():
        score = f"{VARIANT_TITLES[name]}: mean IoU {tally.matrix.mean_iou:.1%}"
        title = f"{evaluation.bundle} on {evaluation.dataset.label}\n{score}"
        pictures[f"confusion_{name}"] = draw_confusion(tally.matrix.counts, evaluation.classes, title=title)
    pictures["bands"] = draw_bands(evaluation)
    if evaluation.worst:
        pictures["worst"] = draw_worst(evaluation)
    return write_report(
        folder / REPORT_NAME, {"schema_version": REPORT_VERSION, **describe_evaluation(evaluation)}, pictures
    )


def write_report(path: Path, report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> dict[str, Path]:
    """Write JSON and, beside it, PNGs; returns the files by name of the picture, and "report"."""
    written = {name: path.with_name(f"{name}.png") for name in pictures} | {"report": path}
    for name, content in pictures.items():
        write_file(written[name], content)
    write_file(path, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    return written


def _describe_tally(tally: Tally, classes: tuple[str, ...], widths: tuple[int, ...]) -> dict[str, Any]:
    matrix = tally.matrix
    return {
        **{name: getattr(matrix, name) for name in FIGURES},
        "mean_iou_95": tally.interval(),
        "class_ious": dict(zip(classes, matrix.class_ious.tolist(), strict=True)),
        "band_ious": {str(width): iou for width, iou in zip(widths, tally.band_ious(), strict=True)},
        "confusion": matrix.counts.tolist(),
    }


def _replace_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _replace_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(entry) for entry in value]
    return value
