"""An evaluation as JSON and as a folder of pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...bundle.files import prepare_folder, write_file
from .evaluator import Evaluation, Tally
from .published import find_published

SCHEMA_VERSION = 1
REPORT_NAME = "evaluation.json"


def describe_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Plain JSON data; what cannot be said (nan) is null. Fractions are of 1, but for nothing else rounded."""
    dataset = evaluation.dataset
    gain = evaluation.gain_interval()
    return {
        "bundle": evaluation.bundle,
        "dataset": {
            "key": dataset.key,
            "title": dataset.title,
            "split": dataset.split,
            "root": str(dataset.root),
            "images": len(dataset),
        },
        "evaluated": len(evaluation.images),
        "judged_pixels": int(next(iter(evaluation.variants.values())).matrix.counts.sum()),
        "void_pixels": int(next(iter(evaluation.variants.values())).matrix.ignored),
        "variants": {
            name: _describe_tally(tally, evaluation.classes, evaluation.widths)
            for name, tally in evaluation.variants.items()
        },
        "crf_gain_95": _plain(gain),
        "bands": {"reference": evaluation.reference, "widths": list(evaluation.widths)},
        "published": [asdict(figure) for figure in find_published(evaluation.bundle, dataset.key)],
        "warnings": list(evaluation.warnings),
        "failures": [{"image": name, "error": error} for name, error in evaluation.failures],
        "worst": [bad.score.name for bad in evaluation.worst],
        "images": [asdict(score) for score in evaluation.images],
        "pipeline": _plain(evaluation.pipeline.to_json()),
    }


def write_evaluation(evaluation: Evaluation, folder: Path) -> dict[str, Path]:
    """Write `evaluation.json` and the pictures.

    Returns:
        What was written: "report", "confusion_<variant>", "bands", "worst".

    Raises:
        OutputError: if the folder cannot be written.
        MissingDependencyError: if matplotlib is missing.
    """
    from .drawing import draw_bands, draw_confusion, draw_worst

    prepare_folder(folder)
    pictures: dict[str, bytes] = {
        f"confusion_{name}": draw_confusion(tally.matrix.counts, evaluation.classes, title=_title(evaluation, name))
        for name, tally in evaluation.variants.items()
    }
    pictures["bands"] = draw_bands(evaluation)
    if evaluation.worst:
        pictures["worst"] = draw_worst(evaluation)
    written = {}
    for name, content in pictures.items():
        written[name] = folder / f"{name}.png"
        write_file(written[name], content)
    written["report"] = folder / REPORT_NAME
    whole = {"schema_version": SCHEMA_VERSION, **describe_evaluation(evaluation)}
    write_file(written["report"], (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode())
    return written


def _describe_tally(tally: Tally, classes: tuple[str, ...], widths: tuple[int, ...]) -> dict[str, Any]:
    matrix = tally.matrix
    return {
        "mean_iou": _plain(matrix.mean_iou),
        "mean_iou_95": _plain(tally.interval()),
        "pixel_accuracy": _plain(matrix.pixel_accuracy),
        "mean_accuracy": _plain(matrix.mean_accuracy),
        "frequency_weighted_iou": _plain(matrix.frequency_weighted_iou),
        "class_ious": {name: _plain(float(iou)) for name, iou in zip(classes, matrix.class_ious, strict=True)},
        "band_ious": {str(width): _plain(iou) for width, iou in zip(widths, tally.band_ious(), strict=True)},
        "confusion": matrix.counts.tolist(),
    }


def _title(evaluation: Evaluation, variant: str) -> str:
    after = {"network": "network alone", "crf": "with the dense CRF"}[variant]
    score = evaluation.variants[variant].matrix.mean_iou
    return f"{evaluation.bundle} on {evaluation.dataset.label}\n{after}: mean IoU {score:.1%}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
