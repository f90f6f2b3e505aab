"""Labeled datasets in the folder layouts they are published in.

To add one: a module here whose `read(root, split, annotations)` returns the pairs of files and their coding (its
docstring shows the layout), and an entry in `DATASETS`. This module is light: the command line reads it for `--help`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....bundle.palettes import (
    CAMVID_CLASSES,
    CAMVID_COLORS,
    CITYSCAPES_CLASSES,
    CITYSCAPES_COLORS,
    SUN_RGBD_CLASSES,
    VOC_CLASSES,
    VOC_COLORS,
    Color,
    make_distinct_colors,
)
from ....errors import InputError
from .names import FOLDER as FOLDER

if TYPE_CHECKING:
    from .dataset import Dataset


@dataclass(frozen=True)
class PublishedDataset:
    """An entry of `DATASETS`."""

    title: str  # in reports
    default_split: str  # that of published results, as far as its labels are public
    module: str  # of `read`
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    annotations: tuple[str, ...] = ()  # kinds of labels, the default first; empty if there is one kind
    has_void_borders: bool = False  # whether void pixels are drawn around objects


DATASETS = {
    "voc2012": PublishedDataset(
        *("PASCAL VOC 2012", "val", "voc", VOC_CLASSES, VOC_COLORS),
        annotations=("SegmentationClass", "SegmentationClassAug"),
        has_void_borders=True,
    ),
    "cityscapes": PublishedDataset(
        *("Cityscapes", "val", "cityscapes", CITYSCAPES_CLASSES, CITYSCAPES_COLORS),
        annotations=("labelIds", "labelTrainIds"),
    ),
    "camvid": PublishedDataset("CamVid", "test", "camvid", CAMVID_CLASSES, CAMVID_COLORS),
    "sun-rgbd": PublishedDataset(
        "SUN RGB-D", "test", "sun_rgbd", SUN_RGBD_CLASSES, make_distinct_colors(len(SUN_RGBD_CLASSES))
    ),
}


def open_dataset(key: str, root: str | Path, split: str | None = None, annotations: str | None = None) -> Dataset:
    """Open a published dataset unpacked to `root`; split and annotations None for its default ones."""
    if key not in DATASETS:
        raise InputError(f'unknown dataset "{key}": use one of {", ".join(DATASETS)}')
    entry = DATASETS[key]
    if annotations and not entry.annotations:
        raise InputError(f"{key} has one kind of annotations: omit the option")
    from .dataset import Dataset, check_pairs

    root, split = Path(root), split or entry.default_split
    module = importlib.import_module(f".{entry.module}", __name__)
    pairs, coding = module.read(root, split, annotations or next(iter(entry.annotations), ""))
    return Dataset(
        key=key,
        title=entry.title,
        split=split,
        root=root,
        classes=entry.classes,
        palette=entry.palette,
        pairs=check_pairs(pairs, root=root, what=split),
        coding=coding,
        has_void_borders=entry.has_void_borders,
    )
