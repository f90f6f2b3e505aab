"""The output files of a labeled image: their content by kind, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.files import remove_leftovers
from ...bundle.manifest import Manifest
from .. import pictures
from ..pictures import PLAIN, OverlayStyle
from ..segmentation import Labels, Segmentation
from .arrays import encode_array
from .storage import is_store, list_names, remove, write_content

_COUNTED_AT_ONCE = 1 << 22  # pixels


def encode_results(
    image: npt.NDArray[np.uint8],
    result: Segmentation,
    manifest: Manifest,
    outputs: Mapping[str, Path],
    style: OverlayStyle = PLAIN,
) -> dict[Path, bytes]:
    """The content of an image's output files by path.

    Args:
        image: H x W x 3 uint8 RGB.
        result: its labels, and probabilities if they are an output.
        manifest: classes and palette.
        outputs: the path of each kind; of "masks", the folder.
        style: of the overlay.
    """
    labels, palette, classes = result.labels, manifest.palette, manifest.classes
    files: dict[Path, bytes] = {}
    for kind, path in outputs.items():
        if kind == "labels":
            files[path] = pictures.encode_label_png(labels, palette)
        elif kind == "overlay":
            overlay = pictures.make_overlay(image, labels, palette, style)
            if style.legend:
                overlay = pictures.add_legend(overlay, labels, palette, classes)
            files[path] = pictures.encode_png(overlay) if style.format == "png" else pictures.encode_jpeg(overlay)
        elif kind == "masks":
            for index in _find_classes(labels, classes):
                mask = np.where(labels == index, np.uint8(255), np.uint8(0))
                files[path / _name_mask(index, classes[index])] = pictures.encode_gray_png(mask)
        elif kind == "coco":
            files[path] = json.dumps(describe_coco(labels, classes)).encode()
        else:
            files[path] = encode_array(np.asarray(result.probabilities))
    return files


def write_results(files: Mapping[Path, bytes], classes: Sequence[str]) -> None:
    """Write the files; masks that an earlier run left in the same folder are removed.

    Raises OutputError if a file cannot be written or removed.
    """
    names = {_name_mask(index, name) for index, name in enumerate(classes)}
    for folder in {path.parent for path in files if path.name in names}:
        if not is_store(folder):
            remove_leftovers(folder)
        for name in list_names(folder):
            if name in names and folder / name not in files:
                remove(folder / name)
    for path, content in files.items():
        write_content(path, content)


def describe_coco(labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
    """COCO's annotations of H x W labels, one for each class that occurs.

    A `segmentation` holds uncompressed run lengths, as `pycocotools.mask.frPyObjects` reads them: runs of pixels
    outside and inside by turns, column by column.
    """
    annotations = []
    for index in _find_classes(labels, classes):
        inside = labels == index
        rows, columns = np.nonzero(inside)
        mask = inside.ravel(order="F")
        x, y = int(columns.min()), int(rows.min())
        changes = np.flatnonzero(mask[1:] != mask[:-1]) + 1
        counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
        annotations.append(
            {
                "category_id": index,
                "category": classes[index],
                "area": len(rows),
                "bbox": [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1],
                "iscrowd": 1,
                "segmentation": {"size": list(labels.shape), "counts": [0, *counts] if mask[0] else counts},
            }
        )
    return {"height": labels.shape[0], "width": labels.shape[1], "annotations": annotations}


def measure_classes(labels: npt.NDArray[np.uint8], classes: Sequence[str]) -> dict[str, float]:
    """The share of pixels of each class that occurs in H x W labels, largest first."""
    counts = np.zeros(max(len(classes), 256), np.int64)
    for rows in np.array_split(labels, -(-labels.size // _COUNTED_AT_ONCE)):  # bincount makes 64-bit numbers of them
        counts += np.bincount(rows.ravel(), minlength=len(counts))
    counts = counts[: len(classes)]
    order = np.argsort(-counts, kind="stable")
    return {classes[index]: float(counts[index] / labels.size) for index in order if counts[index]}


def _find_classes(labels: Labels, classes: Sequence[str]) -> list[int]:
    return [int(index) for index in np.unique(labels) if index < len(classes)]


def _name_mask(index: int, name: str) -> str:
    """The file of a class's mask: its number, and its name with characters that every file system takes."""
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name[:60])
    return f"{index:03}_{plain}.png"
