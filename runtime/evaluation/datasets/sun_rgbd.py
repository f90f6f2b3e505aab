"""SUN RGB-D's 37 classes as plain images, as `ankurhanda/sunrgbd-meta-data` packs them (SegNet's source too).

::

    SUNRGBD-train_images/img-000001.jpg ... img-005285.jpg      SUNRGBD-train_images.tgz
    SUNRGBD-test_images/img-000001.jpg  ... img-005050.jpg      SUNRGBD-test_images.tgz
    labels/test/img-000001.png          ... img-005050.png      sunrgbd_train_test_labels.tar.gz, sorted into two
    labels/train/img-005051.png         ... img-010335.png      folders as its README says

Labels are numbers: 0 is unlabelled (void here), 1 to 37 the classes. The first 5050 label images are of the test split:
training image k has the labels 5050 + k. The label images may also lie in one folder, `labels`.
(The original, one 7.3 MATLAB file of 64 GB in memory, is not read.)
"""

from __future__ import annotations

import re
from pathlib import Path

from ....bundle.palettes import make_distinct_colors
from ....errors import DatasetError
from .dataset import Dataset, Pair, check_pairs, require_folder
from .label_files import make_index_coding

TEST_IMAGES = 5050
SUN_RGBD_CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
    *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
    *("ceiling", "books", "fridge", "tv", "paper", "towel", "shower curtain", "box", "whiteboard", "person"),
    *("night stand", "toilet", "sink", "lamp", "bathtub", "bag"),
)
_NAME = re.compile(r"img-(\d{6})\.jpg")


def open_sun_rgbd(root: Path, split: str = "test") -> Dataset:
    """Open a split of SUN RGB-D.

    Args:
        root: the folder of `SUNRGBD-test_images` and `labels`.
        split: "train" or "test".

    Raises:
        DatasetError: if the layout is another, the split is empty, or files are missing.
    """
    if split not in ("train", "test"):
        raise DatasetError(f'SUN RGB-D has the splits train and test, not "{split}"', path=root)
    images = require_folder(root / f"SUNRGBD-{split}_images", f"SUNRGBD-{split}_images.tgz brings it")
    truths = require_folder(root / "labels", "sunrgbd_train_test_labels.tar.gz is unpacked there")
    truths = truths / split if (truths / split).is_dir() else truths
    shift = TEST_IMAGES if split == "train" else 0
    pairs = []
    for image in sorted(images.glob("img-*.jpg")):
        found = _NAME.fullmatch(image.name)
        if found is None:
            raise DatasetError("is not named img-000001.jpg and so on", path=image)
        pairs.append(Pair(image.stem, image, truths / f"img-{int(found[1]) + shift:06d}.png"))
    palette = make_distinct_colors(len(SUN_RGBD_CLASSES))
    return Dataset(
        key="sun-rgbd",
        title="SUN RGB-D",
        split=split,
        root=root,
        classes=SUN_RGBD_CLASSES,
        palette=palette,
        pairs=check_pairs(pairs, root=images, what=split),
        coding=make_index_coding(len(SUN_RGBD_CLASSES), void=0, offset=1, what="37 labels of SUN RGB-D"),
    )
