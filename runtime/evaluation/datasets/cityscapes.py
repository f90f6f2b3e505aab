"""Cityscapes, as `leftImg8bit_trainvaltest.zip` and `gtFine_trainvaltest.zip` unpack.

::

    leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png
    gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png        ids 0 to 33
    gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png   made by cityscapesscripts: 0 to 18, void 255

19 of the 34 ids are evaluated; the others are void (the table of `cityscapesscripts/helpers/labels.py`).
"""

from __future__ import annotations

from pathlib import Path

from ....bundle.palettes import CITYSCAPES_CLASSES, CITYSCAPES_COLORS
from ....errors import DatasetError
from ..confusion import VOID
from .dataset import Pair, require_folder
from .label_files import Coding, IndexCoding, make_index_coding

_IMAGE_ENDING = "_leftImg8bit.png"
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # by train id
_LAST_ID = 33
TRAIN_IDS = dict.fromkeys(range(_LAST_ID + 1), VOID) | {identity: train for train, identity in enumerate(_IDS)}


def read(root: Path, split: str, annotations: str) -> tuple[list[Pair], Coding]:
    """List the split "train" or "val" below the folder of `leftImg8bit` and `gtFine`."""
    if annotations not in ("labelIds", "labelTrainIds"):
        raise DatasetError(f'annotations are labelIds or labelTrainIds, not "{annotations}"', path=root)
    if split == "test":
        raise DatasetError("the labels of the test split were never published: evaluate on val", path=root)
    images = require_folder(root / "leftImg8bit" / split, "it is in leftImg8bit_trainvaltest.zip")
    truths = require_folder(root / "gtFine" / split, "it is in gtFine_trainvaltest.zip")
    pairs = []
    for image in sorted(images.glob(f"*/*{_IMAGE_ENDING}")):
        name = image.name.removesuffix(_IMAGE_ENDING)
        pairs.append(Pair(name, image, truths / image.parent.name / f"{name}_gtFine_{annotations}.png"))
    if annotations == "labelIds":
        return pairs, IndexCoding(TRAIN_IDS, _LAST_ID + 1, "label ids of Cityscapes", CITYSCAPES_COLORS)
    count = len(CITYSCAPES_CLASSES)
    return pairs, make_index_coding(count, what="train ids of Cityscapes", palette=CITYSCAPES_COLORS)
