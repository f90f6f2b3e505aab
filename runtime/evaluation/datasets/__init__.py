"""Labelled data sets in the folders they are published in; each file opens with its layout."""

from __future__ import annotations

from pathlib import Path

from ....errors import InputError
from .camvid import open_camvid
from .cityscapes import open_cityscapes
from .dataset import Dataset, Example, Pair
from .folders import open_folders
from .label_files import ColourCoding, IndexCoding, make_index_coding, read_label_image
from .sun_rgbd import SUN_RGBD_CLASSES, open_sun_rgbd
from .voc import open_voc2012

__all__ = [
    "DEFAULT_SPLITS",
    "SUN_RGBD_CLASSES",
    "ColourCoding",
    "Dataset",
    "Example",
    "IndexCoding",
    "Pair",
    "make_index_coding",
    "open_camvid",
    "open_cityscapes",
    "open_dataset",
    "open_folders",
    "open_sun_rgbd",
    "open_voc2012",
    "read_label_image",
]

DEFAULT_SPLITS = {"voc2012": "val", "cityscapes": "val", "camvid": "test", "sun-rgbd": "test"}
"""The published data sets, each with the split its figures are given on where its labels are public."""


def open_dataset(key: str, root: str | Path, split: str | None = None, annotations: str | None = None) -> Dataset:
    """Open a published data set.

    Args:
        key: one of `DEFAULT_SPLITS`.
        root: where it was unpacked.
        split: None for the one its figures are usually given on.
        annotations: of PASCAL VOC and Cityscapes, which of their labels.

    Raises:
        InputError: if the data set is unknown, or has no choice of annotations.
        DatasetError: if the folder is not laid out as published.
    """
    if key not in DEFAULT_SPLITS:
        raise InputError(f'"{key}" is none of the data sets {", ".join(DEFAULT_SPLITS)}')
    root, chosen = Path(root), split or DEFAULT_SPLITS[key]
    if key == "voc2012":
        return open_voc2012(root, chosen, **({"annotations": annotations} if annotations else {}))
    if key == "cityscapes":
        return open_cityscapes(root, chosen, **({"annotations": annotations} if annotations else {}))
    if annotations:
        raise InputError(f"{key} has one kind of annotations only: leave that out")
    return open_camvid(root, chosen) if key == "camvid" else open_sun_rgbd(root, chosen)
