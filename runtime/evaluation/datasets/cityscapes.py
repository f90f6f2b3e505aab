"""Cityscapes, as `leftImg8bit_trainvaltest.zip` and `gtFine_trainvaltest.zip` unpack.

::

    leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png
    gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png        ids 0 to 33
    gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png   made by cityscapesscripts: 0 to 18, void 255

19 of the 34 ids are judged; the others are void (the table of `cityscapesscripts/helpers/labels.py`).
"""

from __future__ import annotations

from pathlib import Path

from ....bundle.palettes import CITYSCAPES_CLASSES, CITYSCAPES_COLORS
from ....errors import DatasetError
from ..confusion import VOID
from .dataset import Dataset, Pair, check_pairs, require_folder
from .label_files import IndexCoding, make_index_coding

ANNOTATIONS = ("labelIds", "labelTrainIds")
_IMAGE_ENDING = "_leftImg8bit.png"

# The ids of the 19 judged classes, in the order of their train ids.
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_LAST_ID = 33
TRAIN_IDS = dict.fromkeys(range(_LAST_ID + 1), VOID) | {identity: train for train, identity in enumerate(_IDS)}


def open_cityscapes(root: Path, split: str = "val", annotations: str = ANNOTATIONS[0]) -> Dataset:
    """Open a split of Cityscapes with fine labels.

    Args:
        root: the folder of `leftImg8bit` and `gtFine`.
        split: "train" or "val"; the labels of "test" were never published.
        annotations: "labelIds" as distributed, or "labelTrainIds" as made by cityscapesscripts.

    Raises:
        DatasetError: if the layout is another, the split is empty, or files are missing.
    """
    if annotations not in ANNOTATIONS:
        raise DatasetError(f'labels are {" or ".join(ANNOTATIONS)}, not "{annotations}"', path=root)
    if split == "test":
        raise DatasetError("the labels of the test split were never published: evaluate on val", path=root)
    images = require_folder(root / "leftImg8bit" / split, "leftImg8bit_trainvaltest.zip brings it")
    truths = require_folder(root / "gtFine" / split, "gtFine_trainvaltest.zip brings it")
    pairs = []
    for image in sorted(images.glob(f"*/*{_IMAGE_ENDING}")):
        name = image.name.removesuffix(_IMAGE_ENDING)
        pairs.append(Pair(name, image, truths / image.parent.name / f"{name}_gtFine_{annotations}.png"))
    if annotations == "labelIds":
        coding = IndexCoding(TRAIN_IDS, _LAST_ID + 1, "label ids of Cityscapes", CITYSCAPES_COLORS)
    else:
        coding = make_index_coding(len(CITYSCAPES_CLASSES), what="train ids of Cityscapes", palette=CITYSCAPES_COLORS)
    return Dataset(
        key="cityscapes",
        title="Cityscapes",
        split=split,
        root=root,
        classes=CITYSCAPES_CLASSES,
        palette=CITYSCAPES_COLORS,
        pairs=check_pairs(pairs, root=images, what=split),
        coding=coding,
    )
