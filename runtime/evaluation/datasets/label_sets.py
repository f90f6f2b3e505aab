"""The class sets that label images are published in: names, and the numbers or colors that stand for them.

This module is light: the command line reads it for `--help`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ....bundle.class_names import ADE20K_CLASSES, CITYSCAPES_ID_CLASSES, COCO_STUFF_CLASSES
from ....bundle.palettes import CAMVID_CLASSES, CITYSCAPES_CLASSES, SUN_RGBD_CLASSES, VOC_CLASSES, Color
from ....errors import DatasetError, InputError

if TYPE_CHECKING:
    from .dataset import Dataset
    from .label_files import Coding

_MAX_CLASSES = 255  # labels are uint8, and 255 is void


@dataclass(frozen=True)
class LabelSet:
    """The classes of label images: the number `first` is that of the first class, `void` that of ignored pixels."""

    title: str
    names: tuple[str, ...]
    first: int = 0
    void: int = 255
    color_names: str = ""  # set of `palettes` or "camvid", if label images may hold colors


LABEL_SETS = {
    "voc": LabelSet("PASCAL VOC", VOC_CLASSES, color_names="voc"),
    "cityscapes": LabelSet("Cityscapes (train ids)", CITYSCAPES_CLASSES),
    "cityscapes-ids": LabelSet("Cityscapes (label ids)", CITYSCAPES_ID_CLASSES),
    "camvid": LabelSet("CamVid", CAMVID_CLASSES, void=len(CAMVID_CLASSES), color_names="camvid"),
    "sun-rgbd": LabelSet("SUN RGB-D", SUN_RGBD_CLASSES, first=1, void=0),
    "ade20k": LabelSet("ADE20K", ADE20K_CLASSES, first=1, void=0),
    "coco-stuff": LabelSet("COCO-Stuff", COCO_STUFF_CLASSES),
}


def find_label_set(name: str, *, first: int = 0, void: int = 255) -> LabelSet:
    """A built-in set by its name, or that of a file with one class name per line.

    Args:
        name: a key of `LABEL_SETS`, or a path.
        first: number of the first class in place of the set's own, unless 0.
        void: number of ignored pixels in place of the set's own, unless 255.

    Raises:
        InputError: if it is neither.
        DatasetError: if the file cannot be read or has no or too many names.
    """
    found = LABEL_SETS.get(name)
    if found is None:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{name}: is not a file, and not one of {', '.join(LABEL_SETS)}")
        from .dataset import read_lines

        names = tuple(read_lines(path, "names the classes of the label images"))
        if not 0 < len(names) <= _MAX_CLASSES or len(set(names)) != len(names):
            raise DatasetError(
                f"has {len(names)} names: 1 to {_MAX_CLASSES} are possible, each of them once, one per line", path=path
            )
        found = LabelSet(path.name, names)
    return replace(found, first=first or found.first, void=found.void if void == 255 else void)


def choose_label_set(name: str | None, is_mapped: bool, *, first: int = 0, void: int = 255) -> LabelSet | None:
    """The set of `find_label_set`; without a name that of all numbers if a map file is given, else None."""
    if name is not None:
        return find_label_set(name, first=first, void=void)
    return LabelSet("numbers", tuple(map(str, range(_MAX_CLASSES))), void=void) if is_mapped else None


def make_set_coding(labels: LabelSet) -> Coding:
    """The coding of label images of a set: numbers, and where the set has them colors too."""
    from ..confusion import VOID
    from .label_files import VOC_VOID_COLOR, ColorCoding, EitherCoding, make_index_coding

    what = f"labels of {labels.title}"
    numbers = make_index_coding(len(labels.names), void=labels.void, offset=labels.first, what=what)
    if labels.color_names == "camvid":
        from .camvid import COLOR_MEANINGS

        return EitherCoding(numbers, ColorCoding(COLOR_MEANINGS, what))
    if labels.color_names == "voc":
        from ....bundle.palettes import VOC_COLORS

        meanings = {VOC_VOID_COLOR: VOID} | {color: index for index, color in enumerate(VOC_COLORS)}
        return EitherCoding(numbers, ColorCoding(meanings, what))
    return numbers


def map_dataset(
    dataset: Dataset,
    source: str,
    classes: tuple[str, ...],
    palette: tuple[Color, ...],
    map_file: Path | None = None,
) -> Dataset:
    """Bring a dataset to the classes of a bundle: by name, and by a map file, which takes precedence.

    Args:
        dataset: with its own classes.
        source: what they are called, such as "camvid"; "" for label images whose numbers have no names.
        classes: of the bundle.
        palette: of the bundle.
        map_file: see `class_maps.read_map`.

    Raises:
        DatasetError: if the map file is invalid, or no class has a counterpart.
    """
    from ..confusion import VOID
    from .class_maps import ClassMap, match_names, read_map

    targets = match_names(dataset.classes, classes) if source else (VOID,) * len(dataset.classes)
    if map_file is not None:
        targets = read_map(map_file, dataset.classes, dataset.find_numbers(), classes, targets)
    if all(target == VOID for target in targets):
        raise DatasetError(
            f"no class of {source or 'the label images'} has a counterpart among the bundle's classes: write a file "
            "for --map, or convert the net with the names of its classes",
            path=dataset.root,
        )
    mapping = ClassMap(source or "numbers", dataset.classes, targets)
    return replace(dataset, classes=classes, palette=palette, mapping=mapping)
