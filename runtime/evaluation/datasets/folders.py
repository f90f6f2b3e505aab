"""A dataset made of any folder of images and any folder of label images, paired by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....bundle.palettes import Color
from ....errors import DatasetError
from ...images import SUFFIXES
from ..confusion import VOID
from .dataset import Dataset, Pair, check_pairs, require_folder
from .label_files import VOC_VOID_COLOR, Coding, ColorCoding, list_some, make_index_coding
from .label_sets import LabelSet, make_set_coding
from .names import FOLDER

_LABEL_SUFFIXES = frozenset((".png", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"))


def open_folders(
    images: Path,
    labels: Path,
    classes: Sequence[str],
    palette: Sequence[Color] = (),
    *,
    image_ending: str = "",
    label_ending: str = "",
    void: int = VOID,
    offset: int = 0,
    colors: bool = False,
    label_set: LabelSet | None = None,
) -> Dataset:
    """Pair two folders, which may be the same one; label images without an image are ignored.

    Args:
        images: the folder of the images.
        labels: the folder of the label images.
        classes: names by label.
        palette: RGB by label.
        image_ending: end of the image names before the suffix: "_image" for a_image.png and a_labels.png.
        label_ending: the same for label images.
        void: the stored number of void pixels.
        offset: the stored number of the first class, 1 if labels count from 1.
        colors: whether label images hold the palette's colors instead of numbers.
        label_set: the classes of the label images, in place of `classes`, `void` and `offset`; then
            `map_dataset` brings them to the bundle's.

    Raises:
        DatasetError: if a folder is missing or empty, or an image has no labels or two.
    """
    images, labels = require_folder(images, "it holds the images"), require_folder(labels, "it holds the labels")
    pictures = _index_files(images, SUFFIXES, image_ending)
    truths = _index_files(labels, _LABEL_SUFFIXES, label_ending)
    if not pictures:
        ending = f' whose name ends in "{image_ending}"' if image_ending else ""
        raise DatasetError(f"has no image{ending}", path=images)
    missing = sorted(pictures.keys() - truths.keys())
    if missing:
        lossy = _index_files(labels, SUFFIXES - _LABEL_SUFFIXES, label_ending)
        first = missing[0]
        advice = (
            f"{lossy[first].name} does not keep labels exact; use the original PNG"
            if first in lossy and lossy[first] != pictures[first]
            else f"that of {pictures[first].name} would be {first}{label_ending}.png"
        )
        counts = f"{len(missing)} of {len(pictures)} images ({list_some(missing)})"
        raise DatasetError(f"has no labels for {counts}: {advice}", path=labels)
    pairs = [Pair(name, pictures[name], truths[name]) for name in sorted(pictures)]
    coding: Coding
    if label_set is not None:
        classes, coding = label_set.names, make_set_coding(label_set)
    elif colors:
        if len(palette) != len(classes):
            raise DatasetError(f"{len(palette)} colors for {len(classes)} classes: each class needs one", path=labels)
        coding = ColorCoding({VOC_VOID_COLOR: VOID} | {c: index for index, c in enumerate(palette)})
    else:
        coding = make_index_coding(len(classes), void=void, offset=offset, palette=palette, is_open=True)
    return Dataset(
        key=FOLDER,
        title="/".join(images.resolve().parts[-2:]),  # the last name alone is often "images"
        split="all",
        root=images,
        classes=tuple(classes),
        palette=tuple(palette),
        pairs=check_pairs(pairs, root=images, what="all"),
        coding=coding,
    )


def _index_files(folder: Path, suffixes: frozenset[str], ending: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or not path.stem.endswith(ending) or path.name.startswith("."):
            continue
        name = path.stem.removesuffix(ending)
        if name in found:
            raise DatasetError(f"has the same name as {found[name].name}: remove one of them", path=path)
        found[name] = path
    return found
